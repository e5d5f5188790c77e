//! `meshctl ca`.

mod rotate;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use mesh_api::v1::{CaStatus, GetCaRequest};
use serde::Serialize;

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    output::{Cell, Table, short},
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How many nodes a page names.
const NAMED: usize = 10;

/// Show the cluster's CA, or replace its root
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  meshctl ca
  meshctl ca rotate --wait
  meshctl ca --wait --timeout 5m"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Rotate(rotate::Args),
}

#[derive(Debug, clap::Args)]
struct Wait {
    /// Wait until every node has a certificate of the present root, and no other root is trusted
    #[arg(long)]
    wait: bool,
    /// Longest wait [default: for ever]
    #[arg(long, requires = "wait", value_name = "TIME", value_parser = mesh_types::parse_seconds)]
    timeout: Option<u32>,
}

#[derive(Serialize)]
struct Report {
    generation: u64,
    digest: String,
    certificate: String,
    rotating: bool,
    nodes: Vec<NodeReport>,
}

#[derive(Serialize)]
struct NodeReport {
    id: String,
    name: String,
    current: bool,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    match &args.command {
        Some(Command::Rotate(args)) => rotate::run(args, &daemon, context).await,
        None => {
            let status = args.wait.finish(&daemon, fetch(&daemon).await?).await?;
            show(status, context)
        }
    }
}

async fn fetch(daemon: &Daemon) -> Result<CaStatus> {
    answer(daemon.cluster().get_ca(GetCaRequest {})).await.context("cannot get the cluster's CA")
}

impl Wait {
    /// The status that was waited for, or the given one if nobody wants to wait.
    async fn finish(&self, daemon: &Daemon, mut status: CaStatus) -> Result<CaStatus> {
        let done = |status: &CaStatus| !status.rotating && status.nodes.iter().all(|node| node.current);
        let wait = async {
            while self.wait && !done(&status) {
                tokio::time::sleep(LOOK).await;
                status = fetch(daemon).await?;
            }
            anyhow::Ok(())
        };
        match self.timeout {
            None => wait.await?,
            Some(secs) => match tokio::time::timeout(Duration::from_secs(secs.into()), wait).await {
                Ok(done) => done?,
                Err(_) => bail!("after {secs} s {}", late(&status)),
            },
        }
        Ok(status)
    }
}

fn late(status: &CaStatus) -> String {
    let late: Vec<&str> = status.nodes.iter().filter(|n| !n.current).map(|n| n.name.as_str()).collect();
    if late.is_empty() {
        return "the earlier root is trusted still".to_owned();
    }
    let more = late.len().saturating_sub(NAMED);
    let names = late.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("these nodes have no new certificate yet: {names}{more}")
}

fn show(status: CaStatus, context: &Context) -> Result<()> {
    let late = late(&status);
    let nodes = status.nodes.into_iter();
    let report = Report {
        generation: status.generation,
        digest: status.digest,
        certificate: status.certificate,
        rotating: status.rotating,
        nodes: nodes.map(|n| NodeReport { id: n.node_id, name: n.name, current: n.current }).collect(),
    };
    context.show(&report, |report| {
        let state = match (report.rotating, report.nodes.iter().all(|node| node.current)) {
            (true, _) => format!("being rotated; {late}"),
            (false, true) => "every node has a certificate of it".to_owned(),
            (false, false) => late,
        };
        let mut table = Table::new(&["ID", "HOSTNAME", "CERTIFICATE"]);
        for node in &report.nodes {
            let current = if node.current { "current" } else { "to be renewed" };
            table.row([Cell::new(short(&node.id)), Cell::new(&node.name), Cell::new(current)]);
        }
        format!(
            "{}\nDigest: {}\nState:  {state}\n\n{}",
            report.certificate.trim_end(),
            report.digest,
            table.render()
        )
    })
}
