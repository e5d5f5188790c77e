//! By which ways this node and others reach each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_gossip::{ReachSpec, Reached, Way};
use mesh_types::{GOSSIP_PORT, MANAGER_PORT, Node, NodeId, Role};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::Agent;

/// How long a manager may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Nodes that are tried at a time.
const AT_ONCE: usize = 32;

/// What was tried between this node and another.
#[derive(Debug, Clone, Default)]
pub struct ReachedNode {
    /// What the other answered, and by which way; [`Way::Manager`] is among the ways out of it where it could be connected.
    pub reached: Reached,
    /// Ways out that were tried.
    pub tried: BTreeSet<Way>,
    /// Ways back that the other was asked to try.
    pub tried_back: BTreeSet<Way>,
}

impl Agent {
    /// Tries every way to `nodes`, and has them try every way back. Nodes that are not known, and this one, are left out.
    pub async fn reach(&self, nodes: &BTreeSet<NodeId>) -> BTreeMap<NodeId, ReachedNode> {
        let view = self.view();
        let mut waiting: Vec<Node> = view
            .nodes
            .values()
            .filter(|n| nodes.contains(&n.id) && n.id != self.inner.node)
            .map(Node::clone)
            .collect();
        let manager = view.nodes.get(&self.inner.node).is_some_and(|own| own.role == Role::Manager);
        let (mut trying, mut found) = (JoinSet::new(), BTreeMap::new());
        loop {
            while trying.len() < AT_ONCE
                && let Some(node) = waiting.pop()
            {
                let agent = self.clone();
                trying.spawn(async move { (node.id, agent.reach_one(&node, manager).await) });
            }
            match trying.join_next().await {
                None => return found,
                Some(Ok((node, reached))) => drop(found.insert(node, reached)),
                Some(Err(_)) => {}
            }
        }
    }

    async fn reach_one(&self, node: &Node, manager: bool) -> ReachedNode {
        let own = self.lock().data_path.as_ref().map(|d| d.address);
        let data_path = own.filter(|own| own.is_ipv4() == node.data_path_addr.is_ipv4());
        let spec = ReachSpec {
            to: SocketAddr::new(node.advertise_addr, GOSSIP_PORT),
            advertise: SocketAddr::new(self.advertise_addr(), GOSSIP_PORT),
            data_path,
            manager,
        };
        let mut tried = BTreeSet::from([Way::Udp, Way::Tcp]);
        let mut tried_back = tried.clone();
        tried_back.extend(data_path.map(|_| Way::DataPath));
        tried_back.extend(manager.then_some(Way::Manager));
        let connected = async {
            (node.role == Role::Manager).then_some(())?;
            let there = SocketAddr::new(node.advertise_addr, MANAGER_PORT);
            Some(matches!(timeout(CONNECT, TcpStream::connect(there)).await, Ok(Ok(_))))
        };
        let (mut reached, connected) = tokio::join!(self.inner.gossip.reach(&spec), connected);
        if let Some(connected) = connected {
            tried.insert(Way::Manager);
            if connected {
                reached.out.insert(Way::Manager);
            }
        }
        ReachedNode { reached, tried, tried_back }
    }
}
