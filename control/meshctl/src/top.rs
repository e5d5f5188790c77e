//! `meshctl top`.

mod cluster;
mod rates;
mod screen;

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_api::v1::{GetSnapshotRequest, NodeSnapshot};
use tokio::time::{Instant, sleep};

use self::{
    rates::{Report, Sort},
    screen::{View, lines, table},
};
use crate::{
    context::Context,
    daemon::{Daemon, answer},
    live::{Next, Screen},
    output::{self, Page},
};

/// The first rates come after so long at most.
const FIRST: Duration = Duration::from_secs(1);

/// Watch what services, tasks and networks of this node carry, or what all nodes do
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl top
  meshctl top --sort flows --interval 5
  meshctl top --cluster                        nodes and services of the whole cluster, on a manager
  meshctl top > now.txt                        one look at all, where stdout is no terminal
  meshctl --format json top --interval 10

Keys: q quits, s sorts by the next column, tab shows the next list: services, tasks, networks, reasons of drops.
IN is towards tasks, and from clients to services. Traffic of services is counted at the node that its clients speak to,
traffic of tasks at their own node; established flows are those to services. With --cluster nodes report every two seconds, for as
long as somebody looks; the lists are nodes, services (by clients that enter anywhere, both ways) and reasons of drops.")]
pub struct Args {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: u32,
    /// Order
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Nodes and services of the whole cluster; managers know them
    #[arg(long)]
    cluster: bool,
}

/// Looks until q or Ctrl-C; once, where nobody watches.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let interval = Duration::from_secs(args.interval.into());
    if args.cluster {
        return cluster::run(interval, args.sort, context).await;
    }
    let daemon = context.daemon().await?;
    if context.is_for_programs() || !output::is_terminal() {
        let before = look(&daemon).await?;
        sleep(interval).await;
        let report = Report::new(&before, &look(&daemon).await?, args.sort);
        return context.show(&report, page);
    }
    let mut screen = Screen::begin()?;
    let (mut view, mut sort) = (View::default(), args.sort);
    let mut before = look(&daemon).await?;
    let mut now = before.clone();
    let mut next = Instant::now() + FIRST.min(interval);
    loop {
        screen.show(lines(&Report::new(&before, &now, sort), view, sort, screen.size()))?;
        match screen.next(next).await {
            Next::Quit => return Ok(()),
            Next::Key(b's' | b'S') => sort = sort.next(),
            Next::Key(b'\t') => view = view.next(),
            Next::Key(_) | Next::Resized => {}
            Next::Look => {
                next = Instant::now() + interval;
                before = std::mem::replace(&mut now, look(&daemon).await?);
            }
        }
    }
}

async fn look(daemon: &Daemon) -> Result<NodeSnapshot> {
    answer(daemon.local().get_snapshot(GetSnapshotRequest::default()))
        .await
        .context("cannot look at the node")
}

fn page(report: &Report) -> String {
    let mut page = Page::new();
    let members: Vec<String> = report.members.iter().map(|(state, n)| format!("{n} {state}")).collect();
    page.field("Node", &report.node).field("Nodes", members.join(", "));
    if let Some(fault) = &report.fault {
        page.field("Fault", fault);
    }
    for (heading, view) in [
        ("Services", View::Services),
        ("Tasks", View::Tasks),
        ("Networks", View::Networks),
        ("Drops", View::Drops),
    ] {
        page.section(heading, table(report, view));
    }
    page.render()
}
