//! `meshctl flows`.

mod report;
mod selection;

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_api::v1::{FlowSums, ListFlowsRequest, ListFlowsResponse};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::{
    context::Context,
    daemon::{Daemon, answer, failed},
    live::{Next, Screen, fit},
    output,
};

pub use report::FlowReport;
pub use selection::Selection;

const WHAT: &str = "cannot list the flows";

/// List the flows to services' virtual addresses and published ports that this node carries
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl flows
  meshctl flows --service web --state established
  meshctl flows --client 203.0.113.0/24 --port 8080
  meshctl flows --task web.1 --limit 0
  meshctl flows --service web --watch                   again every two seconds
  meshctl --format json flows --network prod            one JSON object a line
  meshctl flows --format '{{.ClientAddress}} {{.Task}}'

Of conditions of one kind one has to hold, of all kinds each. Told are the flows that entered at this node, and those whose
task is here. What tasks say to each other's own addresses is not translated, so nothing is kept of it; see `meshctl top` for
its sums. Established connections stay for as long as they are open; IDLE is exact to a second.")]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Show so many at most; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    limit: u64,
    /// List them again every so many seconds, 2 unless it is said; on a terminal in place, as many as fit, until q or Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let Some(seconds) = args.watch else { return once(&args, &daemon, context).await };
    let interval = Duration::from_secs(seconds.into());
    if context.is_for_programs() || !output::is_terminal() {
        let ended = tokio::signal::ctrl_c();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                shown = once(&args, &daemon, context) => shown?,
                _ = &mut ended => return Ok(()),
            }
            tokio::select! {
                () = sleep(interval) => {}
                _ = &mut ended => return Ok(()),
            }
        }
    }
    watch(&args, &daemon, interval).await
}

async fn once(args: &Args, daemon: &Daemon, context: &Context) -> Result<()> {
    let (mut flows, mut sums) = (Vec::new(), FlowSums::default());
    let mut answers = asked(args, args.limit, daemon).await?;
    while let Some(part) = answers.message().await.map_err(|status| failed(&status)).context(WHAT)? {
        flows.extend(part.flows.into_iter().map(FlowReport::from));
        sums = part.sums.unwrap_or(sums);
        if context.is_json() {
            // As they come: there may be a million.
            let lines = flows.drain(..).map(|flow| serde_json::to_string(&flow));
            let lines = lines.collect::<Result<Vec<_>, _>>().context("cannot write JSON")?;
            if !lines.is_empty() {
                output::print_data(&lines.join("\n"))?;
            }
        }
    }
    if !context.is_json() {
        context.show(&flows, |flows| report::table(flows).render())?;
    }
    if args.limit != 0 && sums.matched > args.limit {
        anstream::eprintln!(
            "meshctl: {} of {} flows are shown; narrow the conditions, or give --limit 0",
            args.limit,
            sums.matched
        );
    }
    Ok(())
}

/// Shows as many as fit on the terminal, again and again, until q or Ctrl-C.
async fn watch(args: &Args, daemon: &Daemon, interval: Duration) -> Result<()> {
    let mut screen = Screen::begin()?;
    loop {
        let (_, rows) = screen.size();
        let limit = args.limit.wrapping_sub(1).min(rows.max(1) as u64 - 1) + 1;
        let (flows, sums) = listed(args, limit, daemon).await?;
        let next = Instant::now() + interval;
        loop {
            screen.show(lines(&flows, &sums, screen.size()))?;
            match screen.next(next).await {
                Next::Quit => return Ok(()),
                Next::Look => break,
                Next::Key(_) | Next::Resized => {}
            }
        }
    }
}

async fn listed(args: &Args, limit: u64, daemon: &Daemon) -> Result<(Vec<FlowReport>, FlowSums)> {
    let (mut flows, mut sums) = (Vec::new(), FlowSums::default());
    let mut answers = asked(args, limit, daemon).await?;
    while let Some(part) = answers.message().await.map_err(|status| failed(&status)).context(WHAT)? {
        flows.extend(part.flows.into_iter().map(FlowReport::from));
        sums = part.sums.unwrap_or(sums);
    }
    Ok((flows, sums))
}

async fn asked(args: &Args, limit: u64, daemon: &Daemon) -> Result<Streaming<ListFlowsResponse>> {
    let request = ListFlowsRequest { filter: Some(args.selection.clone().into()), limit };
    answer(daemon.local().list_flows(request)).await.context(WHAT)
}

fn lines(flows: &[FlowReport], sums: &FlowSums, terminal: (usize, usize)) -> Vec<String> {
    let mut lines = vec![
        format!("{} of {} flows meet the conditions   [q] quit", sums.matched, sums.seen),
        String::new(),
    ];
    let table = report::table(flows).render_within(Some(terminal.0));
    lines.extend(table.lines().map(str::to_owned));
    fit(lines, terminal)
}

#[cfg(test)]
mod tests {
    use mesh_api::v1;

    use super::*;

    #[test]
    fn what_is_watched_fits_the_terminal() {
        let flow = |port| {
            FlowReport::from(v1::Flow {
                protocol: "tcp".to_owned(),
                client_address: "203.0.113.9".to_owned(),
                client_port: port,
                client: "evil\u{1b}[2J".to_owned(),
                ..v1::Flow::default()
            })
        };
        let flows: Vec<_> = (1..50).map(flow).collect();
        let sums = FlowSums { seen: 1_000_000, matched: 49 };
        for terminal in [(80, 24), (40, 10), (1, 1)] {
            let lines = lines(&flows, &sums, terminal);
            assert!(lines.len() <= terminal.1, "{lines:?}");
            assert!(lines.iter().all(|l| l.chars().count() <= terminal.0 && !l.contains('\u{1b}')));
        }
        assert!(lines(&flows, &sums, (80, 24))[0].starts_with("49 of 1000000 flows"));
    }
}
