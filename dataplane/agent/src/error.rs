//! What can go wrong, for people.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_types::{Availability, Family, LookupError, Mac, Name, Owner, ResolverError};
use thiserror::Error;

use crate::{ConnectError, NsRef, SessionError, kept::KeptError};

/// The agent cannot start or go on. What was set up before stays; nothing is half-made.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The kernel's network refused.
    #[error(transparent)]
    Netlink(#[from] mesh_netlink::Error),
    /// The eBPF data path refused.
    #[error("data path")]
    DataPath(#[from] mesh_lb::Error),
    /// The programs were not loaded to the end.
    #[error("loading the data path was cut off")]
    Loading(#[from] tokio::task::JoinError),
    /// Gossip cannot start.
    #[error(transparent)]
    Gossip(#[from] mesh_gossip::GossipError),
    /// Its keys are unusable.
    #[error("gossip keys")]
    Keys(#[from] mesh_gossip::KeyRingError),
    /// The thread that answers tasks' names cannot start.
    #[error(transparent)]
    Dns(#[from] mesh_dns::Error),
    /// A kept file is unusable.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// No manager told the cluster's state.
    #[error("no manager told the cluster's state within {seconds} s: {why}")]
    NoState {
        /// How long was waited.
        seconds: u64,
        /// How the session stood.
        why: String,
    },
    /// The interface that was chosen for the data path has no address.
    #[error("interface {interface} has no address for the data path{}",
        .last.map(|last| format!(" (it had {last})")).unwrap_or_default())]
    NoAddress {
        /// The interface.
        interface: String,
        /// The address it had.
        last: Option<IpAddr>,
    },
    /// The kernel lacks something the data path needs.
    #[error("this kernel lacks what the data path needs: {0}")]
    Features(String),
}

impl AgentError {
    /// Whether no interface has the data path's address any more.
    pub(crate) fn is_lost_address(&self) -> bool {
        matches!(self, Self::Netlink(mesh_netlink::Error::AddressNotFound(_)) | Self::NoAddress { .. })
    }
}

/// A task was not attached. Nothing of it is left.
#[derive(Debug, Error)]
pub enum AttachError {
    /// No such network or service, or an ambiguous prefix.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Neither a network nor a service was named.
    #[error("name a network (--network) or a service (--service) to attach to")]
    NoNetwork,
    /// A free-standing task on a network that takes none.
    #[error(
        "network {0} is not attachable: only tasks of a service may join it; name one with --service, or create the network with --attachable"
    )]
    NotAttachable(Name),
    /// The ingress network is for ports alone.
    #[error("network {0} carries published ports only; tasks cannot join it")]
    Ingress(Name),
    /// The service's tasks have no place on that network.
    #[error("service {service} is not on network {network}")]
    ServiceNotOn {
        /// The service.
        service: Name,
        /// The network.
        network: Name,
    },
    /// The same network twice.
    #[error("network {0} is named twice")]
    NetworkTwice(Name),
    /// It belongs to one network.
    #[error("{0} needs exactly one network")]
    NeedsOneNetwork(&'static str),
    /// No interface can have that address.
    #[error("{0} is no address for an interface: it is a group's, or zero")]
    GroupMac(Mac),
    /// The settings for names do not go together.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// One address per family is all that a task has on a network.
    #[error("{0} and {1} are of the same family; a task has one address of each")]
    TwoOfAFamily(IpAddr, IpAddr),
    /// The managers said that this node takes no tasks.
    #[error(
        "node {node} takes no tasks: its availability is {availability}; run the task on another node, or on a manager \
         `meshctl node update {node} --availability active`"
    )]
    Unavailable {
        /// This node.
        node: Name,
        /// What was said.
        availability: Availability,
    },
    /// The address is not of the network.
    #[error("address {address} is not in a subnet of network {network} ({subnets})")]
    AddressOutside {
        /// The address.
        address: IpAddr,
        /// The network.
        network: Name,
        /// Its subnets.
        subnets: String,
    },
    /// The first address of a subnet stands for the subnet, the last one of an IPv4 subnet for all of it.
    #[error(
        "address {address} of network {network} is the first or the last one of {subnet}, which no task may have"
    )]
    AddressOfSubnet {
        /// The address.
        address: IpAddr,
        /// The network.
        network: Name,
        /// The subnet.
        subnet: IpNet,
    },
    /// A task of this node has the address.
    #[error("address {address} on network {network} is taken by task {task}")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The network.
        network: Name,
        /// Who has it.
        task: Name,
    },
    /// Somebody keeps the address.
    #[error("address {address} on network {network} is kept for {owner}")]
    AddressHeld {
        /// The address.
        address: IpAddr,
        /// The network.
        network: Name,
        /// For whom.
        owner: Owner,
    },
    /// The network has no addresses of that family.
    #[error("network {network} has no {family} subnet")]
    NoSubnet {
        /// The network.
        network: Name,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A service publishes the port.
    #[error("port {port} of this node is published by service {service}; choose another port")]
    PortPublished {
        /// The port.
        port: String,
        /// The service.
        service: Name,
    },
    /// The cluster itself needs the port.
    #[error(
        "port {port} of this node cannot lead to a task: the cluster uses it for {purpose}; choose another port"
    )]
    PortReserved {
        /// The port.
        port: String,
        /// What for.
        purpose: &'static str,
    },
    /// Another task has the port.
    #[error("port {port} of this node leads to task {task} already; choose another port")]
    PortOfTask {
        /// The port.
        port: String,
        /// The task.
        task: Name,
    },
    /// The same port leads to two places.
    #[error("port {0} is asked for twice, with different targets or at overlapping addresses")]
    PortTwice(String),
    /// Every port that could be given out is taken.
    #[error("no port of this node is free for it; name one")]
    NoFreePort,
    /// Ports of single tasks are open at addresses.
    #[error(
        "port {0}: a port that leads to one task is opened at an address of the node, not at an interface"
    )]
    PortInterface(String),
    /// The node has no such address.
    #[error(
        "this node opens no port at {address}; its addresses are {own}; leave it out for all of them and localhost"
    )]
    PortAddress {
        /// The address.
        address: IpAddr,
        /// What it has.
        own: String,
    },
    /// The port is open at an address of one family, the task has addresses of the other one.
    #[error(
        "port {port}: none of the task's networks has an {family} subnet, so that nothing could answer there"
    )]
    PortFamily {
        /// The port.
        port: String,
        /// The family that is not there.
        family: Family,
    },
    /// The name is taken.
    #[error(
        "name {name} is taken on network {network} by a task of node {node}; choose another one with --name"
    )]
    NameTaken {
        /// The name.
        name: Name,
        /// The network.
        network: Name,
        /// The node that runs that task.
        node: String,
    },
    /// The namespace is attached already.
    #[error("{namespace} is attached already, as task {task}; detach it first")]
    AlreadyAttached {
        /// The namespace.
        namespace: NsRef,
        /// The task.
        task: Name,
    },
    /// The namespace is attached already, otherwise than is asked for.
    #[error("{namespace} is attached already, as task {task}, with another {what}; detach it first")]
    Other {
        /// The namespace.
        namespace: NsRef,
        /// The task.
        task: Name,
        /// What is other.
        what: &'static str,
    },
    /// The owner has a task already, otherwise than it asks for now.
    #[error("{owner} has {namespace} attached already, as task {task}, with another {what}; detach it first")]
    Owned {
        /// Who asks.
        owner: Owner,
        /// The namespace of its task.
        namespace: NsRef,
        /// Its task.
        task: Name,
        /// What is other.
        what: &'static str,
    },
    /// The task that the namespace is cannot be joined to the network.
    #[error(transparent)]
    Join(Box<ConnectError>),
    /// Something else is being done to it.
    #[error("{0} is just being attached or detached; try again")]
    Busy(NsRef),
    /// The node's own namespace.
    #[error("{0} is the node's own network namespace; a task needs one of its own")]
    OwnNamespace(NsRef),
    /// The node leaves its cluster.
    #[error("this node is leaving the cluster")]
    Leaving,
    /// No more endpoint ids.
    #[error("this node has no room for more tasks: all {0} endpoint ids are in use")]
    Full(u32),
    /// No address was to be had.
    #[error("no address on network {network}: {source}")]
    Lease {
        /// The network.
        network: Name,
        /// Why.
        source: SessionError,
    },
    /// The lease ran out meanwhile.
    #[error(
        "the addresses of network {0} that this node holds were not confirmed by a manager in time; try again when one is \
         reachable"
    )]
    TermOver(Name),
    /// The process ended meanwhile.
    #[error("the process {0} has ended")]
    Ended(u32),
    /// The kernel's network refused.
    #[error(transparent)]
    Netlink(#[from] mesh_netlink::Error),
    /// The DNS server cannot listen in the namespace.
    #[error(transparent)]
    Dns(#[from] mesh_dns::Error),
    /// The data path, or the disk.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// A task was not detached.
#[derive(Debug, Error)]
pub enum DetachError {
    /// No such task on this node; nothing changed.
    #[error("no such task on this node: {0}")]
    Unknown(String),
    /// More than one has that prefix; nothing changed.
    #[error(transparent)]
    Ambiguous(#[from] LookupError),
    /// Something else is being done for the owner; nothing changed.
    #[error("something is just being attached or detached for {0}; try again")]
    Busy(Owner),
    /// The task is gone from the cluster, but something of it could not be removed.
    #[error("task {task} is detached, but not all of it could be removed: {problems}")]
    Leftovers {
        /// The task.
        task: Name,
        /// What remains and why.
        problems: String,
    },
}
