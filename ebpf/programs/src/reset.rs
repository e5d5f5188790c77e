//! TCP connections whose task is gone: the sender of a packet is answered with a reset (RFC 9293, section 3.5.2), which is
//! made of that very packet.

use aya_ebpf::helpers::generated::{bpf_l4_csum_replace, bpf_skb_change_tail};
use mesh_abi::{Counter, DropReason};

use crate::{
    family::Family,
    header::Tcp,
    parse::{ACK, FIN, Frame, Packet, RST, SYN, TCP},
    skb::Skb,
    verdict::{self, count},
};

/// Bytes of a TCP header without options.
const HEADER: u32 = 20;
/// Offset of the checksum in it.
const CHECKSUM: u32 = 16;
const TTL: u8 = 64;

/// The packet is a reset now.
pub const TURNED: u64 = 0;
/// There is no answer to it.
pub const NOTHING: u64 = u64::MAX;

/// Turns a packet into a reset for `to`, which is its sender or what stands for it here, from whom the packet was for: one
/// of the constants, or another number when the kernel refused. Resets, and what is no whole TCP segment, have no answer.
/// The Ethernet addresses stay.
#[inline(always)]
pub fn turn<F: Family>(skb: Skb, packet: &Packet<F>, to: &F::Address) -> u64 {
    if packet.protocol != TCP
        || packet.flags & RST != 0
        || packet.fragment
        || packet.l4.wrapping_sub(packet.l3) != F::HEADER
    {
        return NOTHING;
    }
    verdict::code(make(skb, packet, to))
}

#[inline(always)]
fn make<F: Family>(skb: Skb, packet: &Packet<F>, to: &F::Address) -> Result<(), DropReason> {
    let (l3, l4) = (packet.l3 & 0xffff, packet.l4 & 0xffff);
    let asked: Tcp = skb.load(l4)?;
    let tcp = answer(&asked, packet);
    // SAFETY: plain helper call; no pointer into the packet is kept anywhere.
    if unsafe { bpf_skb_change_tail(skb.raw(), l4 + HEADER, 0) } != 0 {
        return Err(DropReason::HelperFailed);
    }
    let from = &packet.tuple.destination;
    // A packet that the kernel or a device is still to sum up carries the sum of the pseudo header in place of the
    // checksum. That is written first; the helper then changes it to the whole checksum in any other packet.
    let pseudo = sum::<F>(from) + sum::<F>(to) + u64::from(word([0, TCP, 0, HEADER as u8]));
    let whole = tcp.iter().fold(pseudo, |sum, word| sum + u64::from(*word));
    let (pseudo, whole) = (fold(pseudo), fold(whole));
    let [a, b, c, d, _] = tcp;
    skb.store(l4, &[a, b, c, d, u32::from(pseudo)])?;
    if F::V6 {
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (words::<F>(from), words::<F>(to));
        let first = [word([0x60, 0, 0, 0]), word([0, HEADER as u8, TCP, TTL])];
        skb.store(l3, &[first[0], first[1], s0, s1, s2, s3, d0, d1, d2, d3])?;
    } else {
        let (s, d) = (words::<F>(from)[3], words::<F>(to)[3]);
        let first = [word([0x45, 0, 0, 2 * HEADER as u8]), word([0, 0, 0x40, 0]), word([TTL, TCP, 0, 0])];
        let sum = first.iter().fold(u64::from(s) + u64::from(d), |sum, word| sum + u64::from(*word));
        let checksum = u32::from(!fold(sum)) << 16;
        skb.store(l3, &[first[0], first[1], first[2] | checksum, s, d])?;
    }
    let (from, to) = (u64::from(!pseudo), u64::from(whole));
    // SAFETY: plain helper call.
    if unsafe { bpf_l4_csum_replace(skb.raw(), l4 + CHECKSUM, from, to, 2) } != 0 {
        return Err(DropReason::HelperFailed);
    }
    count(Counter::Reset);
    Ok(())
}

/// The header of the reset that answers a segment, with a checksum of zero.
#[inline(always)]
fn answer<F: Family>(asked: &Tcp, packet: &Packet<F>) -> [u32; 5] {
    let (f, t) = (asked.destination_port, asked.source_port);
    let ports = word([f[0], f[1], t[0], t[1]]);
    if packet.flags & ACK != 0 {
        return [ports, word(asked.acknowledgement), 0, word([0x50, RST, 0, 0]), 0];
    }
    let control = u32::from(packet.flags & SYN != 0) + u32::from(packet.flags & FIN != 0);
    let len = packet.total_len.wrapping_sub(packet.header_len).wrapping_add(control);
    let next = u32::from_be_bytes(asked.sequence).wrapping_add(len);
    [ports, 0, next.to_be(), word([0x50, RST | ACK, 0, 0]), 0]
}

/// An address by words; an IPv4 address is the last one.
#[inline(always)]
fn words<F: Family>(address: &F::Address) -> [u32; 4] {
    let mapped = F::mapped(address);
    // SAFETY: the same size, and every pattern of bits is a value.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(mapped) }
}

/// What an address adds to a checksum's sum (RFC 1071).
#[inline(always)]
fn sum<F: Family>(address: &F::Address) -> u64 {
    let [a, b, c, d] = words::<F>(address).map(u64::from);
    if F::V6 { a + b + c + d } else { d }
}

#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Bytes as they lie in memory.
#[inline(always)]
fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}
