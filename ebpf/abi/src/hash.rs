//! The hash of flows. The same on every node and every machine: no seed, one byte order.
//!
//! Each word of what is hashed is multiplied by a number of its own and the products are added, so that they do not wait
//! for one another; the end of MurmurHash3's 64-bit variant then lets every bit depend on every other.

use crate::FlowKey;

/// Odd numbers without a pattern: digits of pi, as Blowfish begins with.
const FACTORS: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// Hash of a flow: its addresses, ports and protocol. The scope is left out: a VNI is the same on every node anyhow.
#[inline(always)]
pub fn flow_hash(key: &FlowKey) -> u32 {
    let (s, d) = (&key.source, &key.destination);
    let sum = times(0, double(s, 0)).wrapping_add(times(1, double(s, 8)));
    let sum = sum.wrapping_add(times(2, double(d, 0))).wrapping_add(times(3, double(d, 8)));
    finish(sum.wrapping_add(times(4, ports(key.source_port, key.destination_port, key.protocol))))
}

/// One word of what is hashed.
#[inline(always)]
pub fn times(index: usize, word: u64) -> u64 {
    // Zeros and small numbers, of which there are many, count as much as others.
    (word ^ FACTORS[(index + 1) % FACTORS.len()]).wrapping_mul(FACTORS[index])
}

/// Ports and protocol as a word.
#[inline(always)]
pub fn ports(source: [u8; 2], destination: [u8; 2], protocol: u8) -> u64 {
    let ([a, b], [c, d]) = (source, destination);
    u64::from_le_bytes([a, b, c, d, protocol, 0, 0, 0])
}

/// Half of an address as a word.
#[inline(always)]
pub fn double(address: &[u8; 16], at: usize) -> u64 {
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]]))
    };
    word(at) | word(at + 4) << 32
}

/// The hash for the sum of the words.
#[inline(always)]
pub fn finish(mut h: u64) -> u32 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (h >> 32) as u32
}
