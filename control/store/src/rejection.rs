//! Why the state machine refused a command.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use mesh_types::{Name, NetworkId, NodeId, PortConfig, Protocol, ServiceId, SubnetError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kinds of named objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A node.
    Node,
    /// A network.
    Network,
    /// A service.
    Service,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Node => "node",
            Kind::Network => "network",
            Kind::Service => "service",
        })
    }
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// It is leased to a node.
    Node(Name),
    /// It is the virtual address of a service.
    Vip(Name),
    /// It is the network's gateway.
    Gateway,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Node(name) => write!(f, "leased to node {name}"),
            Holder::Vip(name) => write!(f, "the virtual address of service {name}"),
            Holder::Gateway => f.write_str("the network's gateway"),
        }
    }
}

/// Why a command was refused. A refused command has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Rejection {
    /// There is no cluster yet.
    #[error("there is no cluster here yet; make one with `meshctl init` or join one with `meshctl join`")]
    NotInitialized,
    /// There is a cluster already.
    #[error("this is a cluster already; leave it first with `meshctl leave`")]
    AlreadyInitialized,
    /// No node has this id.
    #[error("no such node: {0}; it may have been removed from the cluster")]
    UnknownNode(NodeId),
    /// No network has this id.
    #[error("no such network: {0}")]
    UnknownNetwork(NetworkId),
    /// No service has this id.
    #[error("no such service: {0}")]
    UnknownService(ServiceId),
    /// The id is in use.
    #[error("there is a {kind} with id {id} already; try again")]
    IdTaken {
        /// Of what.
        kind: Kind,
        /// The id.
        id: String,
    },
    /// The name is in use.
    #[error("{kind} name {name} is taken; choose another one (`meshctl {kind} ls` lists them)")]
    NameTaken {
        /// Of what.
        kind: Kind,
        /// The name as its holder has it.
        name: Name,
    },
    /// A member has this node name.
    #[error(
        "node name {name} is taken by node {holder}; choose another one with --name, or remove that node first"
    )]
    NodeNameTaken {
        /// The name.
        name: Name,
        /// The member.
        holder: NodeId,
    },
    /// A node without any manager beside it was to go or to become a worker.
    #[error(
        "node {0} is the last manager; a cluster needs one (`meshctl leave --force` gives the cluster up)"
    )]
    LastManager(Name),
    /// A subnet cannot be used.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// IPv6 subnets have no data path yet.
    #[error("subnet {0}: IPv6 overlays are not there yet; use an IPv4 subnet")]
    Ipv6Overlay(IpNet),
    /// Two subnets of one network overlap.
    #[error("subnets {first} and {second} of network {network} overlap each other")]
    OwnSubnetsOverlap {
        /// The network's name.
        network: Name,
        /// One subnet.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// More than one subnet of a family.
    #[error("network {network} can have one IPv4 subnet; {first} and {second} were given")]
    SubnetsOfOneFamily {
        /// The network's name.
        network: Name,
        /// One subnet.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// The range to give addresses out of is in no subnet.
    #[error(
        "ip range {range} of network {network} must lie in its subnet {subnet} and hold a usable address"
    )]
    IpRange {
        /// The network's name.
        network: Name,
        /// The range.
        range: IpNet,
        /// The subnet.
        subnet: IpNet,
    },
    /// The MTU is out of bounds.
    #[error("mtu {given} of network {network} is not in {min}..={max}", min = crate::MTU_RANGE.start(), max = crate::MTU_RANGE.end())]
    Mtu {
        /// The network's name.
        network: Name,
        /// The MTU asked for, in bytes.
        given: u16,
    },
    /// A second ingress network was asked for.
    #[error("network {0} is the ingress network already; a cluster has one")]
    IngressExists(Name),
    /// The ingress network was to be removed.
    #[error("network {0} carries the published ports of the cluster and cannot be removed")]
    IngressNeeded(Name),
    /// Services are on the network.
    #[error("network {network} is used by {}", users(.services))]
    NetworkInUse {
        /// The network's name.
        network: Name,
        /// The services.
        services: Vec<Name>,
    },
    /// A service names a network twice.
    #[error("service {service} names network {network} twice")]
    NetworkTwice {
        /// The service's name.
        service: Name,
        /// The network's name.
        network: Name,
    },
    /// Another service publishes the port.
    #[error(
        "port {published}/{protocol} is published by service {owner}; unpublish it there or choose another port"
    )]
    PortTaken {
        /// The port that clients use.
        published: u16,
        /// Its transport.
        protocol: Protocol,
        /// The service that has it.
        owner: Name,
    },
    /// One request names a port twice.
    #[error("port {published}/{protocol} is given twice")]
    PortTwice {
        /// The port that clients use.
        published: u16,
        /// Its transport.
        protocol: Protocol,
    },
    /// The cluster itself needs the port.
    #[error("port {published}/{protocol} cannot be published: the cluster uses it for {purpose}")]
    PortReserved {
        /// The port asked for.
        published: u16,
        /// Its transport.
        protocol: Protocol,
        /// What for.
        purpose: String,
    },
    /// Target port 0.
    #[error("port 0 is not a port that tasks can listen on; write PUBLISHED:TARGET, for example 8080:80")]
    TargetPort,
    /// The port to close is not open.
    #[error("service {service} does not publish {published}/{protocol}; {}", published_list(.ports))]
    NotPublished {
        /// The service's name.
        service: Name,
        /// The port asked for.
        published: u16,
        /// Its transport.
        protocol: Protocol,
        /// What it does publish.
        ports: Vec<PortConfig>,
    },
    /// Published ports need a virtual address mode.
    #[error(
        "service {0} has endpoint mode dnsrr and cannot publish ports; create it with --endpoint-mode vip"
    )]
    DnsRrPorts(Name),
    /// The address is in use.
    #[error("address {address} of network {network} is {holder}")]
    AddressTaken {
        /// The address asked for.
        address: IpAddr,
        /// The network's name.
        network: Name,
        /// Who has it.
        holder: Holder,
    },
    /// The address is not one of the network's hosts.
    #[error("address {address} is not a usable address of network {network} ({subnet})", subnet = join(.subnets))]
    AddressOutside {
        /// The address asked for.
        address: IpAddr,
        /// The network's name.
        network: Name,
        /// The network's subnets.
        subnets: Vec<IpNet>,
    },
    /// A network has no free address.
    #[error(
        "network {network} ({subnet}) has no free address: {vips} virtual addresses, leases {leases}; \
         end tasks, or create a larger network",
        subnet = join(.subnets), leases = leases_list(.leases)
    )]
    AddressesExhausted {
        /// The network's name.
        network: Name,
        /// The network's subnets.
        subnets: Vec<IpNet>,
        /// How many addresses services have.
        vips: u64,
        /// How many addresses each node has.
        leases: Vec<(Name, u64)>,
    },
    /// No subnet is free.
    #[error("the pool {0} has no free subnet; remove networks or give one with --subnet")]
    SubnetsExhausted(IpNet),
    /// No VXLAN network identifier is free.
    #[error("all VXLAN network identifiers are in use; remove networks")]
    VnisExhausted,
    /// No port of the automatic range is free.
    #[error("no free {0} port in 30000-32767; give one, for example 8080:80")]
    PortsExhausted(Protocol),
}

fn users(services: &[Name]) -> String {
    let names = services.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    if services.len() == 1 {
        format!("service {names}; remove it first")
    } else {
        format!("services {names}; remove them first")
    }
}

fn join(nets: &[IpNet]) -> String {
    nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

fn leases_list(leases: &[(Name, u64)]) -> String {
    if leases.is_empty() {
        return "none".to_owned();
    }
    leases.iter().map(|(node, count)| format!("{node}: {count}")).collect::<Vec<_>>().join(", ")
}

fn published_list(ports: &[PortConfig]) -> String {
    if ports.is_empty() {
        return "it publishes nothing".to_owned();
    }
    let list = ports.iter().map(PortConfig::to_string).collect::<Vec<_>>().join(", ");
    format!("it publishes {list}")
}
