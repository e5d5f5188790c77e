//! A way from a client to a server, and how it is dialled.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// The ways that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From machine to machine without meshd.
    Underlay,
    /// From node to node, past the data path: what meshd costs what is not its own.
    NodeUnderlay,
    /// From task to task of another node.
    Overlay,
    /// The same by a Linux bridge and a VXLAN device on each node.
    Bridge,
    /// From a client outside to a server in a node's own namespace.
    Straight,
    /// From a client outside to a server on a machine without meshd.
    StraightBare,
    /// To a published port of the node that has the task.
    Near,
    /// To a published port of another node, replies through that node.
    Far,
    /// To a published port of another node, replies straight from the task's node.
    FarDirect,
    /// To the same remote task by nftables: destination translated, source masqueraded.
    Dnat,
    /// To the same remote task by haproxy in TCP mode.
    Haproxy,
    /// To the same remote task by IPVS: destination translated, source masqueraded.
    Ipvs,
    /// From container to container of two Docker engines that form a swarm.
    DockerOverlay,
    /// To a port that a swarm publishes, of the engine that has the task.
    SwarmNear,
    /// To a port that a swarm publishes, of the other engine.
    SwarmFar,
}

impl Way {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::NodeUnderlay => "underlay of nodes",
            Self::Overlay => "meshd overlay",
            Self::Bridge => "Linux bridge + VXLAN",
            Self::Straight => "straight to a node",
            Self::StraightBare => "straight, without meshd",
            Self::Near => "published, task here",
            Self::Far => "published, task elsewhere",
            Self::FarDirect => "published, elsewhere, direct return",
            Self::Dnat => "nftables DNAT + masquerade",
            Self::Haproxy => "haproxy, TCP mode",
            Self::Ipvs => "IPVS NAT + masquerade",
            Self::DockerOverlay => "Docker's overlay",
            Self::SwarmNear => "Docker Swarm's ingress, task here",
            Self::SwarmFar => "Docker Swarm's ingress, task elsewhere",
        }
    }

    /// For programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::NodeUnderlay => "underlay-of-nodes",
            Self::Overlay => "overlay",
            Self::Bridge => "bridge-vxlan",
            Self::Straight => "straight",
            Self::StraightBare => "straight-without-meshd",
            Self::Near => "published-here",
            Self::Far => "published-elsewhere",
            Self::FarDirect => "published-elsewhere-direct",
            Self::Dnat => "nftables",
            Self::Haproxy => "haproxy",
            Self::Ipvs => "ipvs",
            Self::DockerOverlay => "docker-overlay",
            Self::SwarmNear => "swarm-here",
            Self::SwarmFar => "swarm-elsewhere",
        }
    }

    /// Whether meshd's data path is on it.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Overlay | Self::Near | Self::Far | Self::FarDirect)
    }
}

/// The ports of the servers that a way leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// nginx.
    pub http: u16,
    /// A TCP stream's receiver.
    pub stream: u16,
    /// Answers what it hears, TCP and UDP.
    pub echo: u16,
    /// Counts the datagrams it hears.
    pub sink: u16,
}

impl Ports {
    /// Those on which servers in tasks listen.
    pub const USUAL: Self = Self { http: 80, stream: 5201, echo: 7, sink: 9 };

    /// Four in a row.
    pub const fn from(first: u16) -> Self {
        Self { http: first, stream: first + 1, echo: first + 2, sink: first + 3 }
    }

    /// What is to be led where, behind which protocol.
    pub fn pairs(self, to: Self) -> [(u16, u16, &'static str); 5] {
        [
            (self.http, to.http, "tcp"),
            (self.stream, to.stream, "tcp"),
            (self.echo, to.echo, "tcp"),
            (self.echo, to.echo, "udp"),
            (self.sink, to.sink, "udp"),
        ]
    }
}

/// A way as it was set up.
#[derive(Debug)]
pub struct Path {
    /// Which one.
    pub way: Way,
    /// The namespace of clients.
    pub from: PathBuf,
    /// The namespace of servers.
    pub to: PathBuf,
    /// What clients dial.
    pub address: IpAddr,
    /// What clients dial.
    pub dialled: Ports,
    /// What servers listen on.
    pub served: Ports,
    /// Whether it carries UDP.
    pub udp: bool,
    /// What the web server at its end answers.
    pub server: &'static str,
}

impl Path {
    /// One whose servers listen on the ports that clients dial.
    pub fn plain(
        way: Way,
        from: PathBuf,
        to: PathBuf,
        address: impl Into<IpAddr>,
        ports: Ports,
        server: &'static str,
    ) -> Self {
        Self { way, from, to, address: address.into(), dialled: ports, served: ports, udp: true, server }
    }

    /// What a client dials for the port that `port` picks.
    pub fn dial(&self, port: impl Fn(&Ports) -> u16) -> SocketAddr {
        (self.address, port(&self.dialled)).into()
    }

    /// What a server binds to for the port that `port` picks.
    pub fn bind(&self, port: impl Fn(&Ports) -> u16) -> SocketAddr {
        (self.any(), port(&self.served)).into()
    }

    /// Any address of the path's family.
    pub fn any(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}
