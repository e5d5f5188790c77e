//! What tasks send, and what the node's stack sends to tasks.

use mesh_abi::{
    Counter, DropReason, EGRESS_POOL, GATEWAY_MAC, LocalEndpoint, NodeConfig, PUBLISHED, RETURN_VNI,
    ReturnPath, ReverseValue, ServiceValue, Steering, SteeringKind, local_flags, network_flags, v4_of,
};

use crate::{
    arp,
    choose::{self, Choice, Chooser, choose},
    deliver::{self, Origin},
    echo,
    encap::{self, Envelope},
    header::{Ethernet, Macs},
    ingress, key,
    maps::{LOCAL_BY_ID, LOCAL_BY_IFINDEX, NETWORKS, node},
    parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, Frame, Packet, Tuple},
    reset, reverse,
    skb::{ETHERNET, Skb},
    translate::translate,
    verdict::{Outcome, Verdict, count},
};

/// A packet that a task sent.
#[inline(always)]
pub fn sent(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Pass) };
    // SAFETY: values of maps without preallocation stay as they were until the program ends, here and below.
    let task = unsafe { LOCAL_BY_IFINDEX.get(skb.ifindex()) }.ok_or(DropReason::SpoofedSource)?;
    let ethernet: Ethernet = skb.load(0)?;
    if ethernet.from != task.mac {
        return Err(DropReason::SpoofedSource);
    }
    match ethernet.kind {
        ETHERTYPE_ARP => return arp::answer(skb, task),
        ETHERTYPE_IPV4 => {}
        _ => return Err(DropReason::Unsupported),
    }
    let mut packet = Packet::read(skb, ETHERNET)?;
    if packet.tuple.source != task.address4 {
        return Err(DropReason::SpoofedSource);
    }
    if task.flags & local_flags::SERVED != 0
        && !packet.fragment
        && let Some(back) = reverse::find(&key::flow(&packet, task.vni), packet.flags)
    {
        return reply(skb, node, task, &mut packet, back);
    }
    let to = packet.tuple.destination;
    if let Some(endpoint) = deliver::endpoint(task.vni, to) {
        return deliver::to_endpoint(skb, node, &packet, (task.vni, endpoint), &task.mac);
    }
    let front = match deliver::vip(task.vni, to) {
        Some(service) => {
            Front { service, scope: task.vni, kind: SteeringKind::Vip, path: ReturnPath::Network, client: 0 }
        }
        None => match outwards(skb, task, &mut packet)? {
            Outwards::Published(service) => Front {
                service,
                scope: PUBLISHED,
                kind: SteeringKind::Host,
                path: ReturnPath::Host,
                client: task.id,
            },
            Outwards::Done(verdict) => return Ok(verdict),
        },
    };
    to_service(skb, node, &mut packet, &front)
}

/// A service as a task speaks to it.
struct Front {
    service: &'static ServiceValue,
    scope: [u8; 4],
    kind: SteeringKind,
    path: ReturnPath,
    client: u32,
}

#[inline(always)]
fn to_service(skb: Skb, node: &NodeConfig, packet: &mut Packet, front: &Front) -> Outcome {
    if packet.fragment {
        return Err(DropReason::Fragment);
    }
    let key = key::flow(packet, front.scope);
    let by = Chooser { flags: packet.flags, client: front.client, ifindex: 0 };
    let backend = match choose(&key, front.service, &by)? {
        Choice::Backend(backend) => backend,
        Choice::Gone => return reset::answer(skb, packet),
    };
    count(if matches!(front.kind, SteeringKind::Vip) { Counter::Vip } else { Counter::Published });
    let origin = Origin { path: front.path, vtep: node.vtep, target_port: front.service.target_port };
    deliver::to_backend(skb, node, packet, backend, (front.kind, &origin))
}

/// A reply whose flow was translated on its way in.
#[inline(always)]
fn reply(
    skb: Skb,
    node: &NodeConfig,
    task: &LocalEndpoint,
    packet: &mut Packet,
    back: &ReverseValue,
) -> Outcome {
    let new = Tuple {
        source: v4_of(&back.source),
        destination: v4_of(&back.destination),
        source_port: back.source_port,
        destination_port: back.destination_port,
    };
    translate(skb, packet, &new)?;
    count(Counter::Reply);
    const NETWORK: u8 = ReturnPath::Network as u8;
    const UPLINK: u8 = ReturnPath::Uplink as u8;
    const HOST: u8 = ReturnPath::Host as u8;
    let kind = match back.path {
        NETWORK => {
            let client = deliver::endpoint(task.vni, new.destination).ok_or(DropReason::NoEndpoint)?;
            return deliver::to_endpoint(skb, node, packet, (task.vni, client), &GATEWAY_MAC);
        }
        UPLINK => return Ok(Verdict::Out(node.uplink_ifindex)),
        HOST => return to_node(skb, node, packet),
        path if path == ReturnPath::TunnelHost as u8 => SteeringKind::Host,
        _ => SteeringKind::Published,
    };
    let steering = Steering { endpoint: task.id, generation: task.generation, kind };
    let envelope = Envelope { vtep: back.vtep, vni: RETURN_VNI, macs: Macs::of(steering) };
    encap::send(skb, node, packet, &envelope)
}

/// To the client on this node that spoke to an address of the node: one of its sockets, as if the packet had come in by
/// the host link, or a task.
#[inline(always)]
pub fn to_node(skb: Skb, node: &NodeConfig, packet: &mut Packet) -> Outcome {
    if !is_egress(packet.tuple.destination) {
        skb.store(0, &Macs { to: node.host_mac, from: GATEWAY_MAC })?;
        return Ok(Verdict::Host(node.host_ifindex));
    }
    let choice = choose::known(&key::asked(packet)).ok_or(DropReason::UnexpectedReturn)?;
    // SAFETY: see `sent`.
    let task = unsafe { LOCAL_BY_ID.get(choice.client) }.ok_or(DropReason::StaleEndpoint)?;
    if task.egress4 != packet.tuple.destination {
        return Err(DropReason::StaleEndpoint);
    }
    let new = Tuple { destination: task.address4, ..packet.tuple };
    translate(skb, packet, &new)?;
    deliver::into_task(skb, task.ifindex, &task.mac, &GATEWAY_MAC)
}

/// Whether an address stands for a task outside its networks.
#[inline(always)]
pub fn is_egress(address: [u8; 4]) -> bool {
    let (first, prefix_len) = EGRESS_POOL;
    in_subnet(address, first, prefix_len)
}

/// What becomes of a packet to the outside.
enum Outwards {
    Done(Verdict),
    /// To a published port of this very node, from the task's egress address.
    Published(&'static ServiceValue),
}

/// To an address that is no endpoint and no VIP: the gateway, nobody, or the world outside.
#[inline(always)]
fn outwards(skb: Skb, task: &LocalEndpoint, packet: &mut Packet) -> Result<Outwards, DropReason> {
    // SAFETY: see `sent`.
    let network = unsafe { NETWORKS.get(key::network(task.vni)) }.ok_or(DropReason::UnknownVni)?;
    let to = packet.tuple.destination;
    if to == network.gateway4 {
        return echo::answer(skb, task, packet).map(Outwards::Done);
    }
    if in_subnet(to, network.subnet4, network.prefix4) {
        return Err(DropReason::NoEndpoint);
    }
    // Multicast and the limited broadcast stay within a network, and this version does not carry them.
    if to[0] >= 224 {
        return Err(DropReason::Unsupported);
    }
    if network.flags & network_flags::INTERNAL != 0 || task.egress4 == [0; 4] {
        return Err(DropReason::Internal);
    }
    let new = Tuple { source: task.egress4, ..packet.tuple };
    translate(skb, packet, &new)?;
    if packet.has_ports()
        && let Some(service) = ingress::own_port(packet)
    {
        return Ok(Outwards::Published(service));
    }
    skb.for_this_host()?;
    count(Counter::Egress);
    Ok(Outwards::Done(Verdict::Pass))
}

/// Whether an IPv4 address is in a subnet.
#[inline(always)]
fn in_subnet(address: [u8; 4], subnet: [u8; 4], prefix_len: u8) -> bool {
    let host_bits = 32 - u32::from(prefix_len);
    if host_bits >= 32 {
        return true;
    }
    (u32::from_be_bytes(address) ^ u32::from_be_bytes(subnet)) >> host_bits == 0
}

/// A packet that leaves the node's stack towards a task: an answer from outside, or one that `from_host` has
/// translated already.
#[inline(always)]
pub fn received(skb: Skb) -> Outcome {
    if node().is_none() {
        return Ok(Verdict::Pass);
    }
    let ethernet: Ethernet = skb.load(0)?;
    if ethernet.from == GATEWAY_MAC {
        return Ok(Verdict::Pass);
    }
    // SAFETY: see `sent`.
    let task = unsafe { LOCAL_BY_IFINDEX.get(skb.ifindex()) }.ok_or(DropReason::StaleEndpoint)?;
    if ethernet.kind != ETHERTYPE_IPV4 {
        return Ok(Verdict::Consume);
    }
    let mut packet = Packet::read(skb, ETHERNET)?;
    if task.egress4 == [0; 4] || packet.tuple.destination != task.egress4 {
        return Ok(Verdict::Consume);
    }
    let new = Tuple { destination: task.address4, ..packet.tuple };
    translate(skb, &mut packet, &new)?;
    skb.store(0, &Macs { to: task.mac, from: GATEWAY_MAC })?;
    Ok(Verdict::Pass)
}
