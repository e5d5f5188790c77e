//! Packets larger than the underlay carries: their sender is told how large they may be (RFC 1191, RFC 8201), by a message
//! that is made of the packet itself.

use mesh_abi::{Counter, DropReason, GATEWAY_MAC, LocalEndpoint, NodeConfig};

use crate::{
    deliver, encap,
    family::Family,
    header::{Header, Icmp, Ipv4, Ipv6, Macs},
    icmp_error,
    parse::{Frame, Packet, TCP, UDP},
    skb::{self, ETHERNET, Skb},
    translate::translate,
    verdict::{self, Outcome, Verdict, count},
};

/// Bytes of the transport header and after it that are quoted: TCP's ports, numbers and checksum are within.
const QUOTED: u32 = 28;
/// Precedence of network control, as routers give their messages (RFC 1812, section 4.3.2.5).
const TOS: u8 = 0xc0;
const TTL: u8 = 64;

/// Tells a task: its gateway speaks.
#[inline(always)]
pub fn tell_task<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    task: &LocalEndpoint,
    packet: &mut Packet<F>,
) -> Outcome {
    if !F::same(&packet.tuple.source, &F::local(task)) {
        // Translated already. The task knows the packet as it was.
        let before = packet.before;
        translate(skb, packet, &before)?;
    }
    packet.before.source = F::gateway(deliver::network(task.vni)?);
    verdict::ok(turned(skb, node, packet))?;
    deliver::into_task(skb, task)
}

/// Tells the client of a published port, by the interface by which it came: the address that it spoke to speaks.
#[inline(always)]
pub fn tell_client<F: Family>(skb: Skb, node: &NodeConfig, packet: &mut Packet<F>) -> Outcome {
    packet.before.source = packet.tuple.destination;
    verdict::ok(turned(skb, node, packet))?;
    Ok(Verdict::Out(skb.ifindex()))
}

/// Tells a socket of the node, in the same way.
#[inline(always)]
pub fn tell_socket<F: Family>(skb: Skb, node: &NodeConfig, packet: &mut Packet<F>) -> Outcome {
    packet.before.source = packet.tuple.destination;
    verdict::ok(turned(skb, node, packet))?;
    skb.store(0, &Macs { to: node.host_mac, from: GATEWAY_MAC })?;
    Ok(Verdict::Host(node.host_ifindex))
}

#[inline(never)]
fn turned<F: Family>(skb: Skb, node: &NodeConfig, packet: &Packet<F>) -> u64 {
    // About errors and later fragments there is no error (RFC 1122, section 3.2.2), and none helps when all segments fit
    // that still are one packet, but that one with outer headers would be longer than their length fields can say.
    if icmp_error::is_error(packet) || packet.later_fragment || encap::fits(skb, node, packet) {
        return verdict::code(Err(DropReason::TooBig));
    }
    verdict::code(turn(skb, node, packet).map(|()| count(Counter::TooBigAnswered)))
}

#[inline(always)]
fn turn<F: Family>(skb: Skb, node: &NodeConfig, packet: &Packet<F>) -> Result<(), DropReason> {
    let partial = has_partial_checksum(skb, packet)?;
    let quoted = F::HEADER + QUOTED;
    skb.resize(ETHERNET + quoted).map_err(|_| DropReason::TooBig)?;
    if partial {
        settle_checksum(skb, packet)?;
    }
    skb.adjust_room((F::HEADER + size_of::<Icmp>() as u32) as i32, 0)?;
    if F::V6 { header6(skb, node, packet, quoted as u16) } else { header4(skb, node, packet, quoted as u16) }
}

#[inline(always)]
fn header4<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &Packet<F>,
    quoted: u16,
) -> Result<(), DropReason> {
    let mtu = (node.inner_mtu as u16).to_be_bytes();
    let mut icmp = Icmp { kind: 3, code: 4, checksum: [0; 2], identifier: [0; 2], sequence: mtu };
    let sum = skb::difference::<(), _>(None, &icmp, sum_of_quote::<F, [u32; 12]>(skb)?);
    icmp.checksum = skb::folded(sum);
    let mut ip = Ipv4 {
        version_and_len: 0x45,
        tos: TOS,
        total_len: (quoted + 28).to_be_bytes(),
        id: [0; 2],
        fragment: [0x40, 0],
        ttl: TTL,
        protocol: F::ICMP,
        checksum: [0; 2],
        source: F::digest(&packet.before.source).to_le_bytes(),
        destination: F::digest(&packet.tuple.source).to_le_bytes(),
    };
    ip.checksum = skb::folded(skb::difference::<(), _>(None, &ip, 0));
    skb.store_summed(ETHERNET, &ip)?;
    skb.store_summed(ETHERNET + F::HEADER, &icmp)
}

#[inline(always)]
fn header6<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &Packet<F>,
    quoted: u16,
) -> Result<(), DropReason> {
    use crate::family::V6;
    let [a, b, c, d] = node.inner_mtu.to_be_bytes();
    let mut icmp = Icmp { kind: 2, code: 0, checksum: [0; 2], identifier: [a, b], sequence: [c, d] };
    let (source, destination) =
        (V6::of(&F::mapped(&packet.before.source)), V6::of(&F::mapped(&packet.tuple.source)));
    let sum = sum_of_quote::<F, [u32; 17]>(skb)?;
    icmp.checksum = skb::checksum6_on(&source, &destination, &icmp, (u32::from(quoted) + 8, sum));
    let ip = Ipv6 {
        version: 0x60,
        flow: [0; 3],
        payload_len: (quoted + 8).to_be_bytes(),
        next_header: F::ICMP,
        hop_limit: TTL,
        source,
        destination,
    };
    skb.store_summed(ETHERNET, &ip)?;
    skb.store_summed(ETHERNET + F::HEADER, &icmp)
}

/// The sum over the quoted packet, which is as long as `T`.
#[inline(always)]
fn sum_of_quote<F: Family, T: Header>(skb: Skb) -> Result<u32, DropReason> {
    let quote: T = skb.load(ETHERNET + F::HEADER + size_of::<Icmp>() as u32)?;
    Ok(skb::difference::<(), _>(None, &quote, 0))
}

/// Where the transport header's checksum is.
#[inline(always)]
fn checksum_at<F: Family>(packet: &Packet<F>) -> Option<u32> {
    match packet.protocol {
        TCP => Some(packet.l4 + 16),
        UDP => Some(packet.l4 + 6),
        _ => None,
    }
}

/// Whether the packet's transport checksum is still to be filled in. The kernel does not say: but then the helper that
/// corrects checksums leaves it alone.
#[inline(always)]
fn has_partial_checksum<F: Family>(skb: Skb, packet: &Packet<F>) -> Result<bool, DropReason> {
    let Some(at) = checksum_at(packet) else { return Ok(false) };
    let before: [u8; 2] = skb.load(at)?;
    skb.fix_checksum(at, [0; 2], [1, 0], false)?;
    let after: [u8; 2] = skb.load(at)?;
    if before == after {
        return Ok(true);
    }
    skb.store(at, &before)?;
    Ok(false)
}

/// Writes a checksum that makes no difference: a NIC that fills in the quoted packet's checksum later must not make that of
/// the message wrong.
///
/// Filling in replaces the field `p` by the complement of the sum `r + p` over the rest and itself, so that the whole is
/// `-p` afterwards and `r + p` before (all modulo 65535). Both are the same for `p = -r / 2`.
#[inline(always)]
fn settle_checksum<F: Family>(skb: Skb, packet: &Packet<F>) -> Result<(), DropReason> {
    let Some(at) = checksum_at(packet) else { return Ok(()) };
    if packet.l4 != ETHERNET + F::HEADER {
        return Err(DropReason::TooBig);
    }
    skb.store(at, &[0u8; 2])?;
    let rest: [u32; 7] = skb.load(packet.l4)?;
    let [a, b] = skb::folded(skb::difference::<(), _>(None, &rest, 0));
    // The complement of the sum: its negative. 32768 is the inverse of two.
    let half = u32::from(u16::from_ne_bytes([a, b])) * 32768 % 65535;
    skb.store(at, &(half as u16).to_ne_bytes())
}
