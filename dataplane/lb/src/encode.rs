//! Desired facts as map keys and values.

use std::net::{IpAddr, Ipv6Addr};

use mesh_abi::{
    ANY_V4, ANY_V6, Address, BackendValue, EndpointKey, EndpointValue, HostAddressKey, LocalEndpoint,
    NetworkKey, NetworkValue, NodeConfig, PUBLISHED, PeerKey, PeerValue, ServiceKey, ServiceValue,
    backend_flags, local_flags, network_flags, node_flags, service_flags, v4_of,
};
use mesh_types::{LocalEndpointId, Subnet, Vni};

use crate::desired::{
    Backend, Desired, EndpointEntry, Frontend, LocalEntry, NetworkEntry, PeerEntry, PublishedOn, ServiceEntry,
};

/// An address that may be a mapped IPv4 one, as it is told to people.
pub(crate) fn ip(address: &Address) -> IpAddr {
    Ipv6Addr::from(*address).to_canonical()
}

pub(crate) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn vni(vni: Vni) -> [u8; 4] {
    vni.get().to_be_bytes()
}

/// `addressed`: whether any published port is open at one address only.
pub(crate) fn config(desired: &Desired, addressed: bool) -> NodeConfig {
    let node = &desired.config;
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let flags = flag(node.fast_path, node_flags::FAST_PATH)
        | flag(node.outer_checksum && !node.fast_path, node_flags::OUTER_CHECKSUM)
        | flag(node.vtep.is_ipv6(), node_flags::UNDERLAY_V6)
        | flag(addressed, node_flags::ADDRESSED_PORTS)
        | flag(desired.peers.values().any(|p| p.ifindex.is_some()), node_flags::MANY_UPLINKS);
    NodeConfig {
        netns_cookie: node.netns_cookie,
        flags,
        uplink_ifindex: node.uplink_ifindex,
        vxlan_ifindex: node.vxlan_ifindex,
        host_ifindex: node.host_ifindex,
        inner_mtu: node.inner_mtu,
        vxlan_port: node.vxlan_port.to_be_bytes(),
        vtep: address(node.vtep),
        host_mac: node.host_mac.0,
        ..NodeConfig::default()
    }
}

pub(crate) fn peer(vtep: IpAddr, peer: &PeerEntry) -> (PeerKey, PeerValue) {
    (PeerKey { vtep: address(vtep) }, PeerValue { ifindex: peer.ifindex.unwrap_or(0) })
}

pub(crate) fn host_address(host: IpAddr) -> HostAddressKey {
    HostAddressKey { address: address(host) }
}

pub(crate) fn network_key(id: Vni) -> NetworkKey {
    NetworkKey { vni: vni(id) }
}

/// The VNI of a network's key; none for what is no VNI of a network.
pub(crate) fn vni_of(key: &NetworkKey) -> Option<Vni> {
    Vni::new(u32::from_be_bytes(key.vni)).ok()
}

pub(crate) fn network(id: Vni, network: &NetworkEntry) -> (NetworkKey, NetworkValue) {
    let mut value = NetworkValue::default();
    if network.internal {
        value.flags |= network_flags::INTERNAL;
    }
    if let Some((first, gateway, prefix)) = network.v4.map(parts) {
        (value.subnet4, value.gateway4) = (v4_of(&address(first)), v4_of(&address(gateway)));
        value.prefix4 = prefix;
        value.flags |= network_flags::IPV4;
    }
    if let Some((first, gateway, prefix)) = network.v6.map(parts) {
        (value.subnet6, value.gateway6) = (address(first), address(gateway));
        value.prefix6 = prefix;
        value.flags |= network_flags::IPV6;
    }
    (network_key(id), value)
}

fn parts(subnet: Subnet) -> (IpAddr, IpAddr, u8) {
    (subnet.net().network(), subnet.gateway(), subnet.net().prefix_len())
}

/// `local`: the id of an endpoint of this node, under which it is counted.
pub(crate) fn endpoint(
    at: (Vni, IpAddr),
    endpoint: &EndpointEntry,
    local: Option<LocalEndpointId>,
) -> (EndpointKey, EndpointValue) {
    let value = EndpointValue {
        vtep: address(endpoint.vtep),
        ifindex: endpoint.ifindex.unwrap_or(0),
        mac: endpoint.mac.0,
        local: local.and_then(|id| u16::try_from(id.0).ok()).unwrap_or(0),
    };
    (EndpointKey { vni: vni(at.0), address: address(at.1) }, value)
}

pub(crate) fn local(id: LocalEndpointId, local: &LocalEntry) -> LocalEndpoint {
    LocalEndpoint {
        address6: local.v6.map_or([0; 16], |a| a.octets()),
        egress6: local.egress6.map_or([0; 16], |a| a.octets()),
        address4: local.v4.map_or([0; 4], |a| a.octets()),
        egress4: local.egress4.map_or([0; 4], |a| a.octets()),
        vni: vni(local.vni),
        ifindex: local.ifindex,
        id: id.0,
        flags: if local.served { local_flags::SERVED } else { 0 },
        mac: local.mac.0,
        generation: local.generation.0,
    }
}

pub(crate) fn service(frontend: &Frontend) -> ServiceKey {
    match *frontend {
        Frontend::Vip { vni: id, address: vip } => {
            ServiceKey { vni: vni(id), address: address(vip), ..ServiceKey::default() }
        }
        Frontend::Published { on, port, protocol } => ServiceKey {
            vni: PUBLISHED,
            address: match on {
                PublishedOn::AnyV4 => ANY_V4,
                PublishedOn::AnyV6 => ANY_V6,
                PublishedOn::Address(one) => address(one),
            },
            port: port.to_be_bytes(),
            protocol: protocol.number(),
            ..ServiceKey::default()
        },
    }
}

/// A service whose table is the region at `base`, and that is counted at `counter`.
pub(crate) fn service_value(
    number: u32,
    entry: &ServiceEntry,
    (base, len): (u32, u32),
    counter: u16,
) -> ServiceValue {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    ServiceValue {
        table_base: base,
        table_len: len,
        number,
        target_port: entry.target_port.unwrap_or(0).to_be_bytes(),
        flags: flag(entry.affinity.is_some(), service_flags::AFFINITY)
            | flag(entry.direct, service_flags::DIRECT),
        ..ServiceValue::default()
    }
    .with(entry.affinity.map_or(0, |a| a.timeout_secs), counter)
}

pub(crate) fn backend(backend: &Backend) -> BackendValue {
    BackendValue {
        vtep: address(backend.vtep),
        address: address(backend.address),
        vni: vni(backend.vni),
        endpoint: backend.endpoint.0,
        ifindex: backend.ifindex.unwrap_or(0),
        flags: if backend.draining { backend_flags::DRAINING } else { 0 },
        generation: backend.generation.0,
        ..BackendValue::default()
    }
}
