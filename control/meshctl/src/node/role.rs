//! `meshctl node promote` and `meshctl node demote`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, SetRoleRequest};
use mesh_types::Node;

use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    name::reference,
    removal,
    report::{Cluster, NodeReport},
};

/// Make nodes managers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl node promote n2 n3

One manager or three are the usual numbers: two fail together, and seven are the most. A new manager first gets the
cluster's state, and votes when it has caught up: `meshctl node ls` shows when that is.")]
pub struct PromoteArgs {
    /// Refuse the change unless the node has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = reference)]
    nodes: Vec<String>,
}

/// Make managers workers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl node demote n3

One that leads hands over first. Refused if too few of the others could be reached to decide anything.")]
pub struct DemoteArgs {
    /// Also if too few managers are left that can be reached
    #[arg(long, short)]
    force: bool,
    /// Refuse the change unless the node has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Nodes
    #[arg(required = true, value_name = "NODE", value_parser = reference)]
    nodes: Vec<String>,
}

/// Asks a manager, by way of the daemon.
pub async fn promote(args: PromoteArgs, context: &Context) -> Result<()> {
    let wanted = Wanted { role: v1::Role::Manager, force: false, expected_version: args.if_version };
    change(context, args.nodes, wanted).await
}

/// Asks a manager, by way of the daemon.
pub async fn demote(args: DemoteArgs, context: &Context) -> Result<()> {
    let wanted = Wanted { role: v1::Role::Worker, force: args.force, expected_version: args.if_version };
    change(context, args.nodes, wanted).await
}

struct Wanted {
    role: v1::Role,
    force: bool,
    expected_version: Option<u64>,
}

async fn change(context: &Context, nodes: Vec<String>, wanted: Wanted) -> Result<()> {
    let Wanted { role, force, expected_version } = wanted;
    removal::one_version("node", &nodes, expected_version)?;
    let daemon = context.daemon().await?;
    let (verb, word) = match role {
        v1::Role::Manager => ("promote", "manager"),
        _ => ("demote", "worker"),
    };
    let mut changed = Vec::new();
    let mut errors = Vec::new();
    for node in nodes {
        let what = format!("cannot {verb} node {node}");
        let request = SetRoleRequest { node, role: role.into(), force, expected_version };
        let done = async {
            let node = answer(daemon.control().set_role(request)).await.context(what)?;
            Node::try_from(node).context("the daemon's answer makes no sense")
        };
        match done.await {
            Ok(node) => changed.push(node),
            Err(error) => errors.push(error),
        }
    }
    let cluster = Cluster::fetch(&daemon).await.ok();
    let reports: Vec<_> = changed.iter().map(|node| NodeReport::known_by(cluster.as_ref(), node)).collect();
    if !reports.is_empty() {
        context.show(&reports, |nodes| {
            nodes.iter().map(|node| format!("Node {} is a {word} now.\n", node.name)).collect()
        })?;
    }
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => Err(Failure::Several(errors).into()),
    }
}
