//! What every verb is given: the global options, the daemon, and where to print.

use std::{future::Future, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use mesh_api::v1::StatusRequest;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::{
    daemon::{Daemon, answer},
    failure::Failure,
    output,
};

const DEFAULT_SOCKET: &str = "/run/meshd/meshd.sock";

/// Options of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Options {
    /// Socket of the daemon on this node
    #[arg(long, global = true, display_order = 900, env = "MESHCTL_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print: for people, or for programs (full ids, lists as arrays)
    #[arg(long, global = true, display_order = 900, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

/// See the module.
#[derive(Debug)]
pub struct Context {
    options: Options,
}

impl Context {
    /// With the options as given.
    pub fn new(options: Options) -> Self {
        Self { options }
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

    /// Whether programs read what is printed.
    pub fn is_json(&self) -> bool {
        self.options.format == Format::Json
    }

    /// Prints `value` for programs, or what `text` makes of it for people.
    pub fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let text = match self.options.format {
            Format::Table => text(value),
            Format::Json => serde_json::to_string_pretty(value).context("cannot write JSON")?,
        };
        output::print(&text)
    }
}
