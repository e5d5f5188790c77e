//! Hashes of flows. The same on every node and every machine: no seed, one byte order.

use mesh_abi::FlowKey;

use crate::{family::Family, parse::Tuple};

/// Hash of a flow: MurmurHash3's 32-bit mixing over the addresses, ports and protocol.
///
/// The scope is left out: a VNI is the same on every node anyhow.
#[inline(always)]
pub fn flow(key: &FlowKey) -> u32 {
    let mut h = 0u32;
    h = mix(h, word(&key.source, 0));
    h = mix(h, word(&key.source, 4));
    h = mix(h, word(&key.source, 8));
    h = mix(h, word(&key.source, 12));
    h = mix(h, word(&key.destination, 0));
    h = mix(h, word(&key.destination, 4));
    h = mix(h, word(&key.destination, 8));
    h = mix(h, word(&key.destination, 12));
    finish(ports(h, key.source_port, key.destination_port, key.protocol))
}

/// Hash of a client's address alone.
#[inline(always)]
pub fn client(address: &[u8; 16]) -> u32 {
    let h = mix(mix(0, word(address, 0)), word(address, 4));
    finish(mix(mix(h, word(address, 8)), word(address, 12)))
}

/// Hash for the outer UDP source port: spreads flows over paths, nothing depends on its value.
#[inline(always)]
pub fn entropy<F: Family>(t: &Tuple<F>, protocol: u8) -> u32 {
    let h = mix(mix(0, F::digest(&t.source)), F::digest(&t.destination));
    finish(ports(h, t.source_port, t.destination_port, protocol))
}

/// Another number out of a hash.
#[inline(always)]
pub fn again(h: u32) -> u32 {
    finish(mix(h, 0x9e37_79b9))
}

#[inline(always)]
fn ports(h: u32, source: [u8; 2], destination: [u8; 2], protocol: u8) -> u32 {
    let both = u32::from_le_bytes([source[0], source[1], destination[0], destination[1]]);
    mix(mix(h, both), u32::from(protocol))
}

#[inline(always)]
fn word(address: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
}

#[inline(always)]
fn mix(h: u32, k: u32) -> u32 {
    let k = k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (h ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline(always)]
fn finish(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}
