//! `meshctl flows`.

mod report;
mod selection;

use anyhow::{Context as _, Result};
use mesh_api::v1::{FlowSums, ListFlowsRequest};

use crate::{
    context::Context,
    daemon::{answer, failed},
    output,
};

pub use report::FlowReport;
pub use selection::Selection;

/// List the flows to services' virtual addresses and published ports that this node carries
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl flows
  meshctl flows --service web --state established
  meshctl flows --client 203.0.113.0/24 --port 8080
  meshctl flows --task web.1 --limit 0
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
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    const WHAT: &str = "cannot list the flows";
    let daemon = context.daemon().await?;
    let request = ListFlowsRequest { filter: Some(args.selection.into()), limit: args.limit };
    let mut answers = answer(daemon.local().list_flows(request)).await.context(WHAT)?;
    let (mut flows, mut sums) = (Vec::new(), FlowSums::default());
    while let Some(part) = answers.message().await.map_err(|status| failed(&status)).context(WHAT)? {
        flows.extend(part.flows.into_iter().map(FlowReport::from));
        sums = part.sums.unwrap_or(sums);
        if context.is_json() {
            // As they come: there may be a million.
            let lines = flows.drain(..).map(|flow| serde_json::to_string(&flow));
            let lines = lines.collect::<Result<Vec<_>, _>>().context("cannot write JSON")?;
            output::print_data(&lines.join("\n"))?;
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
