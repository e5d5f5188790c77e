//! `meshctl network rm`.

use anyhow::Result;

use crate::{context::Context, daemon::answer, name::reference, removal};

/// Remove networks that nothing uses
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  meshctl network rm prod
  meshctl network rm prod test
  meshctl network rm --if-version 17 prod"
)]
pub struct Args {
    /// Networks
    #[arg(required = true, value_name = "NETWORK", value_parser = reference)]
    networks: Vec<String>,
    /// Refuse the removal unless the network has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = &context.daemon().await?;
    removal::each(context, "network", args.networks, args.if_version, |request| async move {
        answer(daemon.control().remove_network(request)).await
    })
    .await
}
