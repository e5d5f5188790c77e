//! Processes that published ports shadow.

use std::net::IpAddr;

use mesh_types::{Listener, NodeId, PortConfig, PublishAt};
use serde::Serialize;

use super::Cluster;

/// A process of a node that listens where a published port is open: clients reach the mesh, not it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerReport {
    /// The node's name.
    pub node: String,
    /// The node's id.
    pub node_id: String,
    /// The port.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The address that it listens on, unspecified for all.
    pub address: IpAddr,
    /// Its name, when it can be told.
    pub process: Option<String>,
    /// Its id on its node, when it can be told.
    pub pid: Option<u32>,
    #[serde(skip)]
    text: String,
}

impl ListenerReport {
    fn new(cluster: &Cluster, node: NodeId, listener: &Listener) -> Self {
        Self::on_node(&cluster.node_name(node), node.to_string(), listener)
    }

    /// On a node of that name.
    pub fn on_node(name: &str, node_id: String, listener: &Listener) -> Self {
        let process = listener.process.as_ref();
        Self {
            node: name.to_owned(),
            node_id,
            port: listener.port,
            protocol: listener.protocol.as_str(),
            address: listener.address,
            process: process.map(|process| process.name.clone()),
            pid: process.map(|process| process.pid),
            text: format!("{listener} on node {name}: shadowed by the mesh"),
        }
    }
}

impl Cluster {
    /// The listeners of a node.
    pub fn listeners_of(&self, node: NodeId) -> Vec<ListenerReport> {
        let listeners = self.listeners.get(&node).into_iter().flatten();
        listeners.map(|listener| ListenerReport::new(self, node, listener)).collect()
    }

    /// The listeners that one of `ports` shadows, by node.
    pub fn listeners_on(&self, ports: &[PortConfig]) -> Vec<ListenerReport> {
        let shadows = |port: &PortConfig, listener: &Listener| {
            let everywhere = listener.address.is_unspecified();
            let meets = match port.at {
                // Which addresses the interface has, only the node knows; it has looked.
                PublishAt::Any | PublishAt::Interface(_) => true,
                PublishAt::Address(address) => everywhere || address == listener.address,
            };
            meets && (port.published, port.protocol) == (listener.port, listener.protocol)
        };
        let all = self.listeners.iter().flat_map(|(node, all)| all.iter().map(|one| (*node, one)));
        let shadowed = all.filter(|(_, listener)| ports.iter().any(|port| shadows(port, listener)));
        let mut found: Vec<_> = shadowed.map(|(node, one)| ListenerReport::new(self, node, one)).collect();
        found.sort_by(|a, b| (&a.node, a.port, a.pid).cmp(&(&b.node, b.port, b.pid)));
        found
    }
}

/// A line for each, for people.
pub fn listener_lines(listeners: &[ListenerReport]) -> String {
    listeners.iter().map(|listener| listener.text.as_str()).collect::<Vec<_>>().join("\n")
}
