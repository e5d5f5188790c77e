//! The node's own links: the uplinks, the VXLAN device, the host link.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_lb::{EGRESS_POOL, EGRESS_POOL6, NodeSettings};
use mesh_netlink::{HostLink, Interface, NetNs, Netlink};
use mesh_types::{Mac, VXLAN_PORT};

use crate::{
    AgentError,
    uplinks::{
        DataPathAddress, DataPathChoice, IPV6_MIN_MTU, Uplink, data_path_address, host_addresses, host_ways,
        overhead, theirs, uplinks,
    },
};

/// Name of the flow-based VXLAN device.
pub const VXLAN_LINK: &str = "mesh-vxlan";
/// Names of the host link's two ends: the node's sockets are routed to the first.
pub const HOST_LINK: (&str, &str) = ("mesh-host", "mesh-peer");
/// What the veths of tasks begin with on the node's side.
pub const TASK_LINK_PREFIX: &str = "msh";

/// Whether this is the name of a task's veth: the prefix and eight hexadecimal digits.
pub fn is_task_link(name: &str) -> bool {
    let number = name.strip_prefix(TASK_LINK_PREFIX);
    number.is_some_and(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether this is the name of a link that this daemon makes.
pub fn is_ours(name: &str) -> bool {
    [VXLAN_LINK, HOST_LINK.0, HOST_LINK.1].contains(&name) || is_task_link(name)
}

/// The nftables tables for egress, one per family.
pub const NFT_TABLE: &str = "meshd";

/// Which way packets between nodes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathChoice {
    /// The fast path where the kernel has what it needs.
    #[default]
    Auto,
    /// The VXLAN device.
    General,
}

/// What is to be made of the node's links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Where VXLAN packets come from and go to.
    pub data_path: DataPathChoice,
    /// Where other nodes reach this one, as an operator said it.
    pub advertise: DataPathChoice,
    /// Which way packets between nodes go.
    pub path: PathChoice,
    /// Whether outer UDP headers carry a checksum. Only the kernel writes one, so only the general path can.
    pub outer_checksum: bool,
    /// The interfaces by which clients and nodes come in, beside the one of the VTEP; found unless given.
    pub uplinks: Option<Vec<String>>,
}

impl HostOptions {
    /// Why packets between nodes go through the VXLAN device; `None` when they take the fast path.
    pub fn why_general(&self) -> Option<&'static str> {
        match (self.path, self.outer_checksum) {
            (PathChoice::General, _) => Some("by configuration"),
            (PathChoice::Auto, true) => Some("outer checksums are asked for, which only the kernel writes"),
            (PathChoice::Auto, false) => None,
        }
    }
}

/// What is known of the node's links.
#[derive(Debug, Clone)]
pub struct Host {
    /// The VTEP address and its interface.
    pub data_path: DataPathAddress,
    /// Where other nodes reach this one, and the interface that holds it; none while no interface does.
    pub advertise: Option<DataPathAddress>,
    /// The interfaces by which packets come in, the VTEP's first (unless it is no Ethernet interface).
    pub uplinks: Vec<Uplink>,
    /// What the data path must know.
    pub settings: NodeSettings,
    /// Addresses on which published ports are open, with the interfaces that hold them.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Interfaces by which peers are reached, where that is not the VTEP's.
    pub routes: BTreeMap<IpAddr, u32>,
}

/// What [`Host::ensure`] goes by, beside what an operator said.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The data path address of last time.
    pub last: Option<&'a DataPathAddress>,
    /// Whether an address that is gone may be replaced by now.
    pub may_change: bool,
    /// Where other nodes reached this one last time.
    pub advertise: Option<&'a DataPathAddress>,
    /// Whether that may be replaced by now.
    pub advertise_may_change: bool,
    /// The VTEP addresses of the other nodes.
    pub peers: &'a [IpAddr],
}

impl Host {
    /// Makes the node's links, or finds them as they are, and reads what they look like now.
    pub async fn ensure(
        netlink: &Netlink,
        options: &HostOptions,
        known: Known<'_>,
    ) -> Result<Self, AgentError> {
        let interfaces = netlink.interfaces().await?;
        let data_path = data_path_address(&interfaces, &options.data_path, known.last, known.may_change)
            .ok_or_else(|| missing(options, known.last))?;
        let (choice, may) = (&options.advertise, known.advertise_may_change);
        let advertise = data_path_address(&interfaces, choice, known.advertise, may);
        let vtep = data_path.address;
        let found = interfaces.iter().find(|i| i.link.name == data_path.interface);
        let holder = found.ok_or(mesh_netlink::Error::AddressNotFound(vtep))?;
        let ways_out = Ways::find(netlink, &interfaces, holder, vtep, known.peers).await?;
        let uplinks = uplinks(&interfaces, &data_path, &ways_out.all(), options.uplinks.as_deref());
        let uplink_ifindex = ways_out.usual;
        let carrying = |i: &&Interface| i.link.ifindex == uplink_ifindex || ways_out.leads_by(i.link.ifindex);
        let mtu = theirs(&interfaces).filter(carrying).map(|i| i.link.mtu).min().unwrap_or(holder.link.mtu);
        let inner_mtu = mtu.saturating_sub(overhead(vtep));

        let vxlan_ifindex = netlink.ensure_vxlan(VXLAN_LINK, VXLAN_PORT).await?;
        let (host, peer) = HOST_LINK;
        let link = HostLink {
            name: host.into(),
            peer: peer.into(),
            ways: host_ways(&interfaces, &data_path, mesh_netlink::has_ipv6()),
            mtu: inner_mtu.max(IPV6_MIN_MTU),
        };
        let (host_ifindex, _) = netlink.ensure_host_link(&link).await?;
        let host_info = netlink.link(host).await?;
        let settings = NodeSettings {
            vtep,
            uplink_ifindex,
            vxlan_ifindex,
            host_ifindex,
            host_mac: host_info.and_then(|l| l.mac).unwrap_or(Mac([0; 6])),
            inner_mtu,
            vxlan_port: VXLAN_PORT,
            netns_cookie: NetNs::current()?.cookie()?,
            fast_path: options.why_general().is_none(),
            outer_checksum: options.outer_checksum,
        };
        let addresses = host_addresses(&interfaces);
        Ok(Self { data_path, advertise, uplinks, settings, addresses, routes: ways_out.peers })
    }

    /// Lets packets of tasks out: forwarding, and masquerade of the addresses that stand for them.
    pub fn ensure_egress() -> Result<(), AgentError> {
        mesh_netlink::enable_forwarding()?;
        mesh_netlink::ensure_masquerade(NFT_TABLE, egress_pool())?;
        Ok(())
    }

    /// The same for IPv6; not before a task needs it, since a host that forwards IPv6 is a router to its neighbours.
    pub fn ensure_egress6() -> Result<(), AgentError> {
        mesh_netlink::enable_forwarding6()?;
        mesh_netlink::ensure_masquerade(NFT_TABLE, egress_pool6())?;
        Ok(())
    }

    /// Removes the node's links and the masquerade; goes on past errors and returns them.
    pub async fn remove(netlink: &Netlink) -> Vec<mesh_netlink::Error> {
        let mut errors = Vec::new();
        for name in [VXLAN_LINK, HOST_LINK.0] {
            errors.extend(netlink.remove_link(name).await.err());
        }
        errors.extend(mesh_netlink::remove_masquerade(NFT_TABLE).err());
        errors
    }
}

/// The IPv4 addresses that stand for tasks outside.
pub fn egress_pool() -> IpNet {
    let (first, prefix) = EGRESS_POOL;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(first), prefix))
}

/// The IPv6 addresses that stand for tasks outside.
pub fn egress_pool6() -> IpNet {
    let (first, prefix) = EGRESS_POOL6;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(first), prefix))
}

fn missing(options: &HostOptions, last: Option<&DataPathAddress>) -> AgentError {
    match (&options.data_path, last) {
        (DataPathChoice::Address(address), _) => mesh_netlink::Error::AddressNotFound(*address).into(),
        (DataPathChoice::Interface(name), last) => {
            AgentError::NoAddress { interface: name.clone(), last: last.map(|l| l.address) }
        }
    }
}

/// By which interfaces packets leave.
struct Ways {
    /// The VTEP's interface; where that is loopback, the one of the default route.
    usual: u32,
    defaults: Vec<u32>,
    /// For peers reached by another than the usual one.
    peers: BTreeMap<IpAddr, u32>,
}

impl Ways {
    async fn find(
        netlink: &Netlink,
        interfaces: &[Interface],
        holder: &Interface,
        vtep: IpAddr,
        peers: &[IpAddr],
    ) -> Result<Self, AgentError> {
        let defaults = netlink.default_interfaces().await?;
        let loopback = holder.link.frames == mesh_netlink::Frames::Loopback;
        let usual = match defaults.first() {
            Some(&first) if loopback => first,
            _ => holder.link.ifindex,
        };
        let mut ways = Self { usual, defaults, peers: BTreeMap::new() };
        let elsewhere =
            |i: &Interface| i.link.frames != mesh_netlink::Frames::Loopback && i.link.ifindex != usual;
        // With a single interface there is nothing to ask.
        if theirs(interfaces).any(elsewhere) {
            let of_family = peers.iter().filter(|p| p.is_ipv4() == vtep.is_ipv4());
            for &peer in of_family {
                let way = netlink.route_to(peer, Some(vtep)).await?;
                if let Some(ifindex) = way.filter(|way| *way != usual) {
                    ways.peers.insert(peer, ifindex);
                }
            }
        }
        Ok(ways)
    }

    fn all(&self) -> BTreeSet<u32> {
        let peers = self.peers.values().copied();
        peers.chain(self.defaults.iter().copied()).chain([self.usual]).collect()
    }

    fn leads_by(&self, ifindex: u32) -> bool {
        self.peers.values().any(|way| *way == ifindex)
    }
}
