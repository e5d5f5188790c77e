//! `meshctl connectivity test`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{GetViewRequest, TestConnectivityRequest, TestReport};
use tokio::time::{Instant, sleep, timeout_at};

use super::matrix::{Matrix, page};
use crate::{
    context::Context,
    daemon::{Daemon, answer},
    failure::Failure,
    report::Cluster,
};

/// How long the test's network may take to go.
const CLEAN: Duration = Duration::from_secs(25);

/// Put a test task on every node, and have each try to reach all others
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl connectivity test
  meshctl connectivity test --node n1 --node n2
  meshctl --format json connectivity test

Each task tries every other one by name, TCP (a quarter of a MiB), UDP and packets of full size (mtu), over IPv4 and IPv6 (tcp6,
udp6, mtu6); the service of all by its VIP and name; each node the published port of every node. Tasks, service and network are
removed at the end, also after Ctrl-C, and end by themselves if a daemon or manager does not. Runs on managers.
Exit code: 1 if something does not work.")]
pub struct Args {
    /// Node that takes part, may be given several times; without it every active one
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// Seconds after which it ends, whoever has not reported
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..=600))]
    timeout: u32,
}

/// Has the managers test, and shows what came of it.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let daemon = context.daemon().await?;
    let cluster = Cluster::fetch(&daemon).await.context("cannot test the connectivity")?;
    let names: BTreeMap<String, String> =
        cluster.view.nodes.values().map(|node| (node.id.to_string(), node.name.to_string())).collect();
    let request = TestConnectivityRequest { nodes: args.nodes, secs: args.timeout, order: None };
    let mut control = daemon.control();
    let mut stream =
        answer(control.test_connectivity(request)).await.context("cannot test the connectivity")?;
    let until = Instant::now() + Duration::from_secs(args.timeout.into());
    let mut reports: BTreeMap<String, TestReport> = BTreeMap::new();
    let (mut nodes, mut network) = (BTreeSet::new(), None);
    let mut interrupted = false;
    let is_watched = std::io::stderr().is_terminal();
    loop {
        let report = tokio::select! {
            report = timeout_at(until, stream.message()) => report,
            _ = tokio::signal::ctrl_c() => {
                interrupted = true;
                break;
            }
        };
        let Ok(Ok(Some(report))) = report else { break };
        if let Some(order) = &report.order {
            nodes.extend(order.nodes.iter().cloned());
            network = Some(order.network_id.clone());
        } else {
            reports.insert(report.node_id.clone(), report);
        }
        let ended = |report: &&TestReport| matches!(report.stage.as_str(), "done" | "failed");
        let done = reports.values().filter(ended).count();
        if is_watched {
            anstream::eprint!("\r{done} of {} nodes have reported", nodes.len());
        }
        if done == nodes.len() && !nodes.is_empty() {
            break;
        }
    }
    if is_watched {
        anstream::eprintln!();
    }
    // With the stream the test ends.
    drop(stream);
    let left = match network {
        Some(network) => !is_gone(&daemon, &network).await,
        None => false,
    };
    if interrupted {
        return Err(Failure::Lost.into());
    }
    let matrix = Matrix::new(&nodes, &names, &reports);
    context.show(&matrix, page)?;
    if left {
        anstream::eprintln!(
            "meshctl: the test's network is still there; a manager removes it within a minute or two"
        );
    }
    Ok(if matrix.works() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the managers have removed the network.
async fn is_gone(daemon: &Daemon, network: &str) -> bool {
    let until = Instant::now() + CLEAN;
    while Instant::now() < until {
        let view = answer(daemon.local().get_view(GetViewRequest {})).await;
        let networks = view.ok().and_then(|view| view.view).map(|view| view.networks);
        if networks.is_some_and(|networks| networks.iter().all(|known| known.id != network)) {
            return true;
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
}
