//! Neighbour discovery (RFC 4861) answered from the tables, as ARP is: the packet is turned round in place.

use mesh_abi::{Counter, DropReason, GATEWAY_MAC, LocalEndpoint};

use crate::{
    deliver,
    family::{Family, V6},
    header::{Advertisement, Ethernet, Ipv6},
    parse::{ETHERTYPE_IPV6, Frame, Packet},
    skb::{self, ETHERNET, Skb},
    verdict::{Outcome, Verdict, count, pack},
};

/// ICMPv6 types of multicast listener discovery (RFC 2710, RFC 3810).
const LISTENER: core::ops::RangeInclusive<u8> = 130..=132;
const LISTENER_REPORT: u8 = 143;
/// Router solicitation to redirect (RFC 4861, section 4).
const DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Solicited, and in place of what was known.
const FLAGS: u8 = 0x60;
/// The neighbour is a router.
const ROUTER: u8 = 0x80;
/// Option: the target's Ethernet address, in one unit of eight bytes.
const TARGET_ADDRESS: [u8; 2] = [2, 1];
/// What no packet has that a router passed on (RFC 4861, section 7.1).
const HOP_LIMIT: u8 = 255;
/// The gateway's link-local address, the same in every network.
const GATEWAY: [u32; 4] = [u32::from_ne_bytes([0xfe, 0x80, 0, 0]), 0, 0, u32::from_ne_bytes([0, 0, 0, 1])];

/// Bytes from the IP header to the end of an advertisement.
const LEN: u32 = V6::HEADER + size_of::<Advertisement>() as u32;

/// Whether a packet is between neighbours: no router passes it on.
#[inline(always)]
pub fn is_neighbourly<F: Family>(packet: &Packet<F>) -> bool {
    packet.protocol == F::ICMP
        && (DISCOVERY.contains(&packet.icmp_type)
            || LISTENER.contains(&packet.icmp_type)
            || packet.icmp_type == LISTENER_REPORT)
}

/// Answers what a task asks; all else between neighbours ends here. Called for IPv6 alone.
#[inline(never)]
pub fn answer<F: Family>(skb: Skb, task: &LocalEndpoint, packet: &Packet<F>) -> u64 {
    pack(turned(skb, task, packet))
}

#[inline(always)]
fn turned<F: Family>(skb: Skb, task: &LocalEndpoint, packet: &Packet<F>) -> Outcome {
    let source = V6::of(&F::mapped(&packet.tuple.source));
    let own = V6::same(&source, &V6::local(task)) || V6::is_link_local(&source);
    // Duplicate address detection (RFC 4862, section 5.4) has no source yet. It needs no answer: addresses are leased.
    if V6::same(&source, &V6::UNSPECIFIED) {
        return Ok(Verdict::Consume);
    }
    if !own {
        return Err(DropReason::SpoofedSource);
    }
    if packet.icmp_type != SOLICITATION || packet.fragment {
        return Ok(Verdict::Consume);
    }
    let ip: Ipv6 = skb.load(ETHERNET)?;
    let asked: [u32; 4] = skb.load(packet.l4 + 8)?;
    if ip.hop_limit != HOP_LIMIT || packet.l4 != ETHERNET + V6::HEADER || V6::is_multicast(&asked) {
        return Err(DropReason::Malformed);
    }
    if V6::same(&asked, &V6::local(task)) {
        return Ok(Verdict::Consume);
    }
    let (mac, router) = owner(task, &asked)?;
    if skb.len() != ETHERNET + LEN {
        skb.resize(ETHERNET + LEN)?;
    }
    let header = Ipv6 {
        version: 0x60,
        flow: [0; 3],
        payload_len: [0, size_of::<Advertisement>() as u8],
        next_header: V6::ICMP,
        hop_limit: HOP_LIMIT,
        source: asked,
        destination: source,
    };
    let mut body = Advertisement {
        kind: ADVERTISEMENT,
        code: 0,
        checksum: [0; 2],
        flags: [FLAGS | router, 0, 0, 0],
        target: asked,
        option: TARGET_ADDRESS,
        mac,
    };
    body.checksum = skb::checksum6(&asked, &source, &body);
    skb.store(0, &Ethernet { to: task.mac, from: mac, kind: ETHERTYPE_IPV6 })?;
    skb.store_summed(ETHERNET, &header)?;
    skb.store_summed(ETHERNET + V6::HEADER, &body)?;
    skb.for_this_host()?;
    count(Counter::NeighbourAnswered);
    Ok(Verdict::Task(task.ifindex))
}

/// The Ethernet address that stands for an address of the task's network, and the flag of a router.
#[inline(always)]
fn owner(task: &LocalEndpoint, asked: &[u32; 4]) -> Result<([u8; 6], u8), DropReason> {
    if let Some(endpoint) = deliver::endpoint::<V6>(task.vni, asked) {
        return Ok((endpoint.mac, 0));
    }
    let network = deliver::network(task.vni)?;
    let is_gateway = V6::same(asked, &GATEWAY)
        || V6::same(asked, &V6::gateway(network)) && !V6::same(asked, &V6::UNSPECIFIED);
    if is_gateway {
        return Ok((GATEWAY_MAC, ROUTER));
    }
    if deliver::vip::<V6>(task.vni, asked).is_some() {
        Ok((GATEWAY_MAC, 0))
    } else {
        Err(DropReason::NoEndpoint)
    }
}
