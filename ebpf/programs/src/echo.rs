//! The gateway's answer to a ping (RFC 792): there is no gateway but the data path.

use mesh_abi::{DropReason, GATEWAY_MAC, LocalEndpoint};

use crate::{
    deliver,
    parse::{ICMP, ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, Packet},
    skb::Skb,
    verdict::Outcome,
};

const TYPE: u32 = 0;
const CHECKSUM: u32 = 2;
const SOURCE: u32 = 12;

/// Turns an echo request to the gateway round; there is nothing else to be had from it.
#[inline(always)]
pub fn answer(skb: Skb, task: &LocalEndpoint, packet: &Packet) -> Outcome {
    if packet.protocol != ICMP || packet.icmp_type != ICMP_ECHO_REQUEST || packet.fragment {
        return Err(DropReason::NoEndpoint);
    }
    skb.fix_checksum(packet.l4 + CHECKSUM, [ICMP_ECHO_REQUEST, 0], [ICMP_ECHO_REPLY, 0], false)?;
    skb.store(packet.l4 + TYPE, &[ICMP_ECHO_REPLY])?;
    // Swapping the addresses changes no checksum.
    let (s, d) = (packet.tuple.source, packet.tuple.destination);
    skb.store(packet.l3 + SOURCE, &[d[0], d[1], d[2], d[3], s[0], s[1], s[2], s[3]])?;
    deliver::into_task(skb, task.ifindex, &task.mac, &GATEWAY_MAC)
}
