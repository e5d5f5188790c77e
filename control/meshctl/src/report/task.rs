//! Tasks.

use std::net::IpAddr;

use mesh_types::{Endpoint, EndpointState, Name};
use serde::Serialize;

use super::Cluster;
use crate::{
    filter::{Filtered, Keys},
    output::{Cell, Table, list, state},
};

/// What tasks can be chosen by.
pub const TASK_FILTERS: Keys = &[
    ("id", &[]),
    ("name", &[]),
    ("service", &[]),
    ("network", &[]),
    ("node", &[]),
    ("state", &["ready", "draining", "drained"]),
    ("health", &["healthy", "starting", "unhealthy", "none"]),
];
/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of its service.
    pub service: Option<String>,
    /// The id of its service.
    pub service_id: Option<String>,
    /// The name of its node.
    pub node: String,
    /// The id of its node.
    pub node_id: String,
    /// `ready`; `draining` when it takes no new flows, `drained` when that is over.
    pub state: &'static str,
    /// `healthy`; `starting` or `unhealthy` when it takes no new flows for that; `none` when it is not checked.
    pub health: String,
    /// Why it is unhealthy, or is not checked though its service asks for it.
    pub health_note: Option<String>,
    /// Its share of its service's new flows, in relation to the other tasks'.
    pub weight: u16,
    /// The networks that it is on.
    pub networks: Vec<TaskNetwork>,
    /// Its namespace's path, or `pid N`; known on its own node only.
    pub namespace: Option<String>,
    /// The process that it ends with; known on its own node only, `null` when it was attached by path.
    pub pid: Option<u32>,
}

/// A task's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskNetwork {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// Addresses, one per family.
    pub addresses: Vec<IpAddr>,
    /// Ethernet address.
    pub mac: String,
    /// Further names there.
    pub aliases: Vec<Name>,
}

impl TaskNetwork {
    /// About `endpoint`.
    pub fn new(cluster: &Cluster, endpoint: &Endpoint) -> Self {
        Self {
            network: cluster.network_name(endpoint.network),
            network_id: endpoint.network.to_string(),
            addresses: endpoint.addresses.clone(),
            mac: endpoint.mac.to_string(),
            aliases: endpoint.aliases.clone(),
        }
    }
}

impl TaskReport {
    /// The task with these endpoints; none without any.
    pub(super) fn new(cluster: &Cluster, endpoints: &[&Endpoint]) -> Option<Self> {
        let first = endpoints.first()?;
        let id = first.task.to_string();
        let local = cluster.local.get(&id);
        let is = |state| endpoints.iter().any(|endpoint| endpoint.state == state);
        let state = match (is(EndpointState::Draining), is(EndpointState::Drained)) {
            (true, _) => "draining",
            (false, true) => "drained",
            (false, false) => "ready",
        };
        let networks = endpoints.iter().map(|endpoint| TaskNetwork::new(cluster, endpoint));
        Some(Self {
            name: first.name.to_string(),
            service: first.service.map(|service| cluster.service_name(service)),
            service_id: first.service.map(|service| service.to_string()),
            node: cluster.node_name(first.node),
            node_id: first.node.to_string(),
            state,
            health: first.health.to_string(),
            health_note: first.health_note.as_ref().map(|note| note.as_str().to_owned()),
            weight: first.weight,
            networks: networks.collect(),
            namespace: local.map(|task| task.namespace.clone()),
            pid: local.map(|task| task.pid).filter(|&pid| pid != 0),
            id,
        })
    }

    /// All its addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.networks.iter().flat_map(|network| network.addresses.iter().copied()).collect()
    }
}

/// A health, in its colour; `-` of one that nobody checks.
pub fn health(text: &str) -> Cell {
    if text == "none" { Cell::new("-") } else { state(text) }
}

impl Filtered for TaskReport {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is(&self, key: &str, value: &str) -> bool {
        match key {
            "service" => self.service.as_deref() == Some(value),
            "network" => self.networks.iter().any(|place| place.network == value),
            "node" => self.node == value,
            "state" => self.state == value,
            _ => self.health == value,
        }
    }
}

/// The table of tasks, whose ids `id` shows.
pub fn task_table(tasks: &[TaskReport], id: fn(&str) -> String) -> Table {
    let mut headings = vec!["ID", "NAME", "SERVICE", "NODE", "NETWORKS", "ADDRESSES", "STATE", "HEALTH"];
    let why = tasks.iter().any(|task| task.health_note.is_some());
    headings.extend(why.then_some("WHY"));
    let mut table = Table::new(&headings).optional(&["NETWORKS", "SERVICE", "HEALTH"]);
    for task in tasks {
        let mut cells = vec![
            Cell::new(id(&task.id)),
            Cell::new(&task.name),
            Cell::new(task.service.as_deref().unwrap_or("-")),
            Cell::new(&task.node),
            Cell::new(list(task.networks.iter().map(|network| &network.network))),
            Cell::new(list(task.addresses())),
            state(task.state),
            health(&task.health),
        ];
        cells.extend(why.then(|| Cell::new(task.health_note.as_deref().unwrap_or("-"))));
        table.row(cells);
    }
    table
}
