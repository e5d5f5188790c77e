//! `meshctl network prune`.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write, stderr, stdin},
};

use anyhow::{Context as _, Result};
use mesh_types::NetworkId;

use super::FILTERS;
use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    filter::{Filter, admitted},
    output::list,
    removal,
    report::{Cluster, NetworkReport},
};

/// Remove all networks that nothing uses
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl network prune
  meshctl network prune --force --filter label=team=web

The ingress network stays, and so does every network with a service or a task on it.")]
pub struct Args {
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Condition, as of `meshctl network ls`
    #[arg(long, value_name = "KEY=VALUE", value_parser = |text: &str| Filter::parse(text, FILTERS))]
    filter: Vec<Filter>,
}

/// Asks a manager, by way of the daemon, for each.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = &context.daemon().await?;
    let cluster = Cluster::fetch(daemon).await.context("cannot list the networks")?;
    let unused = unused(&cluster, &args.filter);
    if !unused.is_empty() && !args.force {
        confirm(&unused)?;
    }
    let references = unused.into_iter().map(|network| network.id).collect();
    removal::each(context, "network", references, None, |request| async move {
        answer(daemon.control().remove_network(request)).await
    })
    .await
}

fn unused(cluster: &Cluster, filters: &[Filter]) -> Vec<NetworkReport> {
    let services = cluster.view.services.values().flat_map(|service| &service.networks).map(|on| on.network);
    let tasks = cluster.tasks();
    let tasks = tasks.iter().flat_map(|task| &task.networks).filter_map(|on| on.network_id.parse().ok());
    let used: BTreeSet<NetworkId> = services.chain(tasks).collect();
    let free =
        cluster.view.networks.values().filter(|network| !network.ingress && !used.contains(&network.id));
    let reports = free.map(NetworkReport::new);
    let mut reports: Vec<_> = reports.filter(|network| admitted(filters, network)).collect();
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    reports
}

/// Asks whoever sits there; nobody means no.
fn confirm(networks: &[NetworkReport]) -> Result<()> {
    let names = list(networks.iter().map(|network| &network.name));
    if !stdin().is_terminal() {
        return Err(Failure::Usage(format!("this would remove {names}; say --force if it should")).into());
    }
    write!(stderr(), "Remove {names}? [y/N] ").and_then(|()| stderr().flush()).context("cannot ask")?;
    let mut line = String::new();
    stdin().read_line(&mut line).context("cannot read the answer")?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::NotConfirmed.into()),
    }
}
