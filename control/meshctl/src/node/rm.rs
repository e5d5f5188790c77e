//! `meshctl node rm`.

use anyhow::Result;
use mesh_api::v1::RemoveNodeRequest;

use crate::{context::Context, daemon::answer, name::reference, removal};

/// Remove nodes that will not come back
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  meshctl node rm n3

  meshctl node rm --force n3

A node that still runs leaves by itself with `meshctl leave` there. With --force it is removed all the same: the other
nodes take nothing from it any more, and the addresses of its tasks are given to others."
)]
pub struct Args {
    /// Also a node that seems to run
    #[arg(long, short)]
    force: bool,
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = reference)]
    nodes: Vec<String>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = &context.daemon().await?;
    removal::each(context, "node", args.nodes, None, |request| async move {
        let request = RemoveNodeRequest { reference: request.reference, force: args.force };
        answer(daemon.control().remove_node(request)).await
    })
    .await
}
