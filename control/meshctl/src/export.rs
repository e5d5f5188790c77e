//! `meshctl export`.

use anyhow::{Context as _, Result};

use crate::{context::Context, failure::Failure, intent, output, report::Cluster};

/// Write the networks and services that there are, as a file for `meshctl apply`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl export > mesh.yaml

The ingress network, nodes and tasks are no part of it.")]
pub struct Args {}

/// Asks the daemon.
pub async fn run(Args {}: &Args, context: &Context) -> Result<()> {
    if context.is_for_programs() {
        return Err(Failure::Usage("export writes YAML; leave --format out".to_owned()).into());
    }
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot export")?;
    output::print(&intent::write(&cluster.view))
}
