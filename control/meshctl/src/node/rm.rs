//! `meshctl node rm`.

use anyhow::Result;
use mesh_api::v1::{RemoveNodeRequest, RemoveRequest};

use crate::{context::Context, daemon::answer, name::reference, removal};

/// Remove nodes that will not come back
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  meshctl node rm n3

  meshctl node rm --force n3
  meshctl node rm --if-version 17 n3

A node that still runs leaves by itself with `meshctl leave` there. With --force it is removed all the same: the other
nodes take nothing from it any more, and the addresses of its tasks are given to others."
)]
pub struct Args {
    /// Also a node that seems to run
    #[arg(long, short)]
    force: bool,
    /// Refuse the removal unless the node has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = reference)]
    nodes: Vec<String>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = &context.daemon().await?;
    removal::each(context, "node", args.nodes, args.if_version, |request| async move {
        let RemoveRequest { reference, expected_version } = request;
        let request = RemoveNodeRequest { reference, force: args.force, expected_version };
        answer(daemon.control().remove_node(request)).await
    })
    .await
}
