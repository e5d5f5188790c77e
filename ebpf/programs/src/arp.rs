//! ARP (RFC 826) answered from the tables: the packet is turned round in place.

use mesh_abi::{Counter, DropReason, GATEWAY_MAC, LocalEndpoint};

use crate::{
    deliver,
    family::V4,
    header::{Arp, Ethernet},
    parse::{ETHERTYPE_ARP, Frame},
    skb::{ETHERNET, Skb},
    verdict::{Outcome, Verdict, count, pack, unpack},
};

/// Ethernet, IPv4, their address lengths.
const TYPES: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// Answers what a task asks.
#[inline(always)]
pub fn answer(skb: Skb, task: &LocalEndpoint) -> Outcome {
    unpack(turned(skb, task))
}

#[inline(never)]
fn turned(skb: Skb, task: &LocalEndpoint) -> u64 {
    pack(turn(skb, task))
}

#[inline(always)]
fn turn(skb: Skb, task: &LocalEndpoint) -> Outcome {
    let arp: Arp = skb.load(ETHERNET)?;
    if arp.types != TYPES {
        return Err(DropReason::Malformed);
    }
    let own = task.address4;
    if arp.sender_mac != task.mac || (arp.sender != own && arp.sender != [0; 4]) {
        return Err(DropReason::SpoofedSource);
    }
    // Probes and announcements (RFC 5227) need no answer: addresses are leased, not found out.
    if arp.operation != REQUEST || arp.sender != own || arp.target == own {
        return Ok(Verdict::Consume);
    }
    let mac = owner(task.vni, arp.target).ok_or(DropReason::NoEndpoint)?;
    skb.store(0, &Ethernet { to: task.mac, from: mac, kind: ETHERTYPE_ARP })?;
    let reply = Arp {
        types: TYPES,
        operation: REPLY,
        sender_mac: mac,
        sender: arp.target,
        target_mac: task.mac,
        target: own,
    };
    skb.store(ETHERNET, &reply)?;
    skb.for_this_host()?;
    count(Counter::ArpAnswered);
    Ok(Verdict::Task(task.ifindex))
}

/// The Ethernet address that stands for an address of a network.
#[inline(always)]
fn owner(vni: [u8; 4], target: [u8; 4]) -> Option<[u8; 6]> {
    if let Some(endpoint) = deliver::endpoint::<V4>(vni, &target) {
        return Some(endpoint.mac);
    }
    let gateway = deliver::network(vni).is_ok_and(|n| n.gateway4 == target);
    if gateway || deliver::vip::<V4>(vni, &target).is_some() { Some(GATEWAY_MAC) } else { None }
}
