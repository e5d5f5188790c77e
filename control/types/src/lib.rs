//! The vocabulary that every part of meshd shares: ids, validated newtypes and the cluster's objects.
//!
//! Nothing here does I/O. A value that exists is valid: constructors refuse what could not be used.
//! The words are Docker Swarm's and Linux's; `docs/ARCHITECTURE.md` has the one list of them.

mod cluster;
mod duration;
mod endpoint;
mod health;
mod id;
mod interface;
mod listener;
mod name;
mod net;
mod network;
mod node;
mod owner;
mod port;
mod resolver;
mod service;
mod shared_map;

pub use cluster::{ClusterView, Lookup, LookupError, ViewChange};
pub use duration::{SecondsError, format_seconds, parse_seconds};
pub use endpoint::{Endpoint, EndpointState, Generation, MAX_WEIGHT};
pub use health::{
    DEFAULT_HEALTH_INTERVAL_SECS, DEFAULT_HEALTH_RETRIES, DEFAULT_HEALTH_TIMEOUT_SECS, Health, HealthCheck,
    HealthError, HealthNote, HealthNoteError, HealthSettings, HttpPath, MAX_HEALTH_RETRIES, MAX_HEALTH_SECS,
    Probe, ProbeCommand,
};
pub use id::{ClusterId, IdError, LocalEndpointId, NetworkId, NodeId, ServiceId, TaskId};
pub use interface::{InterfaceName, InterfaceNameError};
pub use listener::{Listener, ListenerProcess};
pub use name::{Name, NameError};
pub use net::{Family, Mac, MacError, Vni, VniError};
pub use network::{DEFAULT_POOL, DEFAULT_POOL6, INGRESS_NETWORK, Network, Subnet, SubnetError};
pub use node::{Availability, Node, Role};
pub use owner::{Owner, OwnerError};
pub use port::{PortConfig, PortError, PortFilter, Protocol, PublishAt, PublishMode, ReturnMode};
pub use resolver::{
    Hostname, MAX_NAMESERVERS, MAX_SEARCH_DOMAINS, Nameserver, PREVIOUS_NAMESERVER, ResolverError,
    ResolverOption, SearchDomain, TaskDns,
};
pub use service::{
    Affinity, AffinityError, DEFAULT_DRAIN_SECS, EndpointMode, EndpointModeError, Service, ServiceNetwork,
};
pub use shared_map::{MapChanges, SharedMap};

/// UDP port of VXLAN (RFC 7348) between nodes.
pub const VXLAN_PORT: u16 = 4789;
/// UDP and TCP port of gossip.
pub const GOSSIP_PORT: u16 = 7946;
/// TCP port of the managers' API.
pub const MANAGER_PORT: u16 = 2377;
