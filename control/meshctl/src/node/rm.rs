//! `meshctl node rm`.

use anyhow::Result;

use crate::{context::Context, daemon::answer, name::reference, removal};

/// Remove nodes that will not come back
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  meshctl node rm n3

A node that still runs leaves by itself with `meshctl leave` there."
)]
pub struct Args {
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = reference)]
    nodes: Vec<String>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = &context.daemon().await?;
    removal::each(context, "node", args.nodes, |request| async move {
        answer(daemon.control().remove_node(request)).await
    })
    .await
}
