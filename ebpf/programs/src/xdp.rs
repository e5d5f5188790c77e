//! The uplink's XDP program: what leaves the node again as soon as it has come, without a packet buffer being made for it.
//!
//! It decides by the same functions as the tc program `uplink` behind it, and does the same: packets to published ports
//! whose task is elsewhere go there, and what comes back goes out to the client. All else it leaves untouched to that
//! program, and nothing of it is written down or counted before that is settled.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use mesh_abi::{
    BackendValue, Counter, DropReason, INGRESS_VNI, NodeConfig, PUBLISHED, RETURN_VNI, Steering,
    SteeringKind, VXLAN_OVERHEAD_V4, node_flags, service_flags, v4_of,
};

use crate::{
    choose::{self, Chooser},
    conntrack,
    encap::{self, Envelope},
    header::{Ethernet, Macs, Outer, VNI_VALID, Vxlan},
    ingress, key,
    maps::{PEERS, node},
    parse::{ETHERTYPE_IPV4, Frame, Packet, UDP},
    skb::ETHERNET,
    verdict::{self, count},
    xdp_frame::Xdp,
    xdp_next_hop::{self as next_hop, Hop},
};

const VXLAN: u32 = ETHERNET + 20 + 8;

/// A packet that came in by the uplink. Steps return the kernel's action; `XDP_PASS` leaves the packet to the tc program.
#[inline(always)]
pub fn from_uplink(frame: Xdp) -> u32 {
    let Some(node) = node() else { return XDP_PASS };
    if node.flags & node_flags::FAST_PATH == 0 {
        return XDP_PASS;
    }
    match frame.load::<[u8; 2]>(12) {
        Ok(ETHERTYPE_IPV4) => {}
        _ => return XDP_PASS,
    }
    let Ok(packet) = Packet::read(frame, ETHERNET) else { return XDP_PASS };
    if !packet.has_ports() || packet.l4 != ETHERNET + 20 {
        return XDP_PASS;
    }
    let t = &packet.tuple;
    if packet.protocol == UDP && t.destination_port == node.vxlan_port && t.destination == v4_of(&node.vtep) {
        return from_peer(frame, node, &packet);
    }
    to_published(frame, node, &packet)
}

/// To a published port whose task is on another node.
#[inline(always)]
fn to_published(frame: Xdp, node: &NodeConfig, packet: &Packet) -> u32 {
    let by = Chooser { flags: packet.flags, client: 0, ifindex: 0 };
    let key = key::flow(packet, PUBLISHED);
    let now = conntrack::now();
    let kept = choose::established(&key);
    // An established flow needs no look at the service.
    if let Some(kept) = kept
        && let Some(pick) = choose::pick_established(&key, &by, kept, now)
        && let Some(backend) = pick.backend
    {
        let Some(hop) = way_to(frame, node, packet, backend, now) else { return XDP_PASS };
        choose::note_established(pick, &key, &by, now);
        let kind = if choose::is_direct(kept) { SteeringKind::Direct } else { SteeringKind::Published };
        return send(frame, node, packet, (backend, kind), hop);
    }
    let Some(service) = ingress::own_port(packet) else { return XDP_PASS };
    let pick = choose::pick(&key, service, &by, kept, now);
    let Some(backend) = pick.backend else { return XDP_PASS };
    let Some(hop) = way_to(frame, node, packet, backend, now) else { return XDP_PASS };
    choose::note(pick, &key, service, &by, now);
    let direct = service.flags & service_flags::DIRECT != 0;
    let kind = if direct { SteeringKind::Direct } else { SteeringKind::Published };
    send(frame, node, packet, (backend, kind), hop)
}

/// The next hop towards a backend on another node, when the headers that lead there have been given room.
#[inline(always)]
fn way_to(
    frame: Xdp,
    node: &NodeConfig,
    packet: &Packet,
    backend: &BackendValue,
    now: u64,
) -> Option<&'static Hop> {
    if backend.ifindex != 0 || packet.total_len > node.inner_mtu {
        return None;
    }
    let hop = next_hop::towards(frame, (&node.vtep, &backend.vtep), node.uplink_ifindex, now)?;
    if frame.grow(VXLAN_OVERHEAD_V4) { Some(hop) } else { None }
}

#[inline(always)]
fn send(
    frame: Xdp,
    node: &NodeConfig,
    packet: &Packet,
    (backend, kind): (&BackendValue, SteeringKind),
    hop: &Hop,
) -> u32 {
    let steering = Steering { endpoint: backend.endpoint, generation: backend.generation, kind };
    let envelope = Envelope { vtep: backend.vtep, vni: INGRESS_VNI, macs: Macs::of(steering) };
    let outer = encap::outer(node, packet, &envelope, frame.len() - ETHERNET);
    if !frame.store(0, &head4(hop, &outer)) {
        return XDP_ABORTED;
    }
    count(Counter::Published);
    count(Counter::FastSent);
    count(Counter::Xdp);
    frame.out(hop.ifindex)
}

/// A VXLAN packet for this node.
#[inline(always)]
fn from_peer(frame: Xdp, node: &NodeConfig, outer: &Packet) -> u32 {
    // SAFETY: values of maps without preallocation stay as they were until the program ends.
    if unsafe { PEERS.get(key::peer(outer.tuple.source)) }.is_none() {
        verdict::count_drop(DropReason::UnknownSender);
        return XDP_DROP;
    }
    returned(frame, node)
}

/// A reply to a client, translated already.
#[inline(always)]
fn returned(frame: Xdp, node: &NodeConfig) -> u32 {
    let Ok(vxlan) = frame.load::<Vxlan>(VXLAN) else { return XDP_PASS };
    let [a, b, c] = vxlan.vni;
    if vxlan.flags & VNI_VALID == 0 || [0, a, b, c] != RETURN_VNI {
        return XDP_PASS;
    }
    let inner = VXLAN_OVERHEAD_V4;
    let Ok(ethernet) = frame.load::<Ethernet>(inner) else { return XDP_PASS };
    let macs = Macs { to: ethernet.to, from: ethernet.from };
    let Some(steering) = macs.steering() else { return XDP_PASS };
    if ethernet.kind != ETHERTYPE_IPV4 || steering.kind != SteeringKind::Published {
        return XDP_PASS;
    }
    let Ok(packet) = Packet::read(frame, inner + ETHERNET) else { return XDP_PASS };
    if !packet.has_ports() {
        return XDP_PASS;
    }
    let key = key::asked(&packet);
    let now = conntrack::now();
    let Some(choice) = choose::known(&key) else { return XDP_PASS };
    let uplink = if choice.ifindex == 0 { node.uplink_ifindex } else { choice.ifindex };
    let (from, to) = (key::mapped(packet.tuple.source), key::mapped(packet.tuple.destination));
    let Some(hop) = next_hop::towards(frame, (&from, &to), uplink, now) else { return XDP_PASS };
    if !frame.shrink(inner) {
        return XDP_PASS;
    }
    choose::note_answer(&key, choice, packet.flags, now);
    if !frame.store(0, &hop.macs.0) || !frame.store(8, &hop.macs.1) {
        return XDP_ABORTED;
    }
    count(Counter::FastReceived);
    count(Counter::Xdp);
    frame.out(hop.ifindex)
}

/// The Ethernet header and the outer headers behind it, by whole words.
#[inline(always)]
fn head4(hop: &Hop, o: &Outer) -> [u64; 8] {
    let (m, n) = hop.macs;
    let [n0, n1, n2, n3] = n.to_ne_bytes();
    let (ip, s, d, udp, v) = (&o.ip, o.source, o.destination, &o.udp, &o.vxlan);
    let (t, f) = (o.ethernet.to, o.ethernet.from);
    [
        m,
        word([n0, n1, n2, n3, 0x08, 0, ip[0], ip[1]]),
        word([ip[2], ip[3], ip[4], ip[5], ip[6], ip[7], ip[8], ip[9]]),
        word([ip[10], ip[11], s[0], s[1], s[2], s[3], d[0], d[1]]),
        word([d[2], d[3], udp[0], udp[1], udp[2], udp[3], udp[4], udp[5]]),
        word([udp[6], udp[7], v.flags, 0, 0, 0, v.vni[0], v.vni[1]]),
        word([v.vni[2], 0, t[0], t[1], t[2], t[3], t[4], t[5]]),
        word([f[0], f[1], f[2], f[3], f[4], f[5], 0x08, 0]),
    ]
}

#[inline(always)]
fn word(bytes: [u8; 8]) -> u64 {
    u64::from_ne_bytes(bytes)
}
