//! What `--format json` prints and the tables show: the decided state joined with what gossip knows.
//!
//! Fields are added, never renamed or removed. Ids are full, times are seconds since 1970-01-01 UTC, absent values are
//! `null`, lists are arrays. `inspect` prints an array with an element for each argument.

mod gossip;
mod listener;
mod local_task;
mod network;
mod node;
mod places;
mod service;
mod task;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use mesh_api::v1::{self, GetViewRequest, ListTasksRequest};
use mesh_types::{ClusterView, Endpoint, Listener, NetworkId, NodeId, ServiceId, TaskId};

use crate::{
    daemon::{Daemon, answer},
    output::plain,
};

pub use gossip::{GossipMember, GossipReport, age, member_state};
pub use listener::{ListenerReport, listener_lines};
pub use local_task::{LocalTaskReport, TaskDetail};
pub use network::{NetworkDetail, NetworkReport};
pub use node::{NodeDetail, NodeReport};
pub use places::show_places;
pub use service::{PortReport, ServiceDetail, ServiceReport};
pub use task::{TASK_FILTERS, TaskNetwork, TaskReport, health, task_table};

/// An object that is no more.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What the daemon knows of the cluster.
#[derive(Debug)]
pub struct Cluster {
    /// What is decided.
    pub view: ClusterView,
    /// The daemon's node.
    pub this_node: Option<NodeId>,
    endpoints: Vec<Endpoint>,
    members: BTreeMap<NodeId, v1::MemberState>,
    local: BTreeMap<String, v1::LocalTask>,
    listeners: BTreeMap<NodeId, Vec<Listener>>,
    managers: BTreeMap<NodeId, v1::ManagerStatus>,
    statuses: BTreeMap<NodeId, String>,
}

impl Cluster {
    /// Asks the daemon; managers are not needed.
    pub async fn fetch(daemon: &Daemon) -> Result<Self> {
        const SENSE: &str = "the daemon's answer makes no sense (is it of another version?)";
        let view = answer(daemon.local().get_view(GetViewRequest {})).await?;
        for warning in &view.warnings {
            anstream::eprintln!("meshctl: {}", plain(warning));
        }
        let tasks = answer(daemon.local().list_tasks(ListTasksRequest {})).await?;
        let decided = view.view.unwrap_or_default();
        let endpoints = tasks.endpoints.into_iter().map(Endpoint::try_from);
        let members = tasks.members.into_iter();
        let listeners = view.listeners.into_iter().map(|one| {
            let listeners = one.listeners.into_iter().map(Listener::try_from).collect::<Result<_, _>>();
            Ok((one.node_id.parse()?, listeners?))
        });
        Ok(Self {
            view: decided.try_into().context(SENSE)?,
            this_node: view.this_node.parse().ok(),
            endpoints: endpoints.collect::<Result<_, _>>().context(SENSE)?,
            members: members.filter_map(|m| Some((m.node_id.parse().ok()?, m.state()))).collect(),
            listeners: listeners.collect::<Result<_>>().context(SENSE)?,
            managers: view.managers.into_iter().filter_map(|m| Some((m.node_id.parse().ok()?, m))).collect(),
            statuses: view
                .statuses
                .into_iter()
                .filter_map(|s| Some((s.node_id.parse().ok()?, s.status)))
                .collect(),
            local: tasks.local.into_iter().map(|task| (task.task_id.clone(), task)).collect(),
        })
    }

    /// Every task, by name.
    pub fn tasks(&self) -> Vec<TaskReport> {
        let mut by_task: BTreeMap<TaskId, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in &self.endpoints {
            let endpoints = by_task.entry(endpoint.task).or_default();
            // Published services are announced on the ingress network too; the same thing twice is one endpoint.
            if !endpoints.iter().any(|known| known.network == endpoint.network) {
                endpoints.push(endpoint);
            }
        }
        let mut tasks: Vec<_> = by_task.values().filter_map(|all| TaskReport::new(self, all)).collect();
        tasks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        tasks
    }

    fn node_name(&self, id: NodeId) -> String {
        self.view.nodes.get(&id).map_or_else(|| id.short(), |node| node.name.to_string())
    }

    fn network_name(&self, id: NetworkId) -> String {
        self.view.networks.get(&id).map_or_else(|| id.short(), |network| network.name.to_string())
    }

    fn service_name(&self, id: ServiceId) -> String {
        self.view.services.get(&id).map_or_else(|| id.short(), |service| service.name.to_string())
    }

    /// How many tasks the service has.
    fn tasks_of(&self, service: ServiceId) -> usize {
        let tasks = self.endpoints.iter().filter(|e| e.service == Some(service)).map(|e| e.task);
        tasks.collect::<BTreeSet<_>>().len()
    }

    /// How a manager stands, as the one that leads sees it; none of a worker, or where nobody can tell.
    fn manager_status(&self, node: NodeId) -> Option<&'static str> {
        let manager = self.managers.get(&node)?;
        Some(match (manager.leader, manager.reachable, manager.voter) {
            (true, ..) => "leader",
            (_, false, _) => "unreachable",
            (_, _, false) => "catching up",
            _ => "reachable",
        })
    }

    /// `ready`, `unattended`, `down`, `left`, or `unknown` when gossip does not know or is not sure.
    fn node_status(&self, node: NodeId) -> &'static str {
        if self.this_node == Some(node) {
            return "ready";
        }
        // A manager knows more: who has a session with it.
        let told = self.statuses.get(&node).map(String::as_str);
        if let Some(status) =
            ["ready", "unattended", "down", "left", "unknown"].into_iter().find(|s| told == Some(s))
        {
            return status;
        }
        match self.members.get(&node) {
            Some(v1::MemberState::Alive) => "ready",
            Some(v1::MemberState::Down) => "down",
            Some(v1::MemberState::Left) => "left",
            Some(v1::MemberState::Unattended) => "unattended",
            Some(v1::MemberState::Suspect | v1::MemberState::Unspecified) | None => "unknown",
        }
    }
}
