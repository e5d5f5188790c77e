//! Where a task is.

use anyhow::{Context as _, Result};
use mesh_api::v1;
use mesh_types::Endpoint;
use serde::Serialize;

use super::{Cluster, TaskNetwork};
use crate::{
    context::Context,
    daemon::Daemon,
    output::{Table, list, short},
};

#[derive(Serialize)]
struct Places {
    id: String,
    name: String,
    networks: Vec<TaskNetwork>,
}

/// Shows the networks of the task that a change answered with.
pub async fn show_places(context: &Context, daemon: &Daemon, task: v1::LocalTask) -> Result<()> {
    let cluster = Cluster::fetch(daemon).await?;
    let endpoints = task.endpoints.into_iter().map(Endpoint::try_from).collect::<Result<Vec<_>, _>>();
    let endpoints = endpoints.context("the daemon's answer makes no sense")?;
    let networks = endpoints.iter().map(|endpoint| TaskNetwork::new(&cluster, endpoint)).collect();
    context.show(&Places { id: task.task_id, name: task.name, networks }, |task| {
        let mut table = Table::new(&["ID", "NAME", "NETWORK", "ADDRESS"]);
        for place in &task.networks {
            table.row([short(&task.id), task.name.clone(), place.network.clone(), list(&place.addresses)]);
        }
        table.render()
    })
}
