//! What the data path of a node should hold: plain facts, without ids, regions or bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use mesh_types::{Generation, LocalEndpointId, Mac, NetworkId, Protocol, ServiceId, Subnet, TaskId, Vni};

/// Everything a node's data path should hold at one time. [`crate::DataPath::apply`] makes the maps agree with it.
///
/// Networks and services are shared parts: one that is the same allocation as in the last call that succeeded is not
/// looked into, so that a change of one endpoint costs no more among many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The node itself.
    pub config: NodeSettings,
    /// The other nodes, by VTEP address; packets from any other sender are dropped.
    pub peers: BTreeMap<IpAddr, PeerEntry>,
    /// Addresses of this node on which published ports are open.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Networks with an endpoint on this node.
    pub networks: BTreeMap<Vni, Arc<NetworkPlan>>,
    /// Endpoints of this node.
    pub local: BTreeMap<LocalEndpointId, LocalEntry>,
    /// Virtual addresses and published ports. No two services have the same [`Frontend`].
    pub services: BTreeMap<ServiceId, Arc<ServicePlan>>,
}

impl Desired {
    /// A data path that knows its node and nothing else.
    pub fn new(config: NodeSettings) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            host_addresses: BTreeSet::new(),
            networks: BTreeMap::new(),
            local: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }
}

/// What every program must know of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSettings {
    /// Where the node's VXLAN packets come from and go to; its family is that of the underlay.
    pub vtep: IpAddr,
    /// Interface that holds the VTEP address.
    pub uplink_ifindex: u32,
    /// The flow-based VXLAN device (the general path); 0 when there is none.
    pub vxlan_ifindex: u32,
    /// The host link's host side; 0 when there is none.
    pub host_ifindex: u32,
    /// Ethernet address of the host link's host side.
    pub host_mac: Mac,
    /// Largest inner IP packet in bytes: the uplink's MTU less the VXLAN overhead.
    pub inner_mtu: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Cookie of the node's network namespace, see [`crate::netns_cookie`].
    pub netns_cookie: u64,
    /// Whether the programs write and strip outer headers themselves.
    pub fast_path: bool,
    /// Whether outer UDP headers carry a checksum; without the fast path only.
    pub outer_checksum: bool,
}

/// Another node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerEntry {
    /// Interface by which it is reached, if not the one that holds the VTEP address.
    pub ifindex: Option<u32>,
}

/// A network and who is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// The network.
    pub entry: NetworkEntry,
    /// Its endpoints on any node, this one included, by address.
    pub endpoints: BTreeMap<IpAddr, EndpointEntry>,
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkEntry {
    /// Its IPv4 subnet and gateway.
    pub v4: Option<Subnet>,
    /// Its IPv6 subnet and gateway.
    pub v6: Option<Subnet>,
    /// No way out.
    pub internal: bool,
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointEntry {
    /// VTEP address of its node; the node's own for local endpoints.
    pub vtep: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Host-side interface of a local endpoint.
    pub ifindex: Option<u32>,
}

/// An endpoint of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalEntry {
    /// Its network.
    pub vni: Vni,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its host-side interface.
    pub ifindex: u32,
    /// Which use of its id this is.
    pub generation: Generation,
    /// The node-local IPv4 address that stands for it outside; none when it has no way out.
    pub egress4: Option<Ipv4Addr>,
    /// The node-local IPv6 address that stands for it outside; none when it has no way out.
    pub egress6: Option<Ipv6Addr>,
    /// Whether it belongs to a service, so that translated flows may lead to it.
    pub served: bool,
}

/// What clients speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A virtual address of a network, every port and protocol.
    Vip {
        /// The network.
        vni: Vni,
        /// The address.
        address: IpAddr,
    },
    /// A port of the node.
    Published {
        /// The node's addresses on which it is open.
        on: PublishedOn,
        /// The port.
        port: u16,
        /// The transport.
        protocol: Protocol,
    },
}

/// The addresses of the node on which a published port is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublishedOn {
    /// Every IPv4 address.
    AnyV4,
    /// Every IPv6 address.
    AnyV6,
    /// One address.
    Address(IpAddr),
}

/// What clients of one service speak to, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    /// The service's number on every node, for source affinity.
    pub number: u32,
    /// Its VIPs and published ports.
    pub frontends: BTreeMap<Frontend, ServiceEntry>,
}

/// How clients keep their task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceAffinity {
    /// For so many seconds after a client's last new flow its next one goes to the same task, whatever changed; 0: only
    /// the hash of the client's address decides.
    pub timeout_secs: u32,
}

/// A service behind a [`Frontend`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// All flows of one client address go to the same task.
    pub affinity: Option<SourceAffinity>,
    /// Replies leave by the task's own node.
    pub direct: bool,
    /// Port that the tasks listen on; none leaves the port as it is (VIPs).
    pub target_port: Option<u16>,
    /// The tasks, in any order, each key once. May be empty: clients are refused then.
    pub backends: Vec<Backend>,
}

/// Names a backend alike on every node: one task's attachment to one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey(pub TaskId, pub NetworkId);

/// An endpoint behind a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Its name, from which its place in the Maglev table follows.
    pub key: BackendKey,
    /// Its network.
    pub vni: Vni,
    /// Its address there.
    pub address: IpAddr,
    /// VTEP address of its node; the node's own for local endpoints.
    pub vtep: IpAddr,
    /// Host-side interface of a local endpoint.
    pub ifindex: Option<u32>,
    /// Its id on its node.
    pub endpoint: LocalEndpointId,
    /// Which use of that id.
    pub generation: Generation,
    /// Keeps its flows, takes no new ones.
    pub draining: bool,
    /// Its share of new flows relative to the other backends'; 0 counts as 1, more than 100 as 100.
    pub weight: u16,
}
