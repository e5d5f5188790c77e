//! `meshctl service inspect`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    name::reference,
    report::{Cluster, ServiceDetail},
};

/// Show services with their addresses, ports and tasks
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl service inspect web
  meshctl --format json service inspect web db")]
pub struct Args {
    /// Services
    #[arg(required = true, value_name = "SERVICE", value_parser = reference)]
    services: Vec<String>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot inspect services")?;
    let mut details = Vec::new();
    for reference in &args.services {
        details.push(ServiceDetail::new(&cluster, cluster.view.service(reference)?));
    }
    context.show(&details, |details| details.iter().map(ServiceDetail::page).collect::<Vec<_>>().join("\n"))
}
