//! `meshctl node ls`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use comfy_table::Cell;
use mesh_api::v1::StatusRequest;

use crate::{
    context::Context,
    daemon::answer,
    output::{Table, short, state},
    report::{Cluster, GossipReport, NodeReport, age},
};

/// List the nodes
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl node ls
  meshctl --format json node ls

The node that meshctl runs on is marked with *. What this node knows by gossip: STATUS; GOSSIP, how many statements of its own
each node has made since its daemon's start, as far as they are known here; LAG, for how long what it told has been known to be
otherwise than what another node knows (- is well). `meshctl debug gossip` shows all."
)]
pub struct Args {
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let cluster = Cluster::fetch(&daemon).await.context("cannot list the nodes")?;
    let nodes = cluster.view.nodes.values();
    let mut nodes: Vec<_> = nodes.map(|node| NodeReport::new(&cluster, node)).collect();
    if !args.quiet {
        // The list is good without it.
        let status = answer(daemon.local().status(StatusRequest {})).await.unwrap_or_default();
        let known = GossipReport::new(status.gossip.unwrap_or_default(), &BTreeMap::new());
        for node in &mut nodes {
            node.gossip = known.members.iter().find(|member| member.node_id == node.id).cloned();
        }
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    context.show(&nodes, |nodes| {
        if args.quiet {
            return nodes.iter().map(|node| short(&node.id) + "\n").collect();
        }
        let mut table = Table::new(&[
            "ID",
            "HOSTNAME",
            "STATUS",
            "AVAILABILITY",
            "ROLE",
            "MANAGER",
            "ADDRESS",
            "GOSSIP",
            "LAG",
        ]);
        for node in nodes {
            let gossip = node.gossip.as_ref();
            let own = if node.this_node { " *" } else { "" };
            table.row([
                Cell::new(short(&node.id)),
                Cell::new(format!("{}{own}", node.name)),
                state(node.status),
                state(&node.availability),
                Cell::new(node.role),
                state(node.manager_status.unwrap_or("-")),
                Cell::new(node.advertise_addr),
                Cell::new(gossip.map_or_else(|| "-".to_owned(), |known| known.statement.to_string())),
                Cell::new(gossip.and_then(|known| known.behind_millis).map_or_else(|| "-".to_owned(), age)),
            ]);
        }
        table.render()
    })
}
