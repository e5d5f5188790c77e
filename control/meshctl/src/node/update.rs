//! `meshctl node update`.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use mesh_api::v1::{self, UpdateNodeRequest};
use mesh_types::Node;

use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    label::Labels,
    name::reference,
    report::{Cluster, NodeReport},
};

/// Change whether a node takes tasks, or its labels
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl node update --availability drain n2
  meshctl node update --availability active n2
  meshctl node update --label-add zone=a --label-rm old n2

drain: the node's tasks get no new connections and keep those they have until their drain timeout is over;
new tasks are refused. The tasks' processes go on until somebody ends them. pause: only new tasks are refused.")]
pub struct Args {
    /// Whether the node takes tasks
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    #[command(flatten)]
    labels: Labels,
    /// Refuse the change unless the node has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Node
    #[arg(value_parser = reference)]
    node: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Availability {
    Active,
    Pause,
    Drain,
}

/// Asks a manager, by way of the daemon, and prints the node's id.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    if args.availability.is_none() && args.labels.is_empty() {
        return Err(
            Failure::Usage("nothing to change is given; see `meshctl node update --help`".into()).into()
        );
    }
    let what = format!("cannot update node {}", args.node);
    let availability = match args.availability {
        None => v1::Availability::Unspecified,
        Some(Availability::Active) => v1::Availability::Active,
        Some(Availability::Pause) => v1::Availability::Pause,
        Some(Availability::Drain) => v1::Availability::Drain,
    };
    let (set_labels, remove_labels) = args.labels.wire();
    let request = UpdateNodeRequest {
        node: args.node,
        availability: availability.into(),
        set_labels,
        remove_labels,
        expected_version: args.if_version,
    };
    let daemon = context.daemon().await?;
    let node = answer(daemon.control().update_node(request)).await.context(what)?;
    let node = Node::try_from(node).context("the daemon's answer makes no sense")?;
    let cluster = Cluster::fetch(&daemon).await.ok();
    context.show(&NodeReport::known_by(cluster.as_ref(), &node), |node| node.id.clone())
}
