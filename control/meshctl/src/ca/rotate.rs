//! `meshctl ca rotate`.

use anyhow::{Context as _, Result};
use mesh_api::v1::RotateCaRequest;

use super::{Wait, show};
use crate::{
    context::Context,
    daemon::{Daemon, answer},
};

/// Replace the root of the cluster's CA: every node gets a new certificate, no connection ends
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl ca rotate
  meshctl ca rotate --wait --timeout 5m

A node that is away keeps the earlier root trusted until it comes back, or is removed with `meshctl node rm`.
Join tokens change with the root; print them anew with `meshctl join-token`.")]
pub struct Args {
    #[command(flatten)]
    wait: Wait,
}

/// Asks a manager, by way of the daemon.
pub(super) async fn run(args: &Args, daemon: &Daemon, context: &Context) -> Result<()> {
    let begun = answer(daemon.cluster().rotate_ca(RotateCaRequest {})).await;
    let status = args.wait.finish(daemon, begun.context("cannot rotate the CA")?).await?;
    show(status, context)
}
