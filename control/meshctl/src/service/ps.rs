//! `meshctl service ps`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    name::reference,
    output::Table,
    report::{Cluster, ServiceDetail, task_table},
};

/// List the tasks of a service
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl service ps web")]
pub struct Args {
    /// Service
    #[arg(value_parser = reference)]
    service: String,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the tasks")?;
    let service = ServiceDetail::new(&cluster, cluster.view.service(&args.service)?);
    context.show(&service.tasks, |tasks| Table::render(task_table(tasks)))
}
