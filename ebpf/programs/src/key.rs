//! Map keys, put together word by word.
//!
//! Runs of constant zeros become calls of `memset`, a byte loop that the verifier walks through again and again; zeros
//! whose value the compiler cannot see become plain stores.

use mesh_abi::{
    Address, EndpointKey, FlowKey, HostAddressKey, LocalEndpoint, NetworkKey, PUBLISHED, PeerKey, ServiceKey,
};

use crate::parse::Packet;

/// Zero, unknown to the compiler.
#[inline(always)]
pub fn zero() -> u32 {
    let zero = 0;
    // SAFETY: a local variable.
    unsafe { core::ptr::read_volatile(&raw const zero) }
}

/// The mapped form of an IPv4 address, as [`mesh_abi::v4_mapped`] makes it.
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> Address {
    bytes([zero(), zero(), u32::from_ne_bytes([0, 0, 0xff, 0xff]), u32::from_ne_bytes(address)])
}

/// An address from its words.
#[inline(always)]
pub fn bytes(words: [u32; 4]) -> Address {
    // SAFETY: the same size, and every pattern of bits is an address.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}

/// The words of an address that is aligned to four: within a map's key or value, or made here.
#[inline(always)]
pub fn words(a: &Address) -> [u32; 4] {
    [
        u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
    ]
}

#[inline(always)]
pub fn endpoint(vni: [u8; 4], address: [u8; 4]) -> EndpointKey {
    EndpointKey { vni, address: mapped(address) }
}

#[inline(always)]
pub fn network(vni: [u8; 4]) -> NetworkKey {
    NetworkKey { vni }
}

#[inline(always)]
pub fn peer(vtep: [u8; 4]) -> PeerKey {
    PeerKey { vtep: mapped(vtep) }
}

#[inline(always)]
pub fn host_address(address: [u8; 4]) -> HostAddressKey {
    HostAddressKey { address: mapped(address) }
}

/// Every port of a VIP.
#[inline(always)]
pub fn vip(vni: [u8; 4], address: [u8; 4]) -> ServiceKey {
    ServiceKey { vni, address: mapped(address), port: [0; 2], protocol: 0, reserved: 0 }
}

/// A published port, at any IPv4 address.
#[inline(always)]
pub fn published(port: [u8; 2], protocol: u8) -> ServiceKey {
    let any = zero().to_ne_bytes();
    ServiceKey { vni: any, address: mapped(any), port, protocol, reserved: 0 }
}

/// The flow that a packet belongs to as it looks now.
#[inline(always)]
pub fn flow(packet: &Packet, scope: [u8; 4]) -> FlowKey {
    let t = &packet.tuple;
    flow_of(
        (mapped(t.source), mapped(t.destination)),
        scope,
        (t.source_port, t.destination_port),
        packet.protocol,
    )
}

/// The flow to a published port that a packet, translated already, answers.
#[inline(always)]
pub fn asked(packet: &Packet) -> FlowKey {
    let t = &packet.tuple;
    flow_of(
        (mapped(t.destination), mapped(t.source)),
        PUBLISHED,
        (t.destination_port, t.source_port),
        packet.protocol,
    )
}

/// A flow's key. Written by whole words, as its hash reads it: a processor waits for a word that was written in parts.
#[inline(always)]
pub fn flow_of(
    (source, destination): (Address, Address),
    scope: [u8; 4],
    (source_port, destination_port): ([u8; 2], [u8; 2]),
    protocol: u8,
) -> FlowKey {
    let ([a, b, c, d], [e, f, g, h]) = (words(&source), words(&destination));
    let ports =
        u32::from_ne_bytes([source_port[0], source_port[1], destination_port[0], destination_port[1]]);
    let last = u32::from_ne_bytes([protocol, 0, 0, 0]);
    let words = [a, b, c, d, e, f, g, h, u32::from_ne_bytes(scope), ports, last];
    // SAFETY: the same size, and every pattern of bits is a key.
    unsafe { core::mem::transmute::<[u32; 11], FlowKey>(words) }
}

/// The flow of a task's replies to a client.
#[inline(always)]
pub fn reply(task: &LocalEndpoint, port: [u8; 2], client: ([u8; 4], [u8; 2]), protocol: u8) -> FlowKey {
    FlowKey {
        source: mapped(task.address4),
        destination: mapped(client.0),
        scope: task.vni,
        source_port: port,
        destination_port: client.1,
        protocol,
        reserved: [0; 3],
    }
}
