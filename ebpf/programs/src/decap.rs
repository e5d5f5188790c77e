//! VXLAN packets from other nodes: who sent them, what for, and is that allowed.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, bpf_tunnel_key},
    helpers::generated::bpf_skb_get_tunnel_key,
};
use mesh_abi::{
    Counter, DropReason, HOST_SERVICE_ADDRESS, INGRESS_VNI, NodeConfig, RETURN_VNI, ReturnPath, SteeringKind,
    VXLAN_OVERHEAD_V4, v4_of,
};

use crate::{
    choose,
    deliver::{self, Origin},
    header::{Ethernet, Macs, VNI_VALID, Vxlan},
    key,
    maps::{HOST_ADDRESSES, NETWORKS, PEERS, node},
    parse::{ETHERTYPE_IPV4, Frame, Packet},
    skb::{ETHERNET, Skb},
    task,
    verdict::{Outcome, Verdict, count},
};

/// Offset of the VXLAN header behind Ethernet, IPv4 without options, and UDP.
const VXLAN: u32 = ETHERNET + 20 + 8;

/// A VXLAN packet whose outer headers have been read.
struct Arrival {
    /// VTEP address of the sender.
    sender: [u8; 4],
    vni: [u8; 4],
    /// Offset of the inner Ethernet header: 0 when the kernel has taken the outer headers off.
    inner: u32,
}

/// By the fast path: the outer headers are still there.
#[inline(always)]
pub fn fast(skb: Skb, node: &NodeConfig, outer: &Packet) -> Outcome {
    let vxlan: Vxlan = skb.load(VXLAN)?;
    if vxlan.flags & VNI_VALID == 0 {
        return Err(DropReason::Malformed);
    }
    let vni = [0, vxlan.vni[0], vxlan.vni[1], vxlan.vni[2]];
    count(Counter::FastReceived);
    receive(skb, node, &Arrival { sender: outer.tuple.source, vni, inner: VXLAN_OVERHEAD_V4 })
}

/// By the VXLAN device, which has taken the outer headers off. Nothing passes on to the node's stack.
#[inline(always)]
pub fn general(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Consume) };
    let mut key = MaybeUninit::<bpf_tunnel_key>::uninit();
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the helper writes `size` bytes of the key, or none and fails.
    if unsafe { bpf_skb_get_tunnel_key(skb.raw(), key.as_mut_ptr(), size, 0) } != 0 {
        return Err(DropReason::Malformed);
    }
    // SAFETY: the helper has written all of it.
    let key = unsafe { key.assume_init() };
    // SAFETY: without the IPv6 flag the helper sets the IPv4 field.
    let sender = unsafe { key.__bindgen_anon_1.remote_ipv4 }.to_be_bytes();
    count(Counter::GeneralReceived);
    receive(skb, node, &Arrival { sender, vni: key.tunnel_id.to_be_bytes(), inner: 0 })
}

#[inline(always)]
fn receive(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Outcome {
    // SAFETY: values of maps without preallocation stay as they were until the program ends, here and below.
    if unsafe { PEERS.get(key::peer(arrival.sender)) }.is_none() {
        return Err(DropReason::UnknownSender);
    }
    let ethernet: Ethernet = skb.load(arrival.inner)?;
    if ethernet.kind != ETHERTYPE_IPV4 {
        return Err(DropReason::Unsupported);
    }
    let mut packet = Packet::read(skb, arrival.inner + ETHERNET)?;
    let macs = Macs { to: ethernet.to, from: ethernet.from };
    match arrival.vni {
        INGRESS_VNI => steered(skb, arrival, &mut packet, &macs),
        RETURN_VNI => returned(skb, node, arrival, &mut packet, &macs),
        _ => overlay(skb, arrival, &mut packet, &macs),
    }
}

/// A packet of a network, from endpoint to endpoint.
#[inline(always)]
fn overlay(skb: Skb, arrival: &Arrival, packet: &mut Packet, macs: &Macs) -> Outcome {
    let vni = arrival.vni;
    // SAFETY: see `receive`.
    if unsafe { NETWORKS.get(key::network(vni)) }.is_none() {
        return Err(DropReason::UnknownVni);
    }
    let source = packet.tuple.source;
    if !is_endpoint_of(arrival, vni, source) && deliver::vip(vni, source).is_none() {
        return Err(DropReason::ForgedSource);
    }
    let endpoint = match deliver::endpoint(vni, packet.tuple.destination) {
        Some(endpoint) if endpoint.ifindex != 0 => endpoint,
        _ => return Err(DropReason::NoEndpoint),
    };
    strip(skb, arrival, packet)?;
    deliver::into_task(skb, endpoint.ifindex, &endpoint.mac, &macs.from)
}

/// A packet to a VIP or published port, for a task of this node that the sender chose.
#[inline(always)]
fn steered(skb: Skb, arrival: &Arrival, packet: &mut Packet, macs: &Macs) -> Outcome {
    let steering = macs.steering().ok_or(DropReason::Malformed)?;
    if packet.fragment {
        return Err(DropReason::Fragment);
    }
    let local = deliver::local(steering.endpoint, steering.generation)?;
    let (path, target_port) = match steering.kind {
        SteeringKind::Vip => {
            if !is_endpoint_of(arrival, local.vni, packet.tuple.source) {
                return Err(DropReason::ForgedSource);
            }
            (ReturnPath::Network, [0; 2])
        }
        SteeringKind::Published => (ReturnPath::Tunnel, target_port(packet)?),
        SteeringKind::Direct => (ReturnPath::Uplink, target_port(packet)?),
        SteeringKind::Host => (ReturnPath::TunnelHost, target_port(packet)?),
    };
    strip(skb, arrival, packet)?;
    let origin = Origin { path, vtep: key::mapped(arrival.sender), target_port };
    deliver::land(skb, packet, local, &origin)
}

/// The port behind the published one that the packet is for.
#[inline(always)]
fn target_port(packet: &Packet) -> Result<[u8; 2], DropReason> {
    let service = deliver::published(packet.tuple.destination_port, packet.protocol);
    Ok(service.ok_or(DropReason::NoBackend)?.target_port)
}

/// A reply to a client of this node, translated already.
#[inline(always)]
fn returned(skb: Skb, node: &NodeConfig, arrival: &Arrival, packet: &mut Packet, macs: &Macs) -> Outcome {
    let steering = macs.steering().ok_or(DropReason::Malformed)?;
    let source = packet.tuple.source;
    let own = match steering.kind {
        SteeringKind::Published => is_own(source),
        SteeringKind::Host if task::is_egress(packet.tuple.destination) => is_own(source),
        SteeringKind::Host => source == HOST_SERVICE_ADDRESS,
        SteeringKind::Vip | SteeringKind::Direct => false,
    };
    if !own || choose::answered(&key::asked(packet), packet.flags).is_none() {
        return Err(DropReason::UnexpectedReturn);
    }
    strip(skb, arrival, packet)?;
    if matches!(steering.kind, SteeringKind::Host) {
        return task::to_node(skb, node, packet);
    }
    Ok(Verdict::Out(node.uplink_ifindex))
}

/// Whether an address is one of this node's.
#[inline(always)]
fn is_own(address: [u8; 4]) -> bool {
    // SAFETY: see `receive`.
    unsafe { HOST_ADDRESSES.get(key::host_address(address)) }.is_some()
}

/// Whether the sender is the node of the endpoint with that address.
#[inline(always)]
fn is_endpoint_of(arrival: &Arrival, vni: [u8; 4], address: [u8; 4]) -> bool {
    deliver::endpoint(vni, address).is_some_and(|e| v4_of(&e.vtep) == arrival.sender)
}

/// Takes the outer headers off, if they are still there.
#[inline(always)]
fn strip(skb: Skb, arrival: &Arrival, packet: &mut Packet) -> Result<(), DropReason> {
    if arrival.inner == 0 {
        return Ok(());
    }
    skb.adjust_room(-(VXLAN_OVERHEAD_V4 as i32), u64::from(BPF_F_ADJ_ROOM_FIXED_GSO))?;
    packet.l3 -= VXLAN_OVERHEAD_V4;
    packet.l4 -= VXLAN_OVERHEAD_V4;
    Ok(())
}
