//! Another node's question whether this node's data path works, which it asks when this node's daemon is silent: the packet
//! goes back as it is, to its sender. So nothing is said that was not known, no more than was asked, and nothing is kept.

use mesh_abi::{DropReason, NodeConfig, QUESTION, QUESTION_LEN};

use crate::{
    decap::{Arrival, inner_offset},
    family::{Family, V4, V6},
    key,
    maps::PEERS,
    parse::{Frame, Packet},
    skb::{ETHERNET, Skb},
    verdict::{self, Outcome, Verdict},
};

const UDP_HEADER: u32 = 8;
const BEGINNING: u64 = u64::from_ne_bytes(QUESTION);

/// Whether a packet to the VXLAN port is a question. The kernel's VXLAN device would throw it away.
#[inline(always)]
pub fn is_question<F: Family>(skb: Skb, packet: &Packet<F>) -> bool {
    packet.l4 == ETHERNET + F::HEADER && skb.load(packet.l4 + UDP_HEADER) == Ok(BEGINNING)
}

/// Sends back a packet to the VXLAN port, without outer options, that is no VXLAN packet: if it is a question, and a peer's.
#[inline(always)]
pub fn answer(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Outcome {
    if arrival.inner == inner_offset::<V6>() {
        verdict::ok(turned::<V6>(skb, node, arrival))?;
    } else {
        verdict::ok(turned::<V4>(skb, node, arrival))?;
    }
    Ok(Verdict::Out(skb.ifindex()))
}

#[inline(never)]
fn turned<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> u64 {
    verdict::code(turn::<F>(skb, node, arrival))
}

/// Swaps addresses and ports, which changes no checksum.
#[inline(always)]
fn turn<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Result<(), DropReason> {
    let udp = ETHERNET + F::HEADER;
    let [a, b, c, d, len, more, ..]: [u8; 8] = skb.load(udp)?;
    let beginning: u64 = skb.load(udp + UDP_HEADER)?;
    // Of two nodes that asked from the VXLAN port itself, each would take the other's answer for a question, for ever.
    let from_port = [a, b] != node.vxlan_port;
    // One that is longer asks for the path's MTU as well.
    let whole = u32::from(u16::from_be_bytes([len, more])) >= UDP_HEADER + QUESTION_LEN;
    if beginning != BEGINNING || !from_port || !whole {
        return Err(DropReason::Malformed);
    }
    // SAFETY: values of maps without preallocation stay as they were until the program ends.
    if unsafe { PEERS.get(key::peer(key::bytes(key::words(&arrival.sender)))) }.is_none() {
        return Err(DropReason::UnknownSender);
    }
    let source = ETHERNET + F::SOURCE;
    skb.store(source, &F::of(&node.vtep))?;
    skb.store(source + size_of::<F::Address>() as u32, &F::of(&arrival.sender))?;
    skb.store(udp, &[c, d, a, b])
}
