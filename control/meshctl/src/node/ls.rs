//! `meshctl node ls`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use mesh_api::v1::StatusRequest;

use crate::{
    context::Context,
    daemon::answer,
    filter::{Filter, Keys, admitted},
    listing::Listing,
    output::{Cell, Table, state},
    report::{Cluster, GossipReport, NodeReport, age},
};

const KEYS: Keys = &[
    ("id", &[]),
    ("name", &[]),
    ("label", &[]),
    ("role", &["worker", "manager"]),
    ("status", &["ready", "unattended", "down", "left", "unknown"]),
    ("availability", &["active", "pause", "drain"]),
];

/// List the nodes
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  meshctl node ls
  meshctl node ls --filter role=manager --filter status=ready
  meshctl node ls --format 'table {{.Name}}\\t{{.AdvertiseAddr}}\\t{{.Status}}'
  meshctl --format json node ls

The node that meshctl runs on is marked with *. What this node knows by gossip: STATUS; GOSSIP, how many statements of its own
each node has made since its daemon's start, as far as they are known here; LAG, for how long what it told has been known to be
otherwise than what another node knows (- is well). `meshctl debug gossip` shows all."
)]
pub struct Args {
    #[command(flatten)]
    listing: Listing,
    /// Condition: name=PART, id=BEGINNING, label=KEY[=VALUE], role=R, status=S or availability=A; of those of one key one
    /// has to hold, of labels and keys each
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = |text: &str| Filter::parse(text, KEYS))]
    filter: Vec<Filter>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let cluster = Cluster::fetch(&daemon).await.context("cannot list the nodes")?;
    let nodes = cluster.view.nodes.values();
    let nodes = nodes.map(|node| NodeReport::new(&cluster, node));
    let mut nodes: Vec<_> = nodes.filter(|node| admitted(&args.filter, node)).collect();
    // The list is good without it.
    let status = answer(daemon.local().status(StatusRequest {})).await.unwrap_or_default();
    let known = GossipReport::new(status.gossip.unwrap_or_default(), &BTreeMap::new());
    for node in &mut nodes {
        node.gossip = known.members.iter().find(|member| member.node_id == node.id).cloned();
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    args.listing.show(context, &nodes, table)
}

fn table(nodes: &[NodeReport], id: fn(&str) -> String) -> Table {
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
    ])
    .optional(&["GOSSIP", "LAG", "AVAILABILITY", "MANAGER"]);
    for node in nodes {
        let gossip = node.gossip.as_ref();
        let own = if node.this_node { " *" } else { "" };
        table.row([
            Cell::new(id(&node.id)),
            Cell::new(format!("{}{own}", node.name)),
            state(node.status),
            state(&node.availability),
            Cell::new(node.role),
            state(node.manager_status.unwrap_or("-")),
            Cell::new(node.advertise_addr),
            Cell::new(gossip.map_or_else(|| "-".to_owned(), |known| known.statement.to_string())),
            Cell::new(gossip.and_then(|known| known.behind_millis).map_or_else(|| "-".to_owned(), age))
                .whole(),
        ]);
    }
    table
}
