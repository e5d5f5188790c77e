//! Endpoints: what nodes tell each other by gossip about the tasks that run.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Health, HealthNote, LocalEndpointId, Mac, Name, NetworkId, NodeId, ServiceId, TaskId};

/// Tells one use of a [`LocalEndpointId`] from the next, so that packets for a past task are dropped, not misdelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u16);

/// The largest weight of an endpoint; the smallest is 1.
pub const MAX_WEIGHT: u16 = 100;

/// Whether an endpoint takes new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EndpointState {
    /// Takes new flows.
    #[default]
    Ready,
    /// Keeps its flows, takes no new ones.
    Draining,
    /// Takes no flows of its service any more: the drain is over. It is still on its network.
    Drained,
}

/// One task's attachment to one network. Announced by the node that owns it, and by no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network.
    pub network: NetworkId,
    /// The node that runs the task.
    pub node: NodeId,
    /// The task.
    pub task: TaskId,
    /// The task's name, unique on its network.
    pub name: Name,
    /// The service it belongs to; none for a free-standing task.
    pub service: Option<ServiceId>,
    /// Its addresses on the network, one per family.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its id on its node.
    pub local_id: LocalEndpointId,
    /// Which use of that id.
    pub generation: Generation,
    /// Further names of this task on this network.
    pub aliases: Vec<Name>,
    /// Whether it takes new flows.
    pub state: EndpointState,
    /// Its share of its service's new flows, in relation to the other tasks' weights: 1 to [`MAX_WEIGHT`].
    pub weight: u16,
    /// Whether it works, where its service has it checked.
    pub health: Health,
    /// Why it is unhealthy, or not checked though its service asks for it.
    pub health_note: Option<HealthNote>,
}

impl Endpoint {
    /// Whether new flows of its service may go to it: it is ready, and not known to be out of order. Established flows
    /// are another matter.
    pub fn takes_flows(&self) -> bool {
        self.state == EndpointState::Ready && matches!(self.health, Health::None | Health::Healthy)
    }
}
