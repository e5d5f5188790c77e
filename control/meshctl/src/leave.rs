//! `meshctl leave`.

use anyhow::{Context as _, Result};
use mesh_api::v1::LeaveClusterRequest;
use serde_json::json;

use crate::{context::Context, daemon::answer};

/// Leave the cluster; networks and published ports go from this node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl leave
  meshctl leave --force

A manager that is not the only one hands its part over first. The node's links, programs, state and certificate go; a node that
is to come back joins anew. Without a manager in reach --force leaves all the same, and `meshctl node rm` on a manager makes the
others forget the node.")]
pub struct Args {
    /// Also while tasks run here, without a manager in reach, and on the only manager, with which the cluster ends
    #[arg(long, short)]
    force: bool,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let request = LeaveClusterRequest { force: args.force };
    answer(daemon.local().leave_cluster(request)).await.context("cannot leave the cluster")?;
    context.show(&json!({}), |_| "This node left the cluster.".to_owned())
}
