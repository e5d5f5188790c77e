//! `meshctl network ls`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    filter::Filter,
    output::{Table, list, short},
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
  meshctl network ls -q --filter label=team=web"
)]
pub struct Args {
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
    /// Condition: name=PART, id=BEGINNING, driver=overlay or label=KEY[=VALUE]; all that are given have to hold
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the networks")?;
    let networks = cluster.view.networks.values().map(NetworkReport::new);
    let mut networks: Vec<_> =
        networks.filter(|network| args.filter.iter().all(|f| f.admits(network))).collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    context.show(&networks, |networks| {
        if args.quiet {
            return networks.iter().map(|network| short(&network.id) + "\n").collect();
        }
        let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "VNI", "SUBNETS", "FLAGS"]);
        for network in networks {
            table.row([
                short(&network.id),
                network.name.clone(),
                network.driver.to_owned(),
                network.vni.to_string(),
                list(network.subnets.iter().map(|subnet| subnet.subnet)),
                network.flags(),
            ]);
        }
        table.render()
    })
}
