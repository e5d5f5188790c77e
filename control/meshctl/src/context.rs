//! What every verb is given: the global options, the daemon, and how to print.

use std::{
    future::Future,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result};
use clap::Args;
use mesh_api::v1::StatusRequest;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::{
    daemon::{Daemon, answer},
    failure::Failure,
    output::{self, ColorWhen, Table},
    template::Template,
};

/// What names another socket than the usual one.
const SOCKET_VARIABLE: &str = "MESHCTL_SOCKET";
const DEFAULT_SOCKET: &str = "/run/meshd/meshd.sock";

/// Options of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Options {
    /// Socket of the daemon on this node
    #[arg(long, global = true, display_order = 900, env = SOCKET_VARIABLE, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print: for people, as JSON (full ids, lists as arrays), or by a Go template over that JSON, such as
    /// '{{.Name}}\t{{.ID}}' or 'table {{.Name}}\t{{.ID}}'
    #[arg(
        long,
        global = true,
        display_order = 900,
        value_name = "table|json|TEMPLATE",
        default_value = "table"
    )]
    format: Format,
    /// When to print in colours; auto: on terminals, unless NO_COLOR is set
    #[arg(long, global = true, display_order = 900, value_enum, value_name = "WHEN", default_value_t)]
    color: ColorWhen,
}

#[derive(Debug, Clone, PartialEq)]
enum Format {
    Table,
    Json,
    Template(Template),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ if text.contains("{{") => text.parse().map(Self::Template).map_err(|error| error.to_string()),
            _ => Err("there are table, json and templates such as '{{.Name}}\\t{{.ID}}'".to_owned()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Context {
    options: Options,
}

impl Context {
    /// With the options as given.
    pub fn new(options: Options) -> Self {
        options.color.apply();
        Self { options }
    }

    /// The daemon's socket, if it is not where it usually is.
    pub fn other_socket(&self) -> Option<&Path> {
        Some(self.options.socket.as_path()).filter(|socket| *socket != Path::new(DEFAULT_SOCKET))
    }

    /// A runtime on the calling thread alone: `run` changes the namespaces of that thread.
    pub fn runtime(&self) -> Result<Runtime> {
        Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
    }

    /// `work`, whose refusal says so when this node is in no cluster.
    pub async fn explained<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let error = match work.await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let needs_telling = match error.downcast_ref() {
            Some(Failure::Refused { code: tonic::Code::FailedPrecondition, message }) => {
                !message.contains("meshctl init")
            }
            _ => false,
        };
        if needs_telling && self.outside_any_cluster().await {
            return Err(error.context(Failure::NoCluster));
        }
        Err(error)
    }

    async fn outside_any_cluster(&self) -> bool {
        let Ok(daemon) = self.daemon().await else { return false };
        let status = answer(daemon.local().status(StatusRequest {})).await;
        status.is_ok_and(|status| status.state == "inactive")
    }

    /// The daemon, connected.
    pub async fn daemon(&self) -> Result<Daemon> {
        Ok(Daemon::connect(&self.options.socket).await?)
    }

    /// Whether programs read what is printed, so that nothing may be beside it.
    pub fn is_for_programs(&self) -> bool {
        self.options.format != Format::Table
    }

    /// Whether it is JSON that is printed.
    pub fn is_json(&self) -> bool {
        self.options.format == Format::Json
    }

    /// Prints `value` for programs, or what `text` makes of it for people.
    pub fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        match &self.options.format {
            Format::Table => output::print(&text(value)),
            Format::Json => {
                output::print_data(&serde_json::to_string_pretty(value).context("cannot write JSON")?)
            }
            Format::Template(template) => output::print_data(&fill(template, value)?),
        }
    }

    /// The same for one of many that come one after the other: JSON is on one line.
    pub fn show_one<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        match &self.options.format {
            Format::Json => output::print_data(&serde_json::to_string(value).context("cannot write JSON")?),
            _ => self.show(value, text),
        }
    }
}

/// The socket when no option names one.
pub fn usual_socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

/// Each element of a list for itself, anything else as a whole, each on a line.
fn fill<T: Serialize>(template: &Template, value: &T) -> Result<String> {
    // What others wrote must not steer a terminal; programs get it as it is.
    let shown: fn(&str) -> String = match output::is_terminal() {
        true => output::plain_lines,
        false => str::to_owned,
    };
    let items = match serde_json::to_value(value).context("cannot write JSON")? {
        serde_json::Value::Array(items) => items,
        item => vec![item],
    };
    let lines = items.iter().map(|item| template.fill(item, shown));
    let lines = lines.collect::<Result<Vec<_>, _>>().context("cannot fill in the template of --format")?;
    if !template.is_table() {
        return Ok(lines.join("\n"));
    }
    let headings = template.headings();
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for line in lines.iter().flat_map(|line| line.lines()) {
        table.row(line.split('\t').map(str::trim_end));
    }
    Ok(table.render())
}
