//! Packets to published ports, from outside and from the node's own sockets.

use mesh_abi::{
    Counter, DropReason, NodeConfig, PUBLISHED, ReturnPath, ServiceValue, SteeringKind, node_flags,
    service_flags,
};

use crate::{
    ask,
    decap::{self, Arrival},
    deliver::{self, Front, Local, Next, Way},
    family::{Family, V4, V6},
    fragment, host,
    icmp_error::{self, Side},
    key,
    maps::{SERVICES, node},
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Packet, UDP},
    skb::{self, ETHERNET, Skb},
    too_big,
    verdict::{Outcome, Verdict, count, pack},
};

/// A packet that came in by the uplink.
#[inline(always)]
pub fn from_uplink(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Pass) };
    let mut local = None;
    let v6 = match skb.load::<[u8; 2]>(12) {
        Ok(ETHERTYPE_IPV4) => false,
        Ok(ETHERTYPE_IPV6) => true,
        _ => return Ok(Verdict::Pass),
    };
    let code = if v6 { came_in::<V6>(skb, node, &mut local) } else { came_in::<V4>(skb, node, &mut local) };
    match code {
        VXLAN => decap::fast(skb, node),
        code if v6 => go_on::<V6>(skb, node, code, local),
        code => go_on::<V4>(skb, node, code, local),
    }
}

#[inline(always)]
fn go_on<F: Family>(skb: Skb, node: &NodeConfig, code: u64, local: Local) -> Outcome {
    match deliver::finish::<F>(skb, node, code, local) {
        Err(DropReason::TooBig) => too_big::tell_client(skb, node, deliver::room::<F>()?.0),
        outcome => outcome,
    }
}

/// In place of an outcome: a VXLAN packet for the fast path.
const VXLAN: u64 = u64::MAX;

#[inline(never)]
fn came_in<F: Family>(skb: Skb, node: &NodeConfig, local: &mut Local) -> u64 {
    let Ok((packet, way)) = deliver::room::<F>() else { return pack(Ok(Verdict::Pass)) };
    if skb::parse(skb, ETHERNET, packet).is_err() {
        return pack(Ok(Verdict::Pass));
    }
    if icmp_error::is_error(packet) {
        return Next::pack(error_came_in(skb, node, packet, way), local);
    }
    if packet.later_fragment {
        // One that no published port's packet began with is the node's own, as far as can be told.
        fragment::follow(packet, PUBLISHED);
    }
    if !packet.has_ports() {
        return pack(Ok(Verdict::Pass));
    }
    if !packet.fragment && is_vxlan(node, packet) {
        // What the fast path does not take (outer options, fragments) the kernel's VXLAN device does.
        let fast = node.flags & node_flags::FAST_PATH != 0 && packet.l4 == ETHERNET + F::HEADER;
        if !fast && !ask::is_question(skb, packet) {
            return pack(Ok(Verdict::Pass));
        }
        let Ok(arrival) = Arrival::room() else { return pack(Ok(Verdict::Pass)) };
        arrival.sender = F::mapped(&packet.tuple.source);
        arrival.inner = decap::inner_offset::<F>();
        return VXLAN;
    }
    let Some(service) = own_port(node, packet) else { return pack(Ok(Verdict::Pass)) };
    if !packet.later_fragment {
        fragment::follow(packet, PUBLISHED);
    }
    let next = to_published(skb, node, way, packet, service);
    Next::pack(next, local)
}

/// An ICMP error about a reply of a published port, or about something of the node's own.
#[inline(always)]
fn error_came_in<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &Packet<F>,
    way: &mut Way,
) -> Result<Next, DropReason> {
    if !decap::is_own::<F>(&packet.tuple.destination) {
        return Ok(Next::done(Verdict::Pass));
    }
    let next = icmp_error::from_client(skb, node, packet, way, Side::outside());
    next.unwrap_or(Ok(Next::done(Verdict::Pass)))
}

/// Whether a packet is for the node's VXLAN port.
#[inline(always)]
pub fn is_vxlan<F: Family>(node: &NodeConfig, packet: &Packet<F>) -> bool {
    packet.protocol == UDP
        && packet.tuple.destination_port == node.vxlan_port
        && F::V6 == (node.flags & node_flags::UNDERLAY_V6 != 0)
        && F::same(&packet.tuple.destination, &F::of(&node.vtep))
}

/// The service that a packet to an address of the node is for.
#[inline(always)]
pub fn own_port<F: Family>(node: &NodeConfig, packet: &Packet<F>) -> Option<&'static ServiceValue> {
    // Most are for the address that is at hand.
    let first = F::V6 == (node.flags & node_flags::UNDERLAY_V6 != 0)
        && F::same(&packet.tuple.destination, &F::of(&node.vtep));
    if !first && !decap::is_own::<F>(&packet.tuple.destination) {
        return None;
    }
    service_at::<F>(node, &packet.tuple.destination, packet.tuple.destination_port, packet.protocol)
}

/// The service that publishes a port at an address of the node.
#[inline(always)]
pub fn service_at<F: Family>(
    node: &NodeConfig,
    address: &F::Address,
    port: [u8; 2],
    protocol: u8,
) -> Option<&'static ServiceValue> {
    if node.flags & node_flags::ADDRESSED_PORTS != 0 {
        // SAFETY: values of maps without preallocation stay as they were until the program ends.
        let exact = unsafe { SERVICES.get(key::published(F::mapped(address), port, protocol)) };
        if exact.is_some() {
            return exact;
        }
    }
    deliver::published::<F>(port, protocol)
}

/// A packet that a socket of this node sent into the host link.
#[inline(always)]
pub fn from_host(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Consume) };
    match skb.load::<[u8; 2]>(12) {
        Ok(ETHERTYPE_IPV4) => from_socket::<V4>(skb, node),
        Ok(ETHERTYPE_IPV6) => from_socket::<V6>(skb, node),
        _ => Ok(Verdict::Consume),
    }
}

#[inline(always)]
fn from_socket<F: Family>(skb: Skb, node: &NodeConfig) -> Outcome {
    let mut local = None;
    let code = socket_sent::<F>(skb, node, &mut local);
    match deliver::finish::<F>(skb, node, code, local) {
        Err(DropReason::TooBig) => too_big::tell_socket(skb, node, deliver::room::<F>()?.0),
        outcome => outcome,
    }
}

#[inline(never)]
fn socket_sent<F: Family>(skb: Skb, node: &NodeConfig, local: &mut Local) -> u64 {
    let Ok((packet, way)) = deliver::room::<F>() else { return pack(Ok(Verdict::Consume)) };
    if skb::parse(skb, ETHERNET, packet).is_err() {
        return pack(Ok(Verdict::Consume));
    }
    if !F::same(&packet.tuple.destination, &F::of(&F::HOST_SERVICE)) {
        return pack(Ok(Verdict::Consume));
    }
    if icmp_error::is_error(packet) {
        let next = icmp_error::from_client(skb, node, packet, way, Side::host());
        let next = next.unwrap_or(Ok(Next::done(Verdict::Consume)));
        return Next::pack(next, local);
    }
    if let Err(reason) = fragment::require(packet, PUBLISHED) {
        return pack(Err(reason));
    }
    if !packet.has_ports() {
        return pack(Ok(Verdict::Consume));
    }
    let port = packet.tuple.destination_port;
    let service = deliver::published::<F>(port, packet.protocol).or_else(|| {
        let port = u16::from_ne_bytes(port);
        host::service_of_socket(skb, node, port.into(), packet.protocol.into())
    });
    let next = match service {
        Some(service) => {
            count(Counter::Published);
            let front = Front {
                service,
                scope: PUBLISHED,
                kind: SteeringKind::Host,
                path: ReturnPath::Host,
                client: 0,
                ifindex: 0,
            };
            deliver::to_service(skb, node, way, packet, &front)
        }
        None => Err(DropReason::NoBackend),
    };
    Next::pack(next, local)
}

/// [`mesh_abi::ChoiceValue::ifindex`] of a packet that came in by an uplink.
#[inline(always)]
pub fn entrance(node: &NodeConfig, uplink: u32) -> u32 {
    if uplink == node.uplink_ifindex { 0 } else { uplink }
}

#[inline(always)]
fn to_published<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    way: &mut Way,
    packet: &Packet<F>,
    service: &'static ServiceValue,
) -> Result<Next, DropReason> {
    let front = Front {
        service,
        scope: PUBLISHED,
        kind: if service.flags & service_flags::DIRECT != 0 {
            SteeringKind::Direct
        } else {
            SteeringKind::Published
        },
        path: ReturnPath::Uplink,
        client: 0,
        ifindex: entrance(node, skb.ifindex()),
    };
    count(Counter::Published);
    deliver::to_service(skb, node, way, packet, &front)
}
