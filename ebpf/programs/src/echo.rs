//! Answers to a ping (RFC 792, RFC 4443) of an address that only the data path has: a gateway's, or a VIP.

use mesh_abi::{DropReason, LocalEndpoint};

use crate::{
    deliver,
    family::Family,
    parse::Packet,
    skb::Skb,
    verdict::{Outcome, pack, unpack},
};

const TYPE: u32 = 0;
const CHECKSUM: u32 = 2;

/// Whether a packet is a ping.
#[inline(always)]
pub fn is_request<F: Family>(packet: &Packet<F>) -> bool {
    packet.protocol == F::ICMP && packet.icmp_type == F::ECHO_REQUEST && !packet.fragment
}

/// Turns a task's echo request round.
#[inline(always)]
pub fn answer<F: Family>(skb: Skb, task: &LocalEndpoint, packet: &Packet<F>) -> Outcome {
    unpack(answered(skb, task, packet))
}

#[inline(never)]
fn answered<F: Family>(skb: Skb, task: &LocalEndpoint, packet: &Packet<F>) -> u64 {
    pack(turned(skb, packet).and_then(|()| deliver::into_task(skb, task)))
}

#[inline(always)]
fn turned<F: Family>(skb: Skb, packet: &Packet<F>) -> Result<(), DropReason> {
    skb.fix_checksum(packet.l4 + CHECKSUM, [F::ECHO_REQUEST, 0], [F::ECHO_REPLY, 0], false)?;
    skb.store(packet.l4 + TYPE, &[F::ECHO_REPLY])?;
    // Swapping the addresses changes no checksum.
    skb.store(packet.l3 + F::SOURCE, &packet.tuple.destination)?;
    skb.store(packet.l3 + F::SOURCE + size_of::<F::Address>() as u32, &packet.tuple.source)
}
