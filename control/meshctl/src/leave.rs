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
  meshctl leave --force")]
pub struct Args {
    /// Also on a manager, and while tasks run here
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
