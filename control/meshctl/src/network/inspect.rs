//! `meshctl network inspect`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    name::reference,
    report::{Cluster, NetworkDetail},
};

/// Show networks with their nodes, services and tasks
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl network inspect prod
  meshctl --format json network inspect prod test")]
pub struct Args {
    /// Networks
    #[arg(required = true, value_name = "NETWORK", value_parser = reference)]
    networks: Vec<String>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot inspect networks")?;
    let mut details = Vec::new();
    for reference in &args.networks {
        details.push(NetworkDetail::new(&cluster, cluster.view.network(reference)?));
    }
    context.show(&details, |details| details.iter().map(NetworkDetail::page).collect::<Vec<_>>().join("\n"))
}
