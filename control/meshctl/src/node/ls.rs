//! `meshctl node ls`.

use anyhow::{Context as _, Result};
use comfy_table::Cell;

use crate::{
    context::Context,
    output::{Table, short, state},
    report::{Cluster, NodeReport},
};

/// List the nodes
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl node ls
  meshctl --format json node ls

The node that meshctl runs on is marked with *. STATUS is what this node knows by gossip."
)]
pub struct Args {
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot list the nodes")?;
    let nodes = cluster.view.nodes.values();
    let mut nodes: Vec<_> = nodes.map(|node| NodeReport::new(&cluster, node)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    context.show(&nodes, |nodes| {
        if args.quiet {
            return nodes.iter().map(|node| short(&node.id) + "\n").collect();
        }
        let mut table =
            Table::new(&["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "ROLE", "MANAGER", "ADDRESS"]);
        for node in nodes {
            let own = if node.this_node { " *" } else { "" };
            table.row([
                Cell::new(short(&node.id)),
                Cell::new(format!("{}{own}", node.name)),
                state(node.status),
                state(&node.availability),
                Cell::new(node.role),
                state(node.manager_status.unwrap_or("-")),
                Cell::new(node.advertise_addr),
            ]);
        }
        table.render()
    })
}
