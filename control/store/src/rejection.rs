//! Why the state machine refused a command.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use mesh_types::{
    Family, HealthError, Name, NetworkId, NodeId, PortConfig, PortFilter, Protocol, PublishAt, ServiceId,
    SubnetError,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::MAX_MANAGERS;

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
    /// It was kept out with `--aux-address`.
    Auxiliary,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Node(name) => write!(f, "leased to node {name}"),
            Holder::Vip(name) => write!(f, "the virtual address of service {name}"),
            Holder::Gateway => f.write_str("the network's gateway"),
            Holder::Auxiliary => f.write_str("kept out by the network's --aux-address"),
        }
    }
}

/// What a node has of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leased {
    /// Addresses that it holds.
    pub held: u64,
    /// Those of them that tasks use.
    pub used: u64,
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
    /// The cluster has as many managers as are of use.
    #[error(
        "the cluster has {MAX_MANAGERS} managers already, and more make it slower, not safer; demote one first, or join as a \
         worker"
    )]
    TooManyManagers,
    /// The CA's root is being replaced.
    #[error(
        "the CA is being rotated already; `meshctl ca` shows which nodes are still to get a new certificate, and \
         `meshctl node rm` removes one that does not come back"
    )]
    CaChanges,
    /// Certificates cannot be valid for so long, or so short.
    #[error(
        "certificates cannot be valid for {given} s; give from {} h to {} h",
        crate::MIN_CERT_VALIDITY / 3600,
        crate::MAX_CERT_VALIDITY / 3600
    )]
    CertValidity {
        /// The validity asked for, in seconds.
        given: u64,
    },
    /// The ring of gossip keys is being changed, or was changed meanwhile.
    #[error(
        "the gossip key is being replaced already; `meshctl cluster inspect` shows how far that has come and which nodes \
         are waited for"
    )]
    GossipKeysChange,
    /// A gossip key cannot be used for so long, or so short.
    #[error(
        "a gossip key cannot be used for {given} s; give from {} s to {} h, or 0 for no schedule",
        crate::MIN_GOSSIP_ROTATION,
        crate::MAX_GOSSIP_ROTATION / 3600
    )]
    GossipRotation {
        /// The time asked for, in seconds.
        given: u64,
    },
    /// No node can be reached at this address.
    #[error("{0} is not an address at which other nodes can reach a node")]
    AdvertiseAddress(IpAddr),
    /// Another node has this address, as far as the managers know.
    #[error(
        "address {address} is that of node {node}; if {node} has another one now it is to tell the managers first, or has to \
         be removed with `meshctl node rm`"
    )]
    AdvertiseAddressTaken {
        /// The address.
        address: IpAddr,
        /// The node that has it.
        node: Name,
    },
    /// No node can have this data-path address.
    #[error("{0} is not an address that a node's VXLAN packets can come from")]
    DataPathAddress(IpAddr),
    /// Another node has this data-path address.
    #[error("data-path address {address} is that of node {node}")]
    DataPathAddressTaken {
        /// The address.
        address: IpAddr,
        /// The node that has it.
        node: Name,
    },
    /// A subnet cannot be used.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// More than one pool of a family.
    #[error("a cluster has one {family} pool; {first} and {second} were given")]
    PoolsOfOneFamily {
        /// The family.
        family: Family,
        /// One pool.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// More than one subnet of a family.
    #[error("network {network} can have one {family} subnet; {first} and {second} were given")]
    SubnetsOfOneFamily {
        /// The network's name.
        network: Name,
        /// The family.
        family: Family,
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
    /// A range of a family that the network has no subnet of.
    #[error("network {network} has no {family} subnet that ip range {range} could lie in")]
    IpRangeFamily {
        /// The network's name.
        network: Name,
        /// The family.
        family: Family,
        /// The range.
        range: IpNet,
    },
    /// More than one range of a family.
    #[error("network {network} can have one {family} ip range; {first} and {second} were given")]
    IpRangesOfOneFamily {
        /// The network's name.
        network: Name,
        /// The family.
        family: Family,
        /// One range.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// An address was asked for of a family that the network does not have.
    #[error("network {network} has no {family} addresses")]
    NoSuchFamily {
        /// The network's name.
        network: Name,
        /// The family.
        family: Family,
    },
    /// The MTU is too small for IPv6.
    #[error("mtu {given} of network {network} is too small for its IPv6 subnet, which needs {min}", min = crate::IPV6_MTU)]
    Mtu6 {
        /// The network's name.
        network: Name,
        /// The MTU asked for, in bytes.
        given: u16,
    },
    /// The MTU is out of bounds.
    #[error("mtu {given} of network {network} is not in {min}..={max}", min = crate::MTU_RANGE.start(), max = crate::MTU_RANGE.end())]
    Mtu {
        /// The network's name.
        network: Name,
        /// The MTU asked for, in bytes.
        given: u16,
    },
    /// The ingress network was to be replaced while services need it.
    #[error("network {network} carries published ports of, or is used by, {}", users(.services))]
    IngressInUse {
        /// The ingress network that there is.
        network: Name,
        /// The services.
        services: Vec<Name>,
    },
    /// The object is not as the change expects it.
    #[error(
        "{kind} {name} was changed meanwhile: it has version {version}, not {expected}; look at it again and repeat the change"
    )]
    Changed {
        /// Of what.
        kind: Kind,
        /// The object.
        name: Name,
        /// The version that the change was made for.
        expected: u64,
        /// The version that it has.
        version: u64,
    },
    /// An auxiliary address is in none of the network's subnets, or is no host's, or twice there.
    #[error(
        "aux address {address} of network {network} is not a free address of its subnets; it must differ from the gateway"
    )]
    AuxAddress {
        /// The network's name.
        network: Name,
        /// The address.
        address: IpAddr,
    },
    /// The service is on the network to be joined.
    #[error(
        "service {service} is on network {network} already; change its names there with --alias-add and --alias-rm"
    )]
    ServiceOn {
        /// The service's name.
        service: Name,
        /// The network's name.
        network: Name,
    },
    /// The service is not on the network.
    #[error("service {service} is not on network {network}")]
    ServiceNotOn {
        /// The service's name.
        service: Name,
        /// The network's name.
        network: Name,
    },
    /// The service would be on no network.
    #[error("service {0} would be on no network; add another one in the same change, or remove the service")]
    LastNetwork(Name),
    /// The service has no such further name.
    #[error("service {service} has no alias {alias}{}", .network.as_ref().map(|n| format!(" on network {n}")).unwrap_or_default())]
    NoSuchAlias {
        /// The service's name.
        service: Name,
        /// The further name.
        alias: Name,
        /// The network, if one was named.
        network: Option<Name>,
    },
    /// The ingress network was to be removed.
    #[error(
        "network {0} carries the published ports of the cluster and cannot be removed; `meshctl network create --ingress` replaces it"
    )]
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
    /// Another service publishes the port, or one that overlaps it.
    #[error(
        "port {port} is published by service {owner}{where_}; unpublish it there, or choose another port{elsewhere}",
        port = .asked.place(), where_ = clash(.asked, .taken), elsewhere = elsewhere(.taken)
    )]
    PortTaken {
        /// The port asked for.
        asked: PortConfig,
        /// The one that is in its way.
        taken: PortConfig,
        /// The service that has it.
        owner: Name,
    },
    /// The service itself publishes the port already, or one that overlaps it.
    #[error(
        "service {service} publishes {taken} already; to change it, close it first with \
         `meshctl unpublish {place} {service}`, or do both at once with \
         `meshctl service update --publish-rm {place} --publish-add {asked} {service}`",
        place = .taken.place()
    )]
    PortPublished {
        /// The port asked for.
        asked: PortConfig,
        /// The one that is in its way.
        taken: PortConfig,
        /// The service.
        service: Name,
    },
    /// One request names a port twice.
    #[error("port {} is given twice: as {first} and as {second}", .second.place())]
    PortTwice {
        /// One of them.
        first: PortConfig,
        /// The other.
        second: PortConfig,
    },
    /// An SCTP port that would have to be translated.
    #[error(
        "sctp port {published} cannot lead to {target}: the checksum covers the ports and cannot be corrected; \
         write {target}:{target}/sctp"
    )]
    SctpPorts {
        /// The port that clients use.
        published: u16,
        /// The port that the tasks listen on.
        target: u16,
    },
    /// Direct return for a port that leads only to the node's own tasks.
    #[error("port {0}: in mode host replies leave by the task's node anyway; leave return=direct out")]
    DirectHost(PortConfig),
    /// What balances cannot be had without a virtual address.
    #[error(
        "service {0} has endpoint mode dnsrr, which leaves the choice of a task to clients; {1} needs --endpoint-mode vip"
    )]
    DnsRrBalancing(Name, String),
    /// How a service's tasks are to be checked makes no sense.
    #[error(transparent)]
    Health(HealthError),
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
    #[error("service {service} does not publish {wanted}; {}", published_list(.ports))]
    NotPublished {
        /// The service's name.
        service: Name,
        /// The ports asked for.
        wanted: PortFilter,
        /// What it does publish.
        ports: Vec<PortConfig>,
    },
    /// Published ports need a virtual address mode.
    #[error(
        "service {0} has endpoint mode dnsrr and cannot publish ports in mode ingress; publish them with mode=host, \
         or create it with --endpoint-mode vip"
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
         end tasks, remove nodes that will not come back, or create a larger network",
        leases = leases_list(.leases)
    )]
    AddressesExhausted {
        /// The network's name.
        network: Name,
        /// The subnet that is full.
        subnet: IpNet,
        /// How many addresses services have.
        vips: u64,
        /// How many addresses each node has.
        leases: Vec<(Name, Leased)>,
    },
    /// The grace of leases is too short.
    #[error("{0} s are too short for the lease grace, which is at least {min} s", min = crate::MIN_LEASE_GRACE)]
    LeaseGrace(u32),
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

/// So many of a list are named.
const NAMED: usize = 20;

/// The items, or the first of them and how many more there are.
fn list(mut items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(NAMED);
    let named = items.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

fn users(services: &[Name]) -> String {
    let names = list(services.iter().map(Name::to_string));
    if services.len() == 1 {
        format!("service {names}; remove it first")
    } else {
        format!("services {names}; remove them first")
    }
}

fn join(nets: &[IpNet]) -> String {
    list(nets.iter().map(IpNet::to_string))
}

fn leases_list(leases: &[(Name, Leased)]) -> String {
    if leases.is_empty() {
        return "none".to_owned();
    }
    let each = |(node, leased): &(Name, Leased)| format!("{node}: {} ({} in use)", leased.held, leased.used);
    list(leases.iter().map(each))
}

/// How the port in the way differs from the one asked for.
fn clash(asked: &PortConfig, taken: &PortConfig) -> String {
    let at = match taken.at {
        at if at == asked.at => String::new(),
        PublishAt::Any => " on all addresses".to_owned(),
        at => format!(" on {at}"),
    };
    let mode = if taken.mode == asked.mode { String::new() } else { format!(" in mode {}", taken.mode) };
    at + &mode
}

fn elsewhere(taken: &PortConfig) -> &'static str {
    // An address or interface of one's own helps only against another one.
    if taken.at == PublishAt::Any { "" } else { ", address or interface" }
}

fn published_list(ports: &[PortConfig]) -> String {
    if ports.is_empty() {
        return "it publishes nothing".to_owned();
    }
    format!("it publishes {}", list(ports.iter().map(PortConfig::to_string)))
}
