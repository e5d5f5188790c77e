//! What nodes, networks and tasks are called: numbers, to be read in a report.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use mesh_gossip::Announcement;
use mesh_types::{
    Endpoint, EndpointState, Generation, Health, LocalEndpointId, Mac, Name, NetworkId, NodeId, TaskId,
};

/// A node's number, from 0.
pub type Number = u32;

/// The node of that number.
pub fn node(n: Number) -> NodeId {
    NodeId::from_u128(u128::from(n) + 1)
}

/// The number of a node.
pub fn number(node: NodeId) -> Number {
    node.as_u128().saturating_sub(1) as Number
}

/// The network of that number.
pub fn network(n: u32) -> NetworkId {
    NetworkId::from_u128(u128::from(n) + 1)
}

fn at(first: u8, n: Number, port: u16) -> SocketAddr {
    let [_, b, c, d] = (n + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(first, b, c, d), port))
}

/// Where a node gossips.
pub fn addr(n: Number) -> SocketAddr {
    at(10, n, 7946)
}

/// Where its data path is asked.
pub fn data_path(n: Number) -> SocketAddr {
    at(11, n, 4789)
}

/// Whose address that is, of either kind.
pub fn owner(addr: SocketAddr) -> Option<Number> {
    let IpAddr::V4(ip) = addr.ip() else { return None };
    let [_, b, c, d] = ip.octets();
    u32::from_be_bytes([0, b, c, d]).checked_sub(1)
}

/// An endpoint of `owner` on the network numbered `scope`, as a real one would be: some 90 bytes on the wire.
pub fn endpoint(owner: Number, scope: u32, task: u64) -> Result<Announcement> {
    let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | (task as u32 & 0x00ff_ffff)));
    // Ids of tasks are random in life: they fill their sixteen bytes.
    let id = u128::from(task + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let endpoint = Endpoint {
        network: network(scope),
        node: node(owner),
        task: TaskId::from_u128(id),
        name: Name::new(format!("task{task}")).with_context(|| format!("task{task}"))?,
        service: None,
        addresses: vec![ip],
        mac: Mac::of_address(ip),
        local_id: LocalEndpointId(task as u32),
        generation: Generation(1),
        aliases: Vec::new(),
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    };
    Ok(Announcement { scope: network(scope), endpoint })
}
