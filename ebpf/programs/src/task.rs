//! What tasks send, and what the node's stack sends to tasks.

use mesh_abi::{
    Counter, DropReason, EntryPoint, GATEWAY_MAC, LocalEndpoint, NodeConfig, PUBLISHED, RETURN_VNI,
    ReturnPath, ReverseValue, ServiceValue, Sight, Steering, SteeringKind, local_flags, network_flags,
};

use crate::{
    arp, choose,
    deliver::{self, Front, Local, Next, Way},
    echo, events,
    family::{Family, V4, V6},
    fragment,
    header::{Ethernet, Macs},
    icmp_error::{self, Side},
    ingress, key,
    maps::{LOCAL_BY_ID, LOCAL_BY_IFINDEX, node},
    neighbour,
    parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Packet, Tuple},
    reverse,
    skb::{self, ETHERNET, Skb},
    too_big, traffic,
    translate::translate,
    verdict::{self, Outcome, Verdict, count, pack, unpack},
};

/// A packet that a task sent.
#[inline(always)]
pub fn sent(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Pass) };
    // SAFETY: values of maps without preallocation stay as they were until the program ends, here and below.
    let task = unsafe { LOCAL_BY_IFINDEX.get(skb.ifindex()) }.ok_or(DropReason::SpoofedSource)?;
    let outcome = sent_by(skb, node, task);
    if outcome.is_err() {
        traffic::dropped_from_task(task.id);
    }
    outcome
}

#[inline(always)]
fn sent_by(skb: Skb, node: &NodeConfig, task: &LocalEndpoint) -> Outcome {
    let ethernet: Ethernet = skb.load(0)?;
    if ethernet.from != task.mac {
        return Err(DropReason::SpoofedSource);
    }
    match ethernet.kind {
        ETHERTYPE_ARP => arp::answer(skb, task),
        ETHERTYPE_IPV4 => sent_ip::<V4>(skb, node, task),
        ETHERTYPE_IPV6 => sent_ip::<V6>(skb, node, task),
        _ => Err(DropReason::Unsupported),
    }
}

#[inline(always)]
fn sent_ip<F: Family>(skb: Skb, node: &NodeConfig, task: &LocalEndpoint) -> Outcome {
    traffic::from_task(skb, task.id);
    let mut local = None;
    let code = next_step::<F>(skb, node, task, &mut local);
    match deliver::finish::<F>(skb, node, code, local) {
        Err(DropReason::TooBig) => too_big::tell_task(skb, node, task, deliver::room::<F>()?.0),
        outcome => outcome,
    }
}

#[inline(never)]
fn next_step<F: Family>(skb: Skb, node: &NodeConfig, task: &LocalEndpoint, local: &mut Local) -> u64 {
    let (packet, way) = match deliver::room::<F>() {
        Ok(room) => room,
        Err(reason) => return pack(Err(reason)),
    };
    if let Err(reason) = skb::parse(skb, ETHERNET, packet) {
        return pack(Err(reason));
    }
    if F::V6 && neighbour::is_neighbourly(packet) {
        return neighbour::answer(skb, task, packet);
    }
    Next::pack(route(skb, node, task, packet, way), local)
}

#[inline(always)]
fn route<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    task: &LocalEndpoint,
    packet: &mut Packet<F>,
    way: &mut Way,
) -> Result<Next, DropReason> {
    let own = F::local(task);
    if !F::same(&packet.tuple.source, &own) || F::same(&own, &F::UNSPECIFIED) {
        return Err(DropReason::SpoofedSource);
    }
    fragment::follow(packet, task.vni);
    let mut failure = 0;
    let back = if icmp_error::is_error(packet) {
        icmp_error::of_task(skb, packet, u32::from_ne_bytes(task.vni), &mut failure)
    } else if task.flags & local_flags::SERVED != 0 {
        translated_back(skb, packet, u32::from_ne_bytes(task.vni), &mut failure)
    } else {
        None
    };
    verdict::ok(failure)?;
    if let Some(back) = back {
        return leave(skb, node, task, packet, (way, back));
    }
    if icmp_error::is_error(packet)
        && let Some(next) = icmp_error::from_client(skb, node, packet, way, Side::of_vip(task.vni))
    {
        return next;
    }
    // A reply whose flow is not known must not leave with the task's own address.
    if packet.orphan && task.flags & local_flags::SERVED != 0 {
        return Err(DropReason::Fragment);
    }
    let to = packet.tuple.destination;
    if let Some(endpoint) = deliver::endpoint::<F>(task.vni, &to) {
        events::opened(packet, task.vni, task.id);
        return deliver::to_endpoint(skb, way, (task.vni, endpoint), &task.mac);
    }
    let front = match deliver::vip::<F>(task.vni, &to) {
        Some(_) if echo::is_request(packet) => return echo::answer(skb, task, packet).map(Next::done),
        Some(service) => {
            count(Counter::Vip);
            let (kind, path) = (SteeringKind::Vip, ReturnPath::Network);
            Front { service, scope: task.vni, kind, path, client: 0, ifindex: 0 }
        }
        None => {
            let mut done = 0;
            let Some(service) = outwards(skb, node, task, packet, &mut done) else {
                let verdict = unpack(done)?;
                if icmp_error::is_error(packet) && matches!(verdict, Verdict::Pass) {
                    verdict::ok(icmp_error::outwards(skb, packet, task))?;
                    if let Some(next) = icmp_error::from_client(skb, node, packet, way, Side::host()) {
                        return next;
                    }
                }
                return Ok(Next::done(verdict));
            };
            count(Counter::Published);
            let (kind, path) = (SteeringKind::Host, ReturnPath::Host);
            Front { service, scope: PUBLISHED, kind, path, client: task.id, ifindex: 0 }
        }
    };
    if packet.orphan {
        return Err(DropReason::Fragment);
    }
    deliver::to_service(skb, node, way, packet, &front)
}

/// Translates a reply of a flow that was translated on its way in; how it leaves. When it is no such reply, or `failure`
/// is not zero afterwards, nothing.
#[inline(never)]
fn translated_back<F: Family>(
    skb: Skb,
    packet: &mut Packet<F>,
    vni: u32,
    failure: &mut u64,
) -> Option<&'static ReverseValue> {
    let back = way_back(packet, vni)?;
    let new = Tuple::<F> {
        source: F::of(&back.source),
        destination: F::of(&back.destination),
        source_port: back.source_port,
        destination_port: back.destination_port,
    };
    *failure = verdict::code(translate(skb, packet, &new));
    count(Counter::Reply);
    Some(back)
}

#[inline(never)]
fn way_back<F: Family>(packet: &Packet<F>, vni: u32) -> Option<&'static ReverseValue> {
    reverse::find(&key::flow(packet, vni.to_ne_bytes()), packet.flags)
}

/// The same for the packet that an ICMP error from a task quotes, as the task was sent it. Nothing is noted.
#[inline(never)]
pub fn way_back_of_quote<F: Family>(quote: &Packet<F>, vni: u32) -> Option<&'static ReverseValue> {
    reverse::known(&key::backward(&quote.tuple, quote.protocol, vni.to_ne_bytes()))
}

/// A reply, translated already, on its way to whoever the task was spoken to by.
#[inline(always)]
pub fn leave<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    task: &LocalEndpoint,
    packet: &mut Packet<F>,
    (way, back): (&mut Way, &ReverseValue),
) -> Result<Next, DropReason> {
    const NETWORK: u8 = ReturnPath::Network as u8;
    const UPLINK: u8 = ReturnPath::Uplink as u8;
    const HOST: u8 = ReturnPath::Host as u8;
    if back.service != 0 {
        traffic::to_client(skb, back.service.into());
    }
    let kind = match back.path {
        NETWORK => {
            let client = deliver::endpoint::<F>(task.vni, &packet.tuple.destination);
            let client = client.ok_or(DropReason::NoEndpoint)?;
            return deliver::to_endpoint(skb, way, (task.vni, client), &GATEWAY_MAC);
        }
        UPLINK => {
            let ifindex = if back.ifindex == 0 { node.uplink_ifindex } else { back.ifindex };
            return Ok(Next::done(Verdict::Out(ifindex)));
        }
        HOST => return to_node(skb, node, packet).map(Next::done),
        path if path == ReturnPath::TunnelHost as u8 => SteeringKind::Host,
        _ => SteeringKind::Published,
    };
    key::copy(&mut way.vtep, &back.vtep);
    way.vni = RETURN_VNI;
    way.macs = Macs::of(Steering::to(task.id, task.generation, kind));
    Ok(Next::Send)
}

/// To the client on this node that spoke to an address of the node: one of its sockets, as if the packet had come in by
/// the host link, or a task.
#[inline(always)]
pub fn to_node<F: Family>(skb: Skb, node: &NodeConfig, packet: &mut Packet<F>) -> Outcome {
    if F::is_egress(&packet.tuple.destination) {
        return if icmp_error::is_error(packet) {
            icmp_error::to_hairpin(skb, packet)
        } else {
            unpack(to_hairpin(skb, packet))
        };
    }
    skb.store(0, &Macs { to: node.host_mac, from: GATEWAY_MAC })?;
    Ok(Verdict::Host(node.host_ifindex))
}

#[inline(never)]
fn to_hairpin<F: Family>(skb: Skb, packet: &mut Packet<F>) -> u64 {
    pack(hairpin(skb, packet))
}

#[inline(always)]
fn hairpin<F: Family>(skb: Skb, packet: &mut Packet<F>) -> Outcome {
    let choice = choose::known(&key::asked(packet)).ok_or(DropReason::UnexpectedReturn)?;
    // SAFETY: see `sent`.
    let task = unsafe { LOCAL_BY_ID.get(choice.client) }.ok_or(DropReason::StaleEndpoint)?;
    if !F::same(&F::egress(task), &packet.tuple.destination) {
        return Err(DropReason::StaleEndpoint);
    }
    let mut new = packet.tuple;
    new.destination = F::local(task);
    translate(skb, packet, &new)?;
    deliver::into_task(skb, task)
}

/// To an address that is no endpoint and no VIP: the gateway, nobody, or the world outside. For a packet to a published
/// port of this very node, from the task's egress address now, the service; else `done` is the outcome.
#[inline(never)]
fn outwards<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    task: &LocalEndpoint,
    packet: &mut Packet<F>,
    done: &mut u64,
) -> Option<&'static ServiceValue> {
    let outcome = outside(skb, task, packet);
    if matches!(outcome, Ok(Verdict::Pass))
        && packet.has_ports()
        && let Some(service) = published_here(node, packet)
    {
        return Some(service);
    }
    if matches!(outcome, Ok(Verdict::Pass)) {
        count(Counter::Egress);
    }
    *done = pack(outcome);
    None
}

/// See [`ingress::own_port`]; a function of its own as [`given_egress`] is.
#[inline(never)]
fn published_here<F: Family>(node: &NodeConfig, packet: &Packet<F>) -> Option<&'static ServiceValue> {
    ingress::own_port(node, packet)
}

#[inline(always)]
fn outside<F: Family>(skb: Skb, task: &LocalEndpoint, packet: &mut Packet<F>) -> Outcome {
    let network = deliver::network(task.vni)?;
    let to = packet.tuple.destination;
    if F::same(&to, &F::gateway(network)) {
        if !echo::is_request(packet) {
            return Err(DropReason::NoEndpoint);
        }
        return echo::answer(skb, task, packet);
    }
    // What stands for tasks and services outside is for the node's stack alone: no way into another network leads there.
    let hidden = F::is_egress(&to) || F::is_link_local(&to) || F::same(&to, &F::of(&F::HOST_SERVICE));
    if hidden || F::in_subnet(network, &to) {
        return Err(DropReason::NoEndpoint);
    }
    // Multicast and the limited broadcast stay within a network, and this version does not carry them.
    if F::is_multicast(&to) {
        return Err(DropReason::Unsupported);
    }
    let egress = F::egress(task);
    if network.flags & network_flags::INTERNAL != 0 || F::same(&egress, &F::UNSPECIFIED) {
        return Err(DropReason::Internal);
    }
    // An error's quotation is translated with it, by the caller: the stack has no room for it here.
    if !icmp_error::is_error(packet) {
        verdict::ok(given_egress(skb, packet, task))?;
    }
    skb.for_this_host()?;
    Ok(Verdict::Pass)
}

/// Gives a packet the source that stands for its task outside. A function of its own for the room on the stack: kernels
/// before 6.8 count each frame as a multiple of 32 bytes.
#[inline(never)]
fn given_egress<F: Family>(skb: Skb, packet: &mut Packet<F>, task: &LocalEndpoint) -> u64 {
    let mut new = packet.tuple;
    new.source = F::egress(task);
    verdict::code(translate(skb, packet, &new))
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
    let outcome = match ethernet.kind {
        ETHERTYPE_IPV4 => unpack(answered_ip::<V4>(skb, task)),
        ETHERTYPE_IPV6 => unpack(answered_ip::<V6>(skb, task)),
        _ => Ok(Verdict::Consume),
    };
    match outcome {
        Ok(Verdict::Pass) => {
            traffic::to_task(skb, task.id);
            events::seen(skb, Sight::ToTask, EntryPoint::ToTask as u32, task.ifindex);
        }
        Err(_) => traffic::dropped_on_its_way_to_task(task.id),
        Ok(_) => {}
    }
    outcome
}

#[inline(never)]
fn answered_ip<F: Family>(skb: Skb, task: &LocalEndpoint) -> u64 {
    pack(answered::<F>(skb, task))
}

#[inline(always)]
fn answered<F: Family>(skb: Skb, task: &LocalEndpoint) -> Outcome {
    let (packet, _) = deliver::room::<F>()?;
    skb::parse(skb, ETHERNET, packet)?;
    let egress = F::egress(task);
    if F::same(&egress, &F::UNSPECIFIED) || !F::same(&packet.tuple.destination, &egress) {
        return Ok(Verdict::Consume);
    }
    if icmp_error::is_error(packet) {
        verdict::ok(icmp_error::inwards(skb, packet, task))?;
    } else {
        let mut new = packet.tuple;
        new.destination = F::local(task);
        translate(skb, packet, &new)?;
    }
    skb.store(0, &Macs { to: task.mac, from: GATEWAY_MAC })?;
    Ok(Verdict::Pass)
}
