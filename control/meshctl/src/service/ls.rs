//! `meshctl service ls`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    filter::{Filter, Keys, admitted},
    listing::Listing,
    output::{Table, list},
    report::{Cluster, ServiceReport},
};

const KEYS: Keys = &[
    ("id", &[]),
    ("name", &[]),
    ("label", &[]),
    ("mode", &["vip", "dnsrr"]),
    ("network", &[]),
    ("port", &[]),
];

/// List the services
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl service ls
  meshctl service ls --filter network=prod --filter label=tier=front
  meshctl service ls --format '{{.Name}}: {{.TaskCount}} tasks'
  meshctl --format json service ls"
)]
pub struct Args {
    #[command(flatten)]
    listing: Listing,
    /// Condition: name=PART, id=BEGINNING, label=KEY[=VALUE], mode=vip|dnsrr, network=NAME or port=PUBLISHED; of those of
    /// one key one has to hold, of labels and keys each
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = |text: &str| Filter::parse(text, KEYS))]
    filter: Vec<Filter>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the services")?;
    let services = cluster.view.services.values();
    let services = services.map(|service| ServiceReport::new(&cluster, service));
    let mut services: Vec<_> = services.filter(|service| admitted(&args.filter, service)).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    args.listing.show(context, &services, table)
}

fn table(services: &[ServiceReport], id: fn(&str) -> String) -> Table {
    let mut table = Table::new(&["ID", "NAME", "MODE", "NETWORKS", "VIPS", "TASKS", "PORTS"])
        .optional(&["MODE", "NETWORKS", "VIPS"]);
    for service in services {
        let places = &service.networks;
        table.row([
            id(&service.id),
            service.name.clone(),
            service.endpoint_mode.clone(),
            list(places.iter().map(|place| &place.network)),
            list(places.iter().flat_map(|place| &place.vips)),
            service.task_count.to_string(),
            list(&service.ports_shown),
        ]);
    }
    table
}
