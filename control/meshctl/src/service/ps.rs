//! `meshctl service ps`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    filter::{Filter, admitted},
    listing::Listing,
    name::reference,
    report::{Cluster, ServiceDetail, TASK_FILTERS, task_table},
};

/// List the tasks of a service
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl service ps web
  meshctl service ps -q --filter node=n1 web
  meshctl service ps --filter health=unhealthy --format '{{.Name}} on {{.Node}}: {{.HealthNote}}' web")]
pub struct Args {
    #[command(flatten)]
    listing: Listing,
    /// Condition, as of `meshctl task ls`
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = |text: &str| Filter::parse(text, TASK_FILTERS))]
    filter: Vec<Filter>,
    /// Service
    #[arg(value_parser = reference)]
    service: String,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the tasks")?;
    let mut service = ServiceDetail::new(&cluster, cluster.view.service(&args.service)?);
    service.tasks.retain(|task| admitted(&args.filter, task));
    args.listing.show(context, &service.tasks, task_table)
}
