//! The pure part of the node's links: which address is the VTEP, which interfaces are uplinks, what fits.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mesh_lb::{HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6};
use mesh_netlink::{Frames, HostWay, Interface};
use mesh_types::Network;
use serde::{Deserialize, Serialize};

use crate::{host::is_ours, planner::Family};

/// Smallest MTU with which Linux lets a link have IPv6 (RFC 8200, section 5).
pub const IPV6_MIN_MTU: u32 = 1280;

/// Where a node's VXLAN packets come from and go to, as an operator said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataPathChoice {
    /// From this address. Should the node lose it, the interface that held it may have another one.
    Address(IpAddr),
    /// From this interface's address, whichever it is.
    Interface(String),
}

/// The VTEP address and the interface that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPathAddress {
    /// The address.
    pub address: IpAddr,
    /// The interface's name.
    pub interface: String,
}

/// An interface by which packets come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl From<&Interface> for Uplink {
    fn from(interface: &Interface) -> Self {
        let link = &interface.link;
        Self { name: link.name.clone(), ifindex: link.ifindex, mtu: link.mtu }
    }
}

/// The VTEP address now. The chosen address goes before another one of the interface that held it `last`; an address of
/// the family that it `last` had goes before one of the other, and `last` itself before both.
///
/// `may_change` lets a chosen address that no interface holds any more be replaced; the family never changes.
pub fn data_path_address(
    interfaces: &[Interface],
    choice: &DataPathChoice,
    last: Option<&DataPathAddress>,
    may_change: bool,
) -> Option<DataPathAddress> {
    let on = |address: IpAddr| {
        let holder = theirs(interfaces).find(|i| i.addresses.contains(&address))?;
        Some(DataPathAddress { address, interface: holder.link.name.clone() })
    };
    let any_of = |name: &str| {
        let interface = theirs(interfaces).find(|i| i.link.name == name)?;
        let held = last.map(|l| l.address).filter(|a| interface.addresses.contains(a));
        let fits = |a: &&IpAddr| last.is_none_or(|l| Family::of(l.address) == Family::of(**a));
        let address = held.or_else(|| interface.addresses.iter().find(fits).copied())?;
        Some(DataPathAddress { address, interface: name.to_owned() })
    };
    match choice {
        DataPathChoice::Address(address) => on(*address).or_else(|| {
            let last = last.filter(|_| may_change)?;
            on(last.address).or_else(|| any_of(&last.interface))
        }),
        DataPathChoice::Interface(name) => any_of(name),
    }
}

/// Interfaces that are not this daemon's.
pub fn theirs(interfaces: &[Interface]) -> impl Iterator<Item = &Interface> {
    interfaces.iter().filter(|i| !is_ours(&i.link.name))
}

/// The node's addresses on which published ports are open, with the interfaces that hold them.
pub fn host_addresses(interfaces: &[Interface]) -> BTreeMap<IpAddr, String> {
    let held = theirs(interfaces).flat_map(|i| i.addresses.iter().map(|a| (*a, i.link.name.clone())));
    held.filter(|(a, _)| !a.is_loopback()).collect()
}

/// The interfaces by which clients and other nodes come in: the VTEP's first, then every Ethernet interface that is up
/// and holds an address, or by which a default route or the way to a peer leads (`routed`). `configured` replaces all
/// but the VTEP's.
pub fn uplinks(
    interfaces: &[Interface],
    vtep: &DataPathAddress,
    routed: &BTreeSet<u32>,
    configured: Option<&[String]>,
) -> Vec<Uplink> {
    let takes_part = |i: &&Interface| match configured {
        Some(names) => names.contains(&i.link.name),
        None => i.link.up && (!i.addresses.is_empty() || routed.contains(&i.link.ifindex)),
    };
    let ethernet = || theirs(interfaces).filter(|i| i.link.frames == Frames::Ethernet);
    let (first, others): (Vec<_>, Vec<_>) = ethernet().partition(|i| i.link.name == vtep.interface);
    first.into_iter().chain(others.into_iter().filter(takes_part)).map(Uplink::from).collect()
}

/// Bytes that VXLAN adds on this underlay.
pub fn overhead(vtep: IpAddr) -> u32 {
    if vtep.is_ipv4() { VXLAN_OVERHEAD_V4 } else { VXLAN_OVERHEAD_V6 }
}

/// The MTU of a task's link on `network`, where packets up to `inner_mtu` cross the underlay: the network's own setting is
/// a ceiling. A link with IPv6 has at least [`IPV6_MIN_MTU`], without which it would lose its addresses.
pub fn task_mtu(inner_mtu: u32, network: &Network) -> u32 {
    let mtu = network.mtu.map_or(inner_mtu, |ceiling| inner_mtu.min(ceiling.into()));
    if Family::V6.is_on(network) { mtu.max(IPV6_MIN_MTU) } else { mtu }
}

/// How the node's sockets of each family reach published ports: from the VTEP address, else from another address of the
/// node, else from one that the host link itself holds.
pub fn host_ways(interfaces: &[Interface], vtep: &DataPathAddress, ipv6: bool) -> Vec<HostWay> {
    let beside = theirs(interfaces).filter(|i| i.link.name == vtep.interface);
    let all: Vec<IpAddr> = beside.chain(theirs(interfaces)).flat_map(|i| i.addresses.clone()).collect();
    let way = |family: Family, service: IpAddr, held: IpAddr| {
        let usual = Some(vtep.address).into_iter().chain(all.iter().copied());
        match usual.into_iter().find(|a| Family::of(*a) == family) {
            Some(source) => HostWay { service, source, held: false },
            None => HostWay { service, source: held, held: true },
        }
    };
    let (v4, v6) = (Ipv4Addr::from(HOST_SERVICE_ADDRESS), Ipv6Addr::from(HOST_SERVICE_ADDRESS6));
    let (next4, next6) = (Ipv4Addr::from(u32::from(v4) + 1), Ipv6Addr::from(u128::from(v6) + 1));
    let mut ways = vec![way(Family::V4, v4.into(), next4.into())];
    if ipv6 {
        ways.push(way(Family::V6, v6.into(), next6.into()));
    }
    ways
}

#[cfg(test)]
mod tests;
