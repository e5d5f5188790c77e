//! Desired facts as map keys and values.

use std::net::IpAddr;

use mesh_abi::{
    ANY_ADDRESS, Address, BackendValue, EndpointKey, EndpointValue, HostAddressKey, LocalEndpoint,
    NetworkKey, NetworkValue, NodeConfig, PUBLISHED, PeerKey, ServiceKey, backend_flags, network_flags,
    node_flags,
};
use mesh_types::{LocalEndpointId, Vni};

use crate::desired::{Backend, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NodeSettings};

pub(crate) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn vni(vni: Vni) -> [u8; 4] {
    vni.get().to_be_bytes()
}

pub(crate) fn config(node: &NodeSettings) -> NodeConfig {
    NodeConfig {
        netns_cookie: node.netns_cookie,
        flags: if node.fast_path { node_flags::FAST_PATH } else { 0 },
        uplink_ifindex: node.uplink_ifindex,
        vxlan_ifindex: node.vxlan_ifindex,
        host_ifindex: node.host_ifindex,
        inner_mtu: node.inner_mtu,
        vxlan_port: node.vxlan_port.to_be_bytes(),
        vtep: address(node.vtep.into()),
        host_mac: node.host_mac.0,
        ..NodeConfig::default()
    }
}

pub(crate) fn peer(vtep: IpAddr) -> PeerKey {
    PeerKey { vtep: address(vtep) }
}

pub(crate) fn host_address(host: IpAddr) -> HostAddressKey {
    HostAddressKey { address: address(host) }
}

pub(crate) fn network(id: Vni, network: &NetworkEntry) -> (NetworkKey, NetworkValue) {
    let net = network.subnet.net();
    let mapped_bits = if net.addr().is_ipv4() { 96 } else { 0 };
    let value = NetworkValue {
        subnet: address(net.network()),
        gateway: address(network.subnet.gateway()),
        prefix_len: net.prefix_len() + mapped_bits,
        flags: if network.internal { network_flags::INTERNAL } else { 0 },
        ..NetworkValue::default()
    };
    (NetworkKey { vni: vni(id) }, value)
}

pub(crate) fn endpoint(at: (Vni, IpAddr), endpoint: &EndpointEntry) -> (EndpointKey, EndpointValue) {
    let value = EndpointValue {
        vtep: address(endpoint.vtep),
        ifindex: endpoint.ifindex.unwrap_or(0),
        mac: endpoint.mac.0,
        ..EndpointValue::default()
    };
    (EndpointKey { vni: vni(at.0), address: address(at.1) }, value)
}

pub(crate) fn local(id: LocalEndpointId, local: &LocalEntry) -> LocalEndpoint {
    LocalEndpoint {
        address: address(local.address),
        vni: vni(local.vni),
        ifindex: local.ifindex,
        id: id.0,
        egress: local.egress.map_or([0; 4], |a| a.octets()),
        mac: local.mac.0,
        generation: local.generation.0,
    }
}

pub(crate) fn service(frontend: &Frontend) -> ServiceKey {
    match *frontend {
        Frontend::Vip { vni: id, address: vip } => {
            ServiceKey { vni: vni(id), address: address(vip), ..ServiceKey::default() }
        }
        Frontend::Published { port, protocol } => ServiceKey {
            vni: PUBLISHED,
            address: ANY_ADDRESS,
            port: port.to_be_bytes(),
            protocol: protocol.number(),
            ..ServiceKey::default()
        },
    }
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
