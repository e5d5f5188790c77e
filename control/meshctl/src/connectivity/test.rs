//! `meshctl connectivity test`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{GetViewRequest, TestConnectivityRequest, TestReport};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{Status, Streaming};

use super::matrix::{Matrix, page};
use crate::{
    context::Context,
    daemon::{Daemon, answer, failed},
    failure::Failure,
    report::Cluster,
};

/// How long the test's network may take to go.
const CLEAN: Duration = Duration::from_secs(25);
/// What there is to say after Ctrl-C.
const BEFORE: &str =
    "the test had not begun; if anything was made for it, managers remove it within two minutes";
const REMOVED: &str = "the test has ended, and what it made is removed";
const LEFT: &str = "the test has ended; managers remove what it made within two minutes";

/// Put a test task on every node, and have each try to reach all others
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl connectivity test
  meshctl connectivity test --node n1 --node n2
  meshctl --format json connectivity test

Each task tries every other one by name, TCP (a quarter of a MiB), UDP and packets of full size (mtu),
over IPv4 and IPv6 (tcp6, udp6, mtu6); the service of all by its name (service) and its VIPs (vip, vip6,
vip-udp, vip6-udp). Each node tries the published ports of every node (port, port-udp), and its own at
localhost of both families (localhost, localhost6, with -udp). Tasks, service and network are removed at
the end, also after Ctrl-C, and end by themselves if a daemon or manager does not. Runs on managers.
Exit code: 1 if something does not work, 130 after Ctrl-C.")]
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
    // From here on Ctrl-C does not end this process by itself.
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let daemon = context.daemon().await?;
    let mut control = daemon.control();
    let begun = async {
        let cluster = Cluster::fetch(&daemon).await?;
        let request = TestConnectivityRequest { nodes: args.nodes, secs: args.timeout, order: None };
        anyhow::Ok((cluster, answer(control.test_connectivity(request)).await?))
    };
    let (cluster, stream) = tokio::select! {
        begun = begun => begun.context("cannot test the connectivity")?,
        _ = interrupts.recv() => return Err(Failure::Interrupted(BEFORE).into()),
    };
    let Told { end, nodes, network, reports } = follow(stream, args.timeout, &mut interrupts).await;
    if let End::Cut(status) = end {
        let text = "the test of connectivity was cut off; managers remove what it made within two minutes";
        return Err(anyhow::Error::from(failed(&status)).context(text));
    }
    let gone = match network {
        Some(network) => is_gone(&daemon, &network, &mut interrupts).await,
        None => true,
    };
    if matches!(end, End::Interrupted) {
        return Err(Failure::Interrupted(if gone { REMOVED } else { LEFT }).into());
    }
    let names: BTreeMap<String, String> =
        cluster.view.nodes.values().map(|node| (node.id.to_string(), node.name.to_string())).collect();
    let matrix = Matrix::new(&nodes, &names, &reports);
    context.show(&matrix, page)?;
    if !gone {
        anstream::eprintln!(
            "meshctl: the test's network is still there; a manager removes it within a minute or two"
        );
    }
    Ok(if matrix.works() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a test ended.
enum End {
    /// Everybody has reported, or the time is over.
    Over,
    Interrupted,
    /// The daemon, or the manager that it asked, said no more.
    Cut(Status),
}

/// What was told of a test.
struct Told {
    end: End,
    /// Those that take part, by id.
    nodes: BTreeSet<String>,
    /// The one that was made for it.
    network: Option<String>,
    /// The last of each node.
    reports: BTreeMap<String, TestReport>,
}

/// Reads what is told until the test is over; with the stream it ends.
async fn follow(mut stream: Streaming<TestReport>, secs: u32, interrupts: &mut Signal) -> Told {
    let until = Instant::now() + Duration::from_secs(secs.into());
    let is_watched = std::io::stderr().is_terminal();
    let mut told = Told { end: End::Over, nodes: BTreeSet::new(), network: None, reports: BTreeMap::new() };
    loop {
        let report = tokio::select! {
            report = timeout_at(until, stream.message()) => report,
            _ = interrupts.recv() => {
                told.end = End::Interrupted;
                break;
            }
        };
        let report = match report {
            Ok(Ok(Some(report))) => report,
            Ok(Err(status)) => {
                told.end = End::Cut(status);
                break;
            }
            Ok(Ok(None)) | Err(_) => break,
        };
        if let Some(order) = &report.order {
            told.nodes.extend(order.nodes.iter().cloned());
            told.network = Some(order.network_id.clone());
        } else {
            told.reports.insert(report.node_id.clone(), report);
        }
        let ended = |report: &&TestReport| matches!(report.stage.as_str(), "done" | "failed");
        let done = told.reports.values().filter(ended).count();
        if is_watched {
            anstream::eprint!("\r{done} of {} nodes have reported", told.nodes.len());
        }
        if done == told.nodes.len() && !told.nodes.is_empty() {
            break;
        }
    }
    if is_watched {
        anstream::eprintln!();
    }
    told
}

/// Waits until the managers have removed the network, or for the next Ctrl-C.
async fn is_gone(daemon: &Daemon, network: &str, interrupts: &mut Signal) -> bool {
    let gone = async {
        loop {
            let view = answer(daemon.local().get_view(GetViewRequest {})).await;
            let networks = view.ok().and_then(|view| view.view).map(|view| view.networks);
            if networks.is_some_and(|networks| networks.iter().all(|known| known.id != network)) {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        gone = timeout(CLEAN, gone) => gone.is_ok(),
        _ = interrupts.recv() => false,
    }
}
