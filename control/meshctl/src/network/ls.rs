//! `meshctl network ls`.

use anyhow::{Context as _, Result};

use super::FILTERS;
use crate::{
    context::Context,
    filter::{Filter, admitted},
    listing::Listing,
    output::{Table, list},
    report::{Cluster, NetworkReport},
};

/// List the networks
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl network ls
  meshctl network ls --filter name=prod
  meshctl network ls -q --filter label=team=web
  meshctl network ls --format '{{.Name}}\\t{{range .Subnets}}{{.Subnet}} {{end}}'"
)]
pub struct Args {
    #[command(flatten)]
    listing: Listing,
    /// Condition: name=PART, id=BEGINNING, label=KEY[=VALUE], driver=overlay, or attachable, internal or ingress with
    /// =true or =false; of those of one key one has to hold, of labels and keys each
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = |text: &str| Filter::parse(text, FILTERS))]
    filter: Vec<Filter>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the networks")?;
    let networks = cluster.view.networks.values().map(NetworkReport::new);
    let mut networks: Vec<_> = networks.filter(|network| admitted(&args.filter, network)).collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    args.listing.show(context, &networks, table)
}

fn table(networks: &[NetworkReport], id: fn(&str) -> String) -> Table {
    let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "VNI", "SUBNETS", "FLAGS"])
        .optional(&["DRIVER", "VNI", "FLAGS"]);
    for network in networks {
        table.row([
            id(&network.id),
            network.name.clone(),
            network.driver.to_owned(),
            network.vni.to_string(),
            list(network.subnets.iter().map(|subnet| subnet.subnet)),
            network.flags(),
        ]);
    }
    table
}
