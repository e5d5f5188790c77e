//! VXLAN packets from other nodes: who sent them, what for, and is that allowed.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_TUNINFO_IPV6, bpf_tunnel_key,
    },
    helpers::generated::bpf_skb_get_tunnel_key,
};
use mesh_abi::{
    Address, Counter, DropReason, INGRESS_VNI, NodeConfig, PUBLISHED, RETURN_VNI, ReturnPath, Sight,
    Steering, SteeringKind, Turn, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6, node_flags,
};

use crate::{
    ask, choose,
    deliver::{self, Front, Local, Next, Refusal, Way},
    events,
    family::{Family, V4, V6},
    fragment,
    header::{Ethernet, Macs, VNI_VALID, Vxlan},
    icmp_error, ingress, key,
    maps::{HOST_ADDRESSES, LOCAL_BY_ID, NETWORKS, PEERS, node, scratch},
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, FIN, Frame, Packet, RST, SYN, TCP},
    skb::{self, ETHERNET, Skb},
    task, traffic,
    verdict::{self, FAILED, Outcome, Verdict, count},
    verifier::alone,
};

/// A VXLAN packet whose outer headers have been read.
#[repr(C, align(4))]
pub struct Arrival {
    /// VTEP address of the sender.
    pub sender: Address,
    vni: [u8; 4],
    /// Offset of the inner Ethernet header: zero when the kernel has taken the outer headers off.
    pub inner: u32,
}

impl Arrival {
    /// Where the one is that a program runs for.
    #[inline(always)]
    pub fn room() -> Result<&'static mut Self, DropReason> {
        // SAFETY: this CPU's own, which no other program uses meanwhile; each function that asks holds no other.
        Ok(unsafe { &mut (*scratch()?).arrival })
    }
}

/// Offset of the inner Ethernet header behind outer headers of family `U`.
pub const fn inner_offset<U: Family>() -> u32 {
    ETHERNET + U::HEADER + 16
}

/// By the fast path: the outer headers are still there.
#[inline(always)]
pub fn fast(skb: Skb, node: &NodeConfig) -> Outcome {
    let arrival = Arrival::room()?;
    let vxlan: Vxlan = skb.load(arrival.inner.wrapping_sub(8))?;
    if vxlan.flags & VNI_VALID == 0 {
        return ask::answer(skb, node, arrival);
    }
    arrival.vni = [0, vxlan.vni[0], vxlan.vni[1], vxlan.vni[2]];
    receive(skb, node, arrival)
}

/// By the VXLAN device, which has taken the outer headers off. Nothing passes on to the node's stack.
#[inline(always)]
pub fn general(skb: Skb) -> Outcome {
    let Some(node) = node() else { return Ok(Verdict::Consume) };
    let arrival = Arrival::room()?;
    verdict::ok(read_tunnel(skb, node, arrival))?;
    count(Counter::GeneralReceived);
    receive(skb, node, arrival)
}

/// Reads what the VXLAN device has noted of the outer headers.
#[inline(never)]
fn read_tunnel(skb: Skb, node: &NodeConfig, arrival: &mut Arrival) -> u64 {
    let mut tunnel = MaybeUninit::<bpf_tunnel_key>::uninit();
    let size = size_of::<bpf_tunnel_key>() as u32;
    let outer_v6 = node.flags & node_flags::UNDERLAY_V6 != 0;
    let flags = if outer_v6 { u64::from(BPF_F_TUNINFO_IPV6) } else { 0 };
    // SAFETY: the helper writes `size` bytes of the key, or zeros and fails.
    if unsafe { bpf_skb_get_tunnel_key(skb.raw(), tunnel.as_mut_ptr(), size, flags) } != 0 {
        return verdict::code(Err(DropReason::Malformed));
    }
    // SAFETY: the helper has written all of it.
    let tunnel = unsafe { tunnel.assume_init() };
    arrival.sender = if outer_v6 {
        // SAFETY: with the IPv6 flag the helper sets this field.
        V6::mapped(unsafe { &tunnel.__bindgen_anon_1.remote_ipv6 })
    } else {
        // SAFETY: without it, this one.
        V4::mapped(&unsafe { tunnel.__bindgen_anon_1.remote_ipv4 }.to_be_bytes())
    };
    arrival.vni = tunnel.tunnel_id.to_be_bytes();
    arrival.inner = 0;
    verdict::code(Ok(()))
}

/// A packet of which all is known but what is inside.
#[inline(always)]
fn receive(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Outcome {
    // SAFETY: values of maps without preallocation stay as they were until the program ends, here and below.
    if unsafe { PEERS.get(key::peer(key::bytes(key::words(&arrival.sender)))) }.is_none() {
        return Err(DropReason::UnknownSender);
    }
    let kind: [u8; 2] = skb.load(arrival.inner.wrapping_add(12))?;
    match kind {
        ETHERTYPE_IPV4 => inside::<V4>(skb, node, arrival),
        ETHERTYPE_IPV6 => inside::<V6>(skb, node, arrival),
        _ => Err(DropReason::Unsupported),
    }
}

#[inline(always)]
fn inside<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Outcome {
    let mut local = None;
    let mut code = opened::<F>(skb, node, arrival, &mut local);
    if code == deliver::AGAIN {
        code = came_back::<F>(skb, node, arrival, &mut local);
    }
    deliver::finish::<F>(skb, node, code, local)
}

#[inline(never)]
fn opened<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival, local: &mut Local) -> u64 {
    Next::pack(open::<F>(skb, node, arrival), local)
}

#[inline(always)]
fn open<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Result<Next, DropReason> {
    let ethernet: Ethernet = skb.load(arrival.inner)?;
    let (packet, way) = deliver::room::<F>()?;
    skb::parse(skb, arrival.inner.wrapping_add(ETHERNET), packet)?;
    if arrival.inner != 0 {
        if is_for_the_device(skb, arrival, packet) {
            return Ok(Next::done(Verdict::Pass));
        }
        count(Counter::FastReceived);
    }
    let macs = Macs { to: ethernet.to, from: ethernet.from };
    match arrival.vni {
        INGRESS_VNI => steered(skb, node, arrival, (packet, way), &macs),
        RETURN_VNI => returned(skb, node, arrival, packet, &macs),
        _ => overlay(skb, arrival, packet, &macs).map(Next::done),
    }
}

/// Whether the kernel's VXLAN device must take the outer headers off. What is still to be segmented stays marked as one in
/// a tunnel when this program does it, and no helper takes the mark off too. A stream that ends in a task does not mind;
/// but datagrams (UDP and SCTP) would be cut as if outer headers were there, and so would what leaves again by a NIC that knows tunnels.
#[inline(always)]
fn is_for_the_device<F: Family>(skb: Skb, arrival: &Arrival, packet: &Packet<F>) -> bool {
    skb.gso_size() != 0 && (packet.protocol != TCP || arrival.vni == RETURN_VNI)
}

/// A packet of a network, from endpoint to endpoint.
#[inline(always)]
fn overlay<F: Family>(skb: Skb, arrival: &Arrival, packet: &mut Packet<F>, macs: &Macs) -> Outcome {
    let vni = arrival.vni;
    // SAFETY: see `receive`.
    if unsafe { NETWORKS.get(key::network(vni)) }.is_none() {
        return Err(DropReason::UnknownVni);
    }
    let mut service = 0;
    if !is_endpoint_of::<F>(arrival, vni, &packet.tuple.source) {
        let vip = deliver::vip::<F>(vni, &packet.tuple.source).ok_or(DropReason::ForgedSource)?;
        service = vip.counter().into();
        // The answer of a VIP. Those within a connection would tell the choice nothing new.
        if packet.flags & (SYN | FIN | RST) != 0 {
            heard(packet, u32::from_ne_bytes(vni));
        }
    }
    let endpoint = match deliver::endpoint::<F>(vni, &packet.tuple.destination) {
        Some(endpoint) if endpoint.ifindex != 0 => endpoint,
        _ => return Err(DropReason::NoEndpoint),
    };
    strip(skb, arrival, packet)?;
    events::seen(skb, Sight::FromNode, events::ANY, endpoint.ifindex);
    if service != 0 {
        traffic::to_client(skb, service);
    }
    deliver::into_endpoint(skb, endpoint, &macs.from)
}

alone! {
    /// Lets the choice behind an answer know of it. The interface of the choice, plus one, and [`SERVICE`] bits further up its
    /// service; 0 when there is no choice.
    fn heard[answer4_heard, answer6_heard]<F>(packet: &Packet<F>, scope: u32) -> u64, or 0; {
        let asked = key::backward(&packet.tuple, packet.protocol, scope.to_ne_bytes());
        choose::answered(&asked, packet.flags).map_or(0, |choice| (u64::from(choice.service) << SERVICE) + u64::from(choice.ifindex) + 1)
    }
}

/// Where in a number the service is, behind 33 bits for an interface plus one.
const SERVICE: u32 = 40;

/// A packet to a VIP or published port, for a task of this node that the sender chose; or an error about such a task's
/// reply.
#[inline(always)]
fn steered<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    arrival: &Arrival,
    (packet, way): (&mut Packet<F>, &mut Way),
    macs: &Macs,
) -> Result<Next, DropReason> {
    let steering = macs.steering().ok_or(DropReason::Malformed)?;
    let local = match deliver::local(steering.endpoint, steering.generation) {
        Ok(local) => local,
        Err(reason) if refusal(steering.turn).is_none() || packet.fragment => return Err(reason),
        Err(reason) if skb.gso_size() != 0 || icmp_error::is_error(packet) => return Err(reason),
        Err(reason) => {
            let turn = refusal(steering.turn).ok_or(reason)?;
            strip(skb, arrival, packet)?;
            key::copy(&mut way.vtep, &arrival.sender);
            way.vni = RETURN_VNI;
            way.macs = Macs::of(Steering { turn, ..steering });
            count(Counter::Refused);
            return Ok(Next::Send);
        }
    };
    let is_vip = matches!(steering.kind, SteeringKind::Vip);
    if is_vip && !is_endpoint_of::<F>(arrival, local.vni, &packet.tuple.source) {
        return Err(DropReason::ForgedSource);
    }
    fragment::require(packet, if is_vip { local.vni } else { PUBLISHED })?;
    key::copy(&mut way.vtep, &arrival.sender);
    way.ifindex = 0;
    way.service = 0;
    way.target_port = steering.target_port;
    way.path = match steering.kind {
        SteeringKind::Vip => ReturnPath::Network,
        SteeringKind::Published => ReturnPath::Tunnel,
        SteeringKind::Direct => ReturnPath::Uplink,
        SteeringKind::Host => ReturnPath::TunnelHost,
    };
    strip(skb, arrival, packet)?;
    events::seen(skb, Sight::FromNode, events::ANY, local.ifindex);
    if icmp_error::is_error(packet) {
        return Ok(Next::LandError(local));
    }
    if !is_vip && way.target_port == [0; 2] {
        let t = &packet.tuple;
        way.target_port = deliver::target::<F>(node, &t.destination, t.destination_port, packet.protocol)?;
    }
    Ok(Next::Land(local))
}

/// What a node answers that lacks the endpoint; nothing to what is an answer itself.
#[inline(always)]
fn refusal(turn: Turn) -> Option<Turn> {
    match turn {
        Turn::First => Some(Turn::Refused),
        Turn::Second => Some(Turn::RefusedAgain),
        Turn::Refused | Turn::RefusedAgain => None,
    }
}

/// A packet that this node sent to a task which is gone, as it was when it came here.
#[inline(never)]
fn came_back<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival, local: &mut Local) -> u64 {
    Next::pack(sent_again::<F>(skb, node, arrival), local)
}

#[inline(always)]
fn sent_again<F: Family>(skb: Skb, node: &NodeConfig, arrival: &Arrival) -> Result<Next, DropReason> {
    let ethernet: Ethernet = skb.load(arrival.inner)?;
    let (packet, way) = deliver::room::<F>()?;
    let macs = Macs { to: ethernet.to, from: ethernet.from };
    let steering = macs.steering().ok_or(DropReason::Malformed)?;
    let t = &packet.tuple;
    let (service, scope, path) = match steering.kind {
        SteeringKind::Vip => {
            (deliver::vip::<F>(steering.vni, &t.destination), steering.vni, ReturnPath::Network)
        }
        kind => {
            let service = ingress::service_at::<F>(node, &t.destination, t.destination_port, packet.protocol);
            let host = matches!(kind, SteeringKind::Host);
            (service, PUBLISHED, if host { ReturnPath::Host } else { ReturnPath::Uplink })
        }
    };
    let service = service.ok_or(DropReason::StaleEndpoint)?;
    let choice = choose::known(&key::flow(packet, scope)).ok_or(DropReason::UnexpectedReturn)?;
    let ifindex = match path {
        ReturnPath::Network => {
            deliver::endpoint::<F>(steering.vni, &t.source).ok_or(DropReason::UnexpectedReturn)?.ifindex
        }
        ReturnPath::Uplink if choice.ifindex == 0 => node.uplink_ifindex,
        ReturnPath::Uplink => choice.ifindex,
        // SAFETY: see `receive`.
        _ => unsafe { LOCAL_BY_ID.get(choice.client) }.map_or(0, |task| task.ifindex),
    };
    let front =
        Front { service, scope, kind: steering.kind, path, client: choice.client, ifindex: choice.ifindex };
    let mut refusal = Refusal {
        scope: u32::from_ne_bytes(scope),
        endpoint: steering.endpoint,
        generation: steering.generation.into(),
        last: matches!(steering.turn, Turn::RefusedAgain).into(),
        failure: 0,
        vtep: key::bytes(key::words(&arrival.sender)),
    };
    strip(skb, arrival, packet)?;
    let sender = deliver::Sender::of(choice.client, ifindex);
    deliver::to_another(skb, node, way, packet, (&front, sender, &mut refusal))
}

/// A reply to a client of this node, translated already, or a packet of one that the task's node has refused.
#[inline(always)]
fn returned<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    arrival: &Arrival,
    packet: &mut Packet<F>,
    macs: &Macs,
) -> Result<Next, DropReason> {
    let steering = macs.steering().ok_or(DropReason::Malformed)?;
    if !matches!(steering.turn, Turn::First) {
        return Ok(Next::Again);
    }
    let source = &packet.tuple.source;
    let own = match steering.kind {
        SteeringKind::Published => is_own::<F>(source),
        SteeringKind::Host if F::is_egress(&packet.tuple.destination) => is_own::<F>(source),
        SteeringKind::Host => F::same(source, &F::of(&F::HOST_SERVICE)),
        SteeringKind::Vip | SteeringKind::Direct => false,
    };
    if !own {
        return Err(DropReason::UnexpectedReturn);
    }
    fragment::require(packet, PUBLISHED)?;
    let choice = if icmp_error::is_error(packet) {
        icmp_error::is_asked(skb, packet)
    } else {
        heard(packet, u32::from_ne_bytes(PUBLISHED))
    };
    let ifindex = choice.checked_sub(1).ok_or(DropReason::UnexpectedReturn)? as u32;
    let service = (choice >> SERVICE) as u32;
    let uplink = if ifindex == 0 { node.uplink_ifindex } else { ifindex };
    strip(skb, arrival, packet)?;
    events::seen(skb, Sight::FromNode, events::ANY, 0);
    if service != 0 {
        traffic::to_client(skb, service);
    }
    if matches!(steering.kind, SteeringKind::Host) {
        return task::to_node(skb, node, packet).map(Next::done);
    }
    Ok(Next::done(Verdict::Out(uplink)))
}

/// Whether an address is one of this node's.
#[inline(always)]
pub fn is_own<F: Family>(address: &F::Address) -> bool {
    // SAFETY: see `receive`.
    unsafe { HOST_ADDRESSES.get(key::host_address(F::mapped(address))) }.is_some()
}

/// Whether the sender is the node of the endpoint with that address.
#[inline(always)]
fn is_endpoint_of<F: Family>(arrival: &Arrival, vni: [u8; 4], address: &F::Address) -> bool {
    deliver::endpoint::<F>(vni, address).is_some_and(|e| key::same(&e.vtep, &arrival.sender))
}

/// Takes the outer headers off, if they are still there.
#[inline(always)]
fn strip<F: Family>(skb: Skb, arrival: &Arrival, packet: &mut Packet<F>) -> Result<(), DropReason> {
    verdict::ok(stripped(skb, arrival, packet))
}

alone! {
    fn stripped[stripped4, stripped6]<F>(skb: Skb, arrival: &Arrival, packet: &mut Packet<F>) -> u64, or FAILED; {
        verdict::code(take_off(skb, arrival, packet))
    }
}

#[inline(always)]
fn take_off<F: Family>(skb: Skb, arrival: &Arrival, packet: &mut Packet<F>) -> Result<(), DropReason> {
    if arrival.inner == 0 {
        return Ok(());
    }
    const PLAIN: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
    let outer_v6 = arrival.inner == inner_offset::<V6>();
    let overhead = if outer_v6 { VXLAN_OVERHEAD_V6 } else { VXLAN_OVERHEAD_V4 };
    if outer_v6 == F::V6 {
        skb.adjust_room(-(overhead as i32), PLAIN)?;
    } else {
        change_family::<F>(skb, overhead as i32, PLAIN)?;
    }
    packet.l3 -= overhead;
    packet.l4 -= overhead;
    Ok(())
}

/// Takes off outer headers of the other family than the packet's own, and lets the kernel know that it is another.
#[inline(always)]
fn change_family<F: Family>(skb: Skb, overhead: i32, plain: u64) -> Result<(), DropReason> {
    let inner = if F::V6 { BPF_F_ADJ_ROOM_DECAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_DECAP_L3_IPV4 };
    if skb.adjust_room(-overhead, plain | u64::from(inner)).is_err() {
        // Kernels before 6.3 have no such flag. There the outer header is first made one of the other family, which
        // lengthens it by twenty bytes or shortens it.
        skb.change_protocol(F::ETHERTYPE)?;
        let longer = if F::V6 { 20 } else { -20 };
        skb.adjust_room(-(overhead + longer), plain)?;
    }
    skb.store(12, &F::ETHERTYPE)
}
