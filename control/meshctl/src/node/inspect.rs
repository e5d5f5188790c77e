//! `meshctl node inspect`.

use anyhow::{Context as _, Result};

use crate::{
    context::Context,
    name::reference,
    report::{Cluster, NodeDetail},
};

/// Show nodes and their tasks
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl node inspect
  meshctl node inspect n2")]
pub struct Args {
    /// Nodes [default: this one]
    #[arg(value_name = "NODE", value_parser = reference)]
    nodes: Vec<String>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let cluster = Cluster::fetch(&context.daemon().await?).await.context("cannot inspect nodes")?;
    let mut details = Vec::new();
    for reference in &args.nodes {
        details.push(NodeDetail::new(&cluster, cluster.view.node(reference)?));
    }
    if args.nodes.is_empty() {
        let own = cluster.this_node.and_then(|id| cluster.view.nodes.get(&id));
        details.extend(own.map(|node| NodeDetail::new(&cluster, node)));
    }
    context.show(&details, |details| details.iter().map(NodeDetail::page).collect::<Vec<_>>().join("\n"))
}
