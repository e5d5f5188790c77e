//! Packets to published ports, from outside and from the node's own sockets.

use mesh_abi::{
    Counter, DropReason, HOST_SERVICE_ADDRESS, NodeConfig, PUBLISHED, ReturnPath, ServiceValue, SteeringKind,
    node_flags, v4_of,
};

use crate::{
    choose::{Choice, Chooser, choose},
    decap,
    deliver::{self, Origin},
    key,
    maps::{HOST_ADDRESSES, node},
    parse::{ETHERTYPE_IPV4, Frame, Packet, UDP},
    reset,
    skb::{ETHERNET, Skb},
    verdict::{Outcome, Verdict, count},
};

/// Offset of the transport header behind an IPv4 header without options.
const PLAIN_L4: u32 = ETHERNET + 20;

/// A packet that came in by the uplink.
#[inline(always)]
pub fn from_uplink(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Pass) };
    let Some(mut packet) = ipv4(skb) else { return Ok(Verdict::Pass) };
    if !packet.has_ports() {
        return Ok(Verdict::Pass);
    }
    let (to, port) = (packet.tuple.destination, packet.tuple.destination_port);
    if packet.protocol == UDP && port == node.vxlan_port && to == v4_of(&node.vtep) {
        // What the fast path does not take (outer options, fragments) the kernel's VXLAN device does.
        if node.flags & node_flags::FAST_PATH == 0 || packet.l4 != PLAIN_L4 {
            return Ok(Verdict::Pass);
        }
        return decap::fast(skb, node, &packet);
    }
    match own_port(&packet) {
        Some(service) => {
            let from = (SteeringKind::Published, ReturnPath::Uplink);
            to_published(skb, node, &mut packet, service, from)
        }
        None => Ok(Verdict::Pass),
    }
}

/// The service that a packet to an address of the node is for.
#[inline(always)]
pub fn own_port(packet: &Packet) -> Option<&'static ServiceValue> {
    // SAFETY: values of maps without preallocation stay as they were until the program ends.
    unsafe { HOST_ADDRESSES.get(key::host_address(packet.tuple.destination)) }?;
    deliver::published(packet.tuple.destination_port, packet.protocol)
}

/// A packet that a socket of this node sent into the host link.
#[inline(always)]
pub fn from_host(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Consume) };
    let Some(mut packet) = ipv4(skb) else { return Ok(Verdict::Consume) };
    if !packet.has_ports() || packet.tuple.destination != HOST_SERVICE_ADDRESS {
        return Ok(Verdict::Consume);
    }
    let service = deliver::published(packet.tuple.destination_port, packet.protocol);
    let service = service.ok_or(DropReason::NoBackend)?;
    to_published(skb, node, &mut packet, service, (SteeringKind::Host, ReturnPath::Host))
}

/// The headers of an IPv4 packet; nothing for any other.
#[inline(always)]
fn ipv4(skb: Skb) -> Option<Packet> {
    match skb.load::<[u8; 2]>(12) {
        Ok(ETHERTYPE_IPV4) => Packet::read(skb, ETHERNET).ok(),
        _ => None,
    }
}

#[inline(always)]
fn to_published(
    skb: Skb,
    node: &NodeConfig,
    packet: &mut Packet,
    service: &ServiceValue,
    (kind, path): (SteeringKind, ReturnPath),
) -> Outcome {
    let by = Chooser { flags: packet.flags, client: 0, ifindex: 0 };
    let backend = match choose(&key::flow(packet, PUBLISHED), service, &by)? {
        Choice::Backend(backend) => backend,
        Choice::Gone => return reset::answer(skb, packet),
    };
    count(Counter::Published);
    let origin = Origin { path, vtep: node.vtep, target_port: service.target_port };
    deliver::to_backend(skb, node, packet, backend, (kind, &origin))
}
