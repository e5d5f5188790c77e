//! `meshctl log-level`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{ChangeLogRequest, LogStatus};
use mesh_types::{SecondsError, format_seconds, parse_seconds};
use serde::Serialize;

use crate::{context::Context, daemon::answer, output::Page};

/// Show what the daemon of this node logs, or change it while it runs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl log-level
  meshctl log-level debug --for 10m
  meshctl log-level info,mesh_gossip=trace,mesh_agent=debug
  meshctl log-level --reset          what the configuration says counts again

Without --for it lasts until the daemon starts anew, or until `log` changes in its configuration.")]
pub struct Args {
    /// A level (off, error, warn, info, debug, trace), or levels by module
    #[arg(value_name = "DIRECTIVES", conflicts_with = "reset")]
    directives: Option<String>,
    /// For how long, such as 30s or 1h30m
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, requires = "directives")]
    time: Option<u32>,
    /// Log what the configuration says again
    #[arg(long)]
    reset: bool,
}

/// What is logged, for programs.
#[derive(Debug, Serialize)]
pub struct Report {
    in_force: String,
    configured: String,
    /// After which the configuration counts again; null: it does already, or it does from the next start on.
    left_secs: Option<u32>,
    /// `journald`, `stderr, text` or `stderr, JSON`.
    place: String,
    /// Messages that journald was too slow for, since the daemon's start.
    lost: u64,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let request = ChangeLogRequest {
        directives: args.directives.clone().unwrap_or_default(),
        for_secs: args.time.unwrap_or(0),
        reset: args.reset,
    };
    let changes = args.reset || args.directives.is_some();
    let what = if changes { "cannot change what is logged" } else { "cannot tell what is logged" };
    let status = answer(daemon.local().change_log(request)).await.context(what)?;
    context.show(&Report::from(status), Report::page)
}

fn seconds(text: &str) -> Result<u32, String> {
    match parse_seconds(text).map_err(|error: SecondsError| error.to_string())? {
        0 => Err("no time at all; leave --for out, or use --reset".to_owned()),
        seconds => Ok(seconds),
    }
}

impl From<LogStatus> for Report {
    fn from(status: LogStatus) -> Self {
        let LogStatus { in_force, configured, left_secs, place, lost } = status;
        Self { in_force, configured, left_secs, place, lost }
    }
}

impl Report {
    fn page(&self) -> String {
        let mut page = Page::new();
        page.field("Log", self.level()).field("Goes to", self.place());
        page.render()
    }

    /// On one line: what is logged, and what else if that is not what the configuration says.
    pub fn level(&self) -> String {
        match self.left_secs {
            None if self.in_force == self.configured => self.in_force.clone(),
            None => format!("{}, until the daemon starts anew; then {}", self.in_force, self.configured),
            Some(left) => {
                format!("{}, for {}; then {}", self.in_force, format_seconds(left), self.configured)
            }
        }
    }

    fn place(&self) -> String {
        match self.lost {
            0 => self.place.clone(),
            lost => format!("{}, which was too slow for {lost} messages", self.place),
        }
    }
}
