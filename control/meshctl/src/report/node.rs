//! Nodes.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_types::Node;
use serde::Serialize;

use super::{Cluster, GossipMember, ListenerReport, TaskReport, listener_lines, task_table};
use crate::{
    filter::Filtered,
    label,
    output::{Page, short, state, time, yes_no},
};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its id.
    pub id: String,
    /// Its host name.
    pub name: String,
    /// Whether meshctl speaks to this node's daemon.
    pub this_node: bool,
    /// `ready`, `down`, `left` or `unknown`, as gossip sees it.
    pub status: &'static str,
    /// `active`, `pause` or `drain`.
    pub availability: String,
    /// `worker` or `manager`.
    pub role: &'static str,
    /// `leader`, `reachable`, `unreachable` or `catching up`; null of workers, and asked of a worker.
    pub manager_status: Option<&'static str>,
    /// Where other nodes reach its manager API and gossip.
    pub advertise_addr: IpAddr,
    /// Where its VXLAN packets come from and go to.
    pub data_path_addr: IpAddr,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub joined_at: u64,
    /// The version of the cluster's state that changed it last.
    pub version: u64,
    /// What the node that was asked knows of it by gossip; null where that was not asked.
    pub gossip: Option<GossipMember>,
}

/// A node, for `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeDetail {
    /// The node.
    #[serde(flatten)]
    pub node: NodeReport,
    /// Its tasks.
    pub tasks: Vec<TaskReport>,
    /// Its processes that published ports shadow.
    pub listeners: Vec<ListenerReport>,
}

impl NodeReport {
    /// About `node`.
    pub fn new(cluster: &Cluster, node: &Node) -> Self {
        Self::known_by(Some(cluster), node)
    }

    /// About the node that a change answers with; without a `cluster` its status is not known.
    pub fn known_by(cluster: Option<&Cluster>, node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            name: node.name.to_string(),
            this_node: cluster.is_some_and(|cluster| cluster.this_node == Some(node.id)),
            status: cluster.map_or("unknown", |cluster| cluster.node_status(node.id)),
            availability: node.availability.to_string(),
            role: node.role.as_str(),
            manager_status: cluster.and_then(|cluster| cluster.manager_status(node.id)),
            advertise_addr: node.advertise_addr,
            data_path_addr: node.data_path_addr,
            labels: node.labels.clone(),
            joined_at: node.joined_at,
            version: node.version,
            gossip: None,
        }
    }
}

impl Filtered for NodeReport {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.labels)
    }

    fn is(&self, key: &str, value: &str) -> bool {
        match key {
            "role" => self.role == value,
            "status" => self.status == value,
            _ => self.availability == value,
        }
    }
}

impl NodeDetail {
    /// About `node`.
    pub fn new(cluster: &Cluster, node: &Node) -> Self {
        let listeners = cluster.listeners_of(node.id);
        let node = NodeReport::new(cluster, node);
        let tasks = cluster.tasks().into_iter().filter(|task| task.node_id == node.id).collect();
        Self { node, tasks, listeners }
    }

    /// For people.
    pub fn page(&self) -> String {
        let node = &self.node;
        let mut page = Page::new();
        page.field("ID", &node.id)
            .field("Hostname", &node.name)
            .field("This node", yes_no(node.this_node))
            .field("Status", state(node.status))
            .field("Availability", state(&node.availability))
            .field("Role", node.role)
            .field("Manager", node.manager_status.unwrap_or("-"))
            .field("Address", node.advertise_addr)
            .field("Data path address", node.data_path_addr)
            .field("Labels", label::list(&node.labels))
            .field("Joined", time(node.joined_at))
            .section("Tasks", task_table(&self.tasks, short))
            .lines("Warnings", &listener_lines(&self.listeners));
        page.render()
    }
}
