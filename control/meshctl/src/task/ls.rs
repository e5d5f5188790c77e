//! `meshctl task ls`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    filter::{Filter, admitted},
    listing::Listing,
    name::reference,
    report::{Cluster, TASK_FILTERS, task_table},
};

/// List the tasks of all nodes, as far as this node hears of them
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl task ls
  meshctl task ls --network prod --service web
  meshctl task ls --filter node=n1 --filter health=unhealthy
  meshctl task ls --format '{{.Name}}\\t{{range .Networks}}{{join .Addresses \",\"}} {{end}}'

A node hears of the tasks on networks that it has tasks on, and of services with published ports; managers of all."
)]
pub struct Args {
    /// Only those on this network
    #[arg(long, value_parser = reference)]
    network: Option<String>,
    /// Only those of this service
    #[arg(long, value_parser = reference)]
    service: Option<String>,
    #[command(flatten)]
    listing: Listing,
    /// Condition: name=PART, id=BEGINNING, service=NAME, network=NAME, node=NAME, state=S or health=H; of those of one key
    /// one has to hold, of all keys each
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = |text: &str| Filter::parse(text, TASK_FILTERS))]
    filter: Vec<Filter>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the tasks")?;
    let mut tasks = cluster.tasks();
    if let Some(reference) = &args.network {
        let id = cluster.view.network(reference)?.id.to_string();
        tasks.retain(|task| task.networks.iter().any(|place| place.network_id == id));
    }
    if let Some(reference) = &args.service {
        let id = cluster.view.service(reference)?.id.to_string();
        tasks.retain(|task| task.service_id.as_ref() == Some(&id));
    }
    tasks.retain(|task| admitted(&args.filter, task));
    args.listing.show(context, &tasks, task_table)
}
