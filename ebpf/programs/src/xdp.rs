//! The uplink's XDP program: what leaves the node again as soon as it has come, without a packet buffer being made for it.
//!
//! It decides by the same functions as the tc program `uplink` behind it, and does the same: packets to published ports
//! whose task is elsewhere go there, and what comes back goes out to the client. All else it leaves untouched to that
//! program, and nothing of it is written down or counted before that is settled.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use mesh_abi::{
    Counter, DropReason, INGRESS_VNI, NodeConfig, PUBLISHED, RETURN_VNI, ReturnPath, Steering, SteeringKind,
    Turn, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6, node_flags, service_flags, watch_kinds,
};

use crate::{
    affinity,
    choose::{self, Chooser},
    conntrack,
    deliver::Way,
    encap, events,
    family::{Family, V4, V6},
    hash,
    header::{Ethernet, Macs, VNI_VALID, Vxlan},
    ingress, key,
    maps::{PEERS, node},
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Packet},
    passing::Passing,
    skb::ETHERNET,
    traffic,
    verdict::{count, count_drop},
    xdp_frame::Xdp,
    xdp_next_hop::{self as next_hop, ToBackend},
};

/// A packet that came in by the uplink. Steps return the kernel's action; `XDP_PASS` leaves the packet to the tc program.
#[inline(always)]
pub fn from_uplink(frame: Xdp) -> u32 {
    let Some(node) = node() else { return XDP_PASS };
    if node.flags & node_flags::FAST_PATH == 0 || events::is_seen() {
        return XDP_PASS;
    }
    match frame.load::<[u8; 2]>(12) {
        Ok(ETHERTYPE_IPV4) => came_in::<V4>(frame, node),
        Ok(ETHERTYPE_IPV6) => came_in::<V6>(frame, node),
        _ => XDP_PASS,
    }
}

/// A function for each family, so that each has the stack for itself.
#[inline(never)]
fn came_in<F: Family>(frame: Xdp, node: &NodeConfig) -> u32 {
    let Ok(packet) = Packet::<F>::read(frame, ETHERNET) else { return XDP_PASS };
    if !packet.has_ports() || packet.fragment || packet.l4 != ETHERNET + F::HEADER {
        return XDP_PASS;
    }
    if !ingress::is_vxlan(node, &packet) {
        return to_published(frame, node, &packet);
    }
    // SAFETY: values of maps without preallocation stay as they were until the program ends.
    if unsafe { PEERS.get(key::peer(F::mapped(&packet.tuple.source))) }.is_none() {
        if events::is_watched(watch_kinds::DROP) {
            return XDP_PASS;
        }
        count_drop(DropReason::UnknownSender);
        return XDP_DROP;
    }
    from_peer::<F>(frame, node)
}

/// To a published port whose task is on another node.
#[inline(always)]
fn to_published<F: Family>(frame: Xdp, node: &NodeConfig, packet: &Packet<F>) -> u32 {
    let ifindex = ingress::entrance(node, frame.ifindex());
    let key = key::flow(packet, PUBLISHED);
    let now = conntrack::now();
    let entropy = encap::entropy(packet);
    let Some(passing) = Passing::at(entropy) else { return XDP_PASS };
    // An established flow needs no look at the service, unless the other node does not know the service's port.
    let alone = node.flags & node_flags::ADDRESSED_PORTS == 0 && !conntrack::opens(packet.flags);
    if alone
        && let Some(kept) = passing.established(&key, now)
        && kept.service != 0
    {
        let service = kept.service.into();
        let by = Chooser { flags: packet.flags, client: 0, ifindex, service };
        let Some(road) = way_to(frame, node, packet, kept.backend, now) else { return XDP_PASS };
        let direct = choose::is_direct(kept);
        if choose::note_established(&key, &by, kept, now) {
            passing.forget();
        }
        traffic::frame_from_client(service, packet.total_len + ETHERNET);
        return send::<F>(frame, node, (road, entropy), (direct, [0; 2]));
    }
    // Perhaps it begins anew.
    passing.forget();
    let kept = if alone { None } else { choose::established(&key) };
    let Some(service) = ingress::own_port(node, packet) else { return XDP_PASS };
    let counter = service.counter().into();
    let by = Chooser { flags: packet.flags, client: 0, ifindex, service: counter };
    let pick = if conntrack::opens(packet.flags) && !affinity::is_remembered(service) {
        choose::pick_opening(&key, service, kept)
    } else {
        let known = if conntrack::opens(packet.flags) { kept } else { kept.or_else(|| choose::recent(&key)) };
        let pick = choose::pick(&key, service, &by, (known, kept.is_some()), now);
        if pick.backend.is_some() { Some(pick) } else { None }
    };
    let Some(pick) = pick else { return XDP_PASS };
    let Some(road) = way_to(frame, node, packet, pick.id, now) else { return XDP_PASS };
    choose::note(pick, &key, service, &by, now);
    traffic::frame_from_client(counter, packet.total_len + ETHERNET);
    let direct = service.flags & service_flags::DIRECT != 0;
    let carried = if node.flags & node_flags::ADDRESSED_PORTS != 0 { service.target_port } else { [0; 2] };
    send::<F>(frame, node, (road, entropy), (direct, carried))
}

/// The way to a backend on another node, when the headers that lead there have been given room.
#[inline(always)]
fn way_to<F: Family>(
    frame: Xdp,
    node: &NodeConfig,
    packet: &Packet<F>,
    backend: u32,
    now: u64,
) -> Option<&'static ToBackend> {
    if packet.total_len > node.inner_mtu {
        return None;
    }
    let road = next_hop::to_backend(frame, node, backend, now)?;
    let overhead =
        if node.flags & node_flags::UNDERLAY_V6 != 0 { VXLAN_OVERHEAD_V6 } else { VXLAN_OVERHEAD_V4 };
    if frame.grow(overhead) { Some(road) } else { None }
}

#[inline(always)]
fn send<F: Family>(
    frame: Xdp,
    node: &NodeConfig,
    (road, entropy): (&ToBackend, u32),
    (direct, target_port): (bool, [u8; 2]),
) -> u32 {
    let kind = if direct { SteeringKind::Direct } else { SteeringKind::Published };
    let steering = Steering { target_port, ..Steering::to(road.endpoint, road.generation as u16, kind) };
    let way = Way {
        vtep: road.vtep(),
        vni: INGRESS_VNI,
        macs: Macs::of(steering),
        ifindex: 0,
        service: 0,
        target_port: [0; 2],
        path: ReturnPath::Uplink,
    };
    let hop = &road.hop;
    let port = encap::source_port(entropy);
    let total = frame.len() - ETHERNET;
    let written = if node.flags & node_flags::UNDERLAY_V6 != 0 {
        hop.store(frame)
            && frame.store(12, &ETHERTYPE_IPV6)
            && frame.store(ETHERNET, &encap::outer6(node, &way, port, F::V6, total))
    } else {
        frame.store(0, &encap::head4(hop, &encap::outer4(node, &way, port, F::V6, total)))
    };
    if !written {
        return XDP_ABORTED;
    }
    count(Counter::Published);
    count(Counter::FastSent);
    count(Counter::Xdp);
    frame.out(hop.ifindex)
}

/// A VXLAN packet of another node, whose outer headers are of family `U`.
#[inline(always)]
fn from_peer<U: Family>(frame: Xdp, node: &NodeConfig) -> u32 {
    let inner = ETHERNET + U::HEADER + 16;
    let Ok(vxlan) = frame.load::<Vxlan>(inner - 8) else { return XDP_PASS };
    let [a, b, c] = vxlan.vni;
    if vxlan.flags & VNI_VALID == 0 || [0, a, b, c] != RETURN_VNI {
        return XDP_PASS;
    }
    let Ok(ethernet) = frame.load::<Ethernet>(inner) else { return XDP_PASS };
    let macs = Macs { to: ethernet.to, from: ethernet.from };
    let Some(steering) = macs.steering() else { return XDP_PASS };
    if steering.kind != SteeringKind::Published || steering.turn != Turn::First {
        return XDP_PASS;
    }
    match ethernet.kind {
        ETHERTYPE_IPV4 => returned::<V4>(frame, node, inner),
        ETHERTYPE_IPV6 => returned::<V6>(frame, node, inner),
        _ => XDP_PASS,
    }
}

/// A reply to a client, translated already.
#[inline(always)]
fn returned<F: Family>(frame: Xdp, node: &NodeConfig, inner: u32) -> u32 {
    let Ok(packet) = Packet::<F>::read(frame, inner + ETHERNET) else { return XDP_PASS };
    if !packet.has_ports() || packet.fragment {
        return XDP_PASS;
    }
    let key = key::asked(&packet);
    let now = conntrack::now();
    // That there is a choice shows that the source is an address of the node.
    let Some(passing) = Passing::at(hash::entropy_back(&packet.tuple, packet.protocol)) else {
        return XDP_PASS;
    };
    let Some(choice) = passing.established(&key, now).or_else(|| choose::recent(&key)) else {
        return XDP_PASS;
    };
    let uplink = if choice.ifindex == 0 { node.uplink_ifindex } else { choice.ifindex };
    let service = choice.service;
    let (from, to) = (F::mapped(&packet.tuple.source), F::mapped(&packet.tuple.destination));
    let Some(hop) = next_hop::to_client(frame, (&from, &to), uplink, now) else { return XDP_PASS };
    if !frame.shrink(inner) {
        return XDP_PASS;
    }
    if choose::note_answer(&key, choice, packet.flags, now) {
        passing.forget();
    }
    if !hop.store(frame) {
        return XDP_ABORTED;
    }
    traffic::frame_to_client(service.into(), packet.total_len + ETHERNET);
    count(Counter::FastReceived);
    count(Counter::Xdp);
    frame.out(hop.ifindex)
}
