//! `meshctl service ls`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    output::{Table, list, short},
    report::{Cluster, ServiceReport},
};

/// List the services
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl service ls
  meshctl --format json service ls"
)]
pub struct Args {
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the services")?;
    let services = cluster.view.services.values();
    let mut services: Vec<_> = services.map(|service| ServiceReport::new(&cluster, service)).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    context.show(&services, |services| {
        if args.quiet {
            return services.iter().map(|service| short(&service.id) + "\n").collect();
        }
        let mut table = Table::new(&["ID", "NAME", "MODE", "NETWORKS", "VIPS", "TASKS", "PORTS"]);
        for service in services {
            let places = &service.networks;
            table.row([
                short(&service.id),
                service.name.clone(),
                service.endpoint_mode.clone(),
                list(places.iter().map(|place| &place.network)),
                list(places.iter().flat_map(|place| &place.vips)),
                service.task_count.to_string(),
                list(&service.ports_shown),
            ]);
        }
        table.render()
    })
}
