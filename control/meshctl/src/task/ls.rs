//! `meshctl task ls`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    name::reference,
    output::{Table, short},
    report::{Cluster, task_table},
};

/// List the tasks of all nodes, as far as this node hears of them
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl task ls
  meshctl task ls --network prod --service web

A node hears of the tasks on networks that it has tasks on, and of services with published ports; managers of all."
)]
pub struct Args {
    /// Only those on this network
    #[arg(long, value_parser = reference)]
    network: Option<String>,
    /// Only those of this service
    #[arg(long, value_parser = reference)]
    service: Option<String>,
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
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
    context.show(&tasks, |tasks| {
        if args.quiet {
            return tasks.iter().map(|task| short(&task.id) + "\n").collect();
        }
        Table::render(task_table(tasks))
    })
}
