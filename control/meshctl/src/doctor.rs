//! `meshctl doctor`.

mod cluster;
mod devices;
mod finding;
mod firewall;
mod host;
mod modules;
mod reach;
mod routes;

use std::process::ExitCode;

use anyhow::Result;
use mesh_api::v1::{ReachRequest, ReachResponse, StatusRequest, StatusResponse};
use mesh_types::ClusterView;

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    report::Cluster,
};

pub use finding::{Finding, Level};

/// Look for what keeps this node from working: each finding with its cure
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl doctor
  meshctl doctor --problems
  meshctl --format json doctor

Works before `meshctl init` or `join` and without the daemon too, with fewer checks; as root it sees more. Ports are tried
in both directions, and each node's path with packets of full size. Takes some seconds where something is closed.
Exit code: 1 if there is a failure, else 0.")]
pub struct Args {
    /// Show only what is not well, and what cannot be checked
    #[arg(long)]
    problems: bool,
}

/// What the daemon told; empty parts where it could not be asked.
#[derive(Default)]
struct Told {
    status: StatusResponse,
    view: Option<ClusterView>,
    reach: Option<ReachResponse>,
}

/// Looks, and tells.
pub async fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let mut findings = examine(context).await;
    let failed = findings.iter().any(|finding| finding.level == Level::Failure);
    let well = findings.iter().filter(|finding| finding.level == Level::Ok).count();
    if args.problems {
        findings.retain(|finding| finding.level != Level::Ok);
    }
    context.show(&findings, |findings| finding::page(findings, well))?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that can be found out from here.
pub async fn examine(context: &Context) -> Vec<Finding> {
    let mut findings = host::check();
    modules::check(&mut findings);
    let told = match ask(context, &mut findings).await {
        Some((daemon, told)) => {
            cluster::check(&told, &mut findings);
            reach::check(&daemon, &told, &mut findings).await;
            told
        }
        None => Told::default(),
    };
    devices::check(&told, &mut findings);
    routes::check(&told, &mut findings);
    firewall::check(&told, &mut findings);
    findings
}

/// What the daemon knows, or none where it does not run.
async fn ask(context: &Context, findings: &mut Vec<Finding>) -> Option<(Daemon, Told)> {
    const NAME: &str = "daemon";
    let daemon = match context.daemon().await {
        Ok(daemon) => daemon,
        Err(error) => {
            let cure = "start it with `systemctl start meshd`; `journalctl -u meshd` says why it ended";
            findings.push(Finding::failure(NAME, format!("{error:#}"), cure));
            return None;
        }
    };
    let status = match answer(daemon.local().status(StatusRequest {})).await {
        Ok(status) => status,
        Err(error) => {
            let cure = "restart it with `systemctl restart meshd`; packets flow meanwhile";
            findings.push(Finding::failure(NAME, format!("{error:#}"), cure));
            return None;
        }
    };
    findings.push(Finding::ok(NAME, format!("meshd {} answers", status.version)));
    if status.state == "inactive" {
        let what = "this node is in no cluster; `meshctl init` makes one, `meshctl join` joins one";
        findings.push(Finding::ok("cluster", what));
        host::check_ports(findings);
        return Some((daemon, Told { status, ..Told::default() }));
    }
    let view = match Cluster::fetch(&daemon).await {
        Ok(cluster) => Some(cluster.view),
        Err(error) => {
            findings.push(Finding::unchecked("cluster", format!("{error:#}")));
            None
        }
    };
    let reach = match answer(daemon.local().reach(ReachRequest::default())).await {
        Ok(reach) => Some(reach),
        Err(error) => {
            findings.push(Finding::unchecked("ports", format!("{error:#}")));
            None
        }
    };
    Some((daemon, Told { status, view, reach }))
}
