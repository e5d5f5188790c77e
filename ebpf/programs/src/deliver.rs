//! The last step: into a task, or towards the node that has it.

use mesh_abi::{
    Address, BackendValue, Counter, DropReason, EndpointValue, FlowKey, GATEWAY_MAC, INGRESS_VNI,
    LocalEndpoint, NetworkValue, NodeConfig, ReturnPath, ReverseValue, ServiceValue, Steering, SteeringKind,
    Turn, node_flags,
};

use crate::{
    choose::{Again, Choice, Chooser, backend, choose, choose_again},
    encap,
    family::Family,
    header::Macs,
    icmp_error, ingress, key,
    maps::{ENDPOINTS, LOCAL_BY_ID, LOCAL_BY_IFINDEX, NETWORKS, SERVICES, scratch},
    parse::{Packet, Tuple},
    reset, reverse,
    skb::Skb,
    traffic,
    translate::translate,
    verdict::{self, Outcome, Verdict, count, pack, unpack},
    verifier::alone,
};

/// What is known of the way that a packet takes: towards another node, or into a task of this one. Whoever sets the way
/// sets all that it takes.
#[repr(C, align(4))]
pub struct Way {
    /// The node that the packet goes to; or the one that the client spoke to, for a packet into a task.
    pub vtep: Address,
    /// To another node: network or purpose.
    pub vni: [u8; 4],
    /// To another node: inner Ethernet destination and source.
    pub macs: Macs,
    /// Into a task: the uplink by which replies leave, if not the node's first.
    pub ifindex: u32,
    /// Into a task: [`ServiceValue::counter`], if this node has made the choice; 0 otherwise.
    pub service: u32,
    /// Into a task: the port that it listens on, if not the one that the client spoke to.
    pub target_port: [u8; 2],
    /// Into a task: the way back.
    pub path: ReturnPath,
}

/// The last step of a packet's way. Paths through a program meet before it, so that it is there, and walked by the
/// verifier, once.
pub enum Next {
    /// None: the outcome, packed at once. In a verdict without a number the compiler would leave that out, and go on to
    /// count with what the register holds.
    Done(u64),
    /// Into a task, translated.
    Land(&'static LocalEndpoint),
    /// The same for an ICMP error about what the task sent.
    LandError(&'static LocalEndpoint),
    /// To another node.
    Send,
    /// Back from the node that it was sent to: to be sent to another.
    Again,
}

/// The packet that the program runs for, and its way.
#[inline(always)]
pub fn room<F: Family>() -> Result<(&'static mut Packet<F>, &'static mut Way), DropReason> {
    let scratch = scratch()?;
    // SAFETY: this CPU's own, which no other program uses meanwhile; each program asks for them once.
    Ok(unsafe { (&mut *F::packet(scratch), &mut (*scratch).way) })
}

/// A task of this node.
pub type Local = Option<&'static LocalEndpoint>;

impl Next {
    /// Nothing remains to be done.
    #[inline(always)]
    pub fn done(verdict: Verdict) -> Self {
        Self::Done(pack(Ok(verdict)))
    }

    /// The step in one number, and the task that it leads into: the function that found it out gives its stack frame up before
    /// the step is taken.
    #[inline(always)]
    pub fn pack(next: Result<Self, DropReason>, task: &mut Local) -> u64 {
        match next {
            Ok(Self::Done(code)) => code,
            Ok(Self::Land(local)) => {
                *task = Some(local);
                LAND
            }
            Ok(Self::LandError(local)) => {
                *task = Some(local);
                LAND_ERROR
            }
            Ok(Self::Send) => SEND,
            Ok(Self::Again) => AGAIN,
            Err(reason) => pack(Err(reason)),
        }
    }
}

/// In place of outcomes: steps to be taken.
const LAND: u64 = u64::MAX - 1;
const LAND_ERROR: u64 = u64::MAX - 2;
const SEND: u64 = u64::MAX - 3;
/// Of [`Next::Again`], which only [`crate::decap`] knows what to do with.
pub const AGAIN: u64 = u64::MAX - 4;

/// Takes the last step.
#[inline(always)]
pub fn finish<F: Family>(skb: Skb, node: &NodeConfig, code: u64, task: Local) -> Outcome {
    if !matches!(code, LAND | LAND_ERROR | SEND) {
        return unpack(code);
    }
    let (packet, way) = room::<F>()?;
    if code == SEND {
        return encap::send(skb, node, packet, way);
    }
    let local = task.ok_or(DropReason::StaleEndpoint)?;
    if code == LAND { land(skb, packet, local, way) } else { icmp_error::land(skb, node, packet, local, way) }
}

/// Into a task of this node.
#[inline(always)]
pub fn into_task(skb: Skb, task: &LocalEndpoint) -> Outcome {
    into(skb, task.ifindex, &task.mac, &GATEWAY_MAC, task.id)
}

/// The same with what is known of endpoints wherever they are.
#[inline(always)]
pub fn into_endpoint(skb: Skb, endpoint: &EndpointValue, from: &[u8; 6]) -> Outcome {
    into(skb, endpoint.ifindex, &endpoint.mac, from, endpoint.local.into())
}

#[inline(always)]
fn into(skb: Skb, ifindex: u32, to: &[u8; 6], from: &[u8; 6], id: u32) -> Outcome {
    skb.store(0, &Macs { to: *to, from: *from })?;
    skb.for_this_host()?;
    traffic::to_task(skb, id);
    Ok(Verdict::Task(ifindex))
}

/// To an endpoint of a network, wherever it is.
#[inline(always)]
pub fn to_endpoint(
    skb: Skb,
    way: &mut Way,
    (vni, endpoint): ([u8; 4], &EndpointValue),
    from: &[u8; 6],
) -> Result<Next, DropReason> {
    if endpoint.ifindex != 0 {
        count(Counter::Local);
        into_endpoint(skb, endpoint, from).map(Next::done)
    } else {
        key::copy(&mut way.vtep, &endpoint.vtep);
        way.vni = vni;
        way.macs = Macs { to: endpoint.mac, from: *from };
        Ok(Next::Send)
    }
}

/// A service as the packet's sender speaks to it.
pub struct Front {
    pub service: &'static ServiceValue,
    /// [`FlowKey::scope`].
    pub scope: [u8; 4],
    pub kind: SteeringKind,
    pub path: ReturnPath,
    /// See [`mesh_abi::ChoiceValue::client`].
    pub client: u32,
    /// See [`mesh_abi::ChoiceValue::ifindex`].
    pub ifindex: u32,
}

/// To a backend of a service: into the task when it is here, untouched and steered when it is not.
#[inline(always)]
pub fn to_service<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    way: &mut Way,
    packet: &Packet<F>,
    front: &Front,
) -> Result<Next, DropReason> {
    let counter = front.service.counter().into();
    let by = Chooser { flags: packet.flags, client: front.client, ifindex: front.ifindex, service: counter };
    traffic::from_client(skb, counter);
    let mut failure = 0;
    let scope = u32::from_ne_bytes(front.scope);
    let Some(backend) = chosen(packet, scope, front.service, &by, &mut failure) else {
        traffic::without_task(counter);
        if failure == GONE {
            let sender = Sender::of(front.client, skb.ifindex());
            return unpack(gone(skb, node, packet, front.path as u32, sender)).map(Next::done);
        }
        return Err(verdict::reason(failure));
    };
    towards(node, way, front, backend, Turn::First)
}

/// A packet that another node has refused because the task that was chosen is gone there: to another task, else its sender is
/// told.
#[inline(always)]
pub fn to_another<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    way: &mut Way,
    packet: &Packet<F>,
    (front, sender, refusal): (&Front, u64, &mut Refusal),
) -> Result<Next, DropReason> {
    let id = chosen_again(packet, front.service, front.client, front.ifindex, refusal);
    if id == NO_BACKEND {
        if refusal.failure == GONE {
            return unpack(gone(skb, node, packet, front.path as u32, sender)).map(Next::done);
        }
        return Err(verdict::reason(refusal.failure));
    }
    let backend = backend(id as u32).ok_or(DropReason::NoBackend)?;
    count(Counter::ChosenAgain);
    towards(node, way, front, backend, Turn::Second)
}

/// To a backend that was chosen.
#[inline(always)]
fn towards(
    node: &NodeConfig,
    way: &mut Way,
    front: &Front,
    backend: &BackendValue,
    turn: Turn,
) -> Result<Next, DropReason> {
    if backend.ifindex != 0 {
        key::copy(&mut way.vtep, &node.vtep);
        way.ifindex = front.ifindex;
        way.service = front.service.counter().into();
        way.target_port = front.service.target_port;
        way.path = front.path;
        return local(backend.endpoint, backend.generation).map(Next::Land);
    }
    let steering = Steering {
        endpoint: backend.endpoint,
        generation: backend.generation,
        kind: front.kind,
        turn,
        target_port: carried(node, front),
        vni: front.scope,
    };
    key::copy(&mut way.vtep, &backend.vtep);
    way.vni = INGRESS_VNI;
    way.macs = Macs::of(steering);
    Ok(Next::Send)
}

/// Where the sender of a packet is: the id of a task of this node, or 0, and the interface towards it. One number, since
/// functions take no more than five.
pub struct Sender;

impl Sender {
    #[inline(always)]
    pub fn of(client: u32, ifindex: u32) -> u64 {
        u64::from(client) << 32 | u64::from(ifindex)
    }
}

alone! {
    /// Tells the sender of a packet that the task it was speaking to is gone. `path` is that of [`Front`].
    fn gone[told_gone4, told_gone6]<F>(
        skb: Skb,
        node: &NodeConfig,
        packet: &Packet<F>,
        path: u32,
        sender: u64,
    ) -> u64, or pack(Err(DropReason::HelperFailed)); {
        const UPLINK: u32 = ReturnPath::Uplink as u32;
        const HOST: u32 = ReturnPath::Host as u32;
        let (client, ifindex) = ((sender >> 32) as u32, sender as u32);
        let mut to = packet.tuple.source;
        if client != 0 {
            // SAFETY: see `endpoint`. Its address has given way to the one that stands for it outside.
            match unsafe { LOCAL_BY_ID.get(client) } {
                Some(local) => to = F::local(local),
                None => return pack(Err(DropReason::StaleEndpoint)),
            }
        }
        match reset::turn(skb, packet, &to) {
            reset::TURNED => {}
            reset::NOTHING => return pack(Ok(Verdict::Consume)),
            _ => return pack(Err(DropReason::HelperFailed)),
        }
        match (path, client) {
            (UPLINK, _) => pack(Ok(Verdict::Out(ifindex))),
            (HOST, 0) => match skb.store(0, &Macs { to: node.host_mac, from: GATEWAY_MAC }) {
                Ok(()) => pack(Ok(Verdict::Host(node.host_ifindex))),
                Err(reason) => pack(Err(reason)),
            },
            // Of a task.
            // SAFETY: see `endpoint`.
            _ => match unsafe { LOCAL_BY_IFINDEX.get(ifindex) } {
                Some(local) => pack(into_task(skb, local)),
                None => pack(Err(DropReason::StaleEndpoint)),
            },
        }
    }
}

/// The target port, where the other node may not know it: a port that is open on one address is programmed on that
/// address' node alone.
#[inline(always)]
fn carried(node: &NodeConfig, front: &Front) -> [u8; 2] {
    let published = !matches!(front.kind, SteeringKind::Vip);
    if published && node.flags & node_flags::ADDRESSED_PORTS != 0 {
        front.service.target_port
    } else {
        [0; 2]
    }
}

/// No reason for a drop: [`Choice::Gone`].
const GONE: u32 = u32::MAX;

/// The choice for a packet; when there is none, `failure` says why.
#[inline(never)]
fn chosen<F: Family>(
    packet: &Packet<F>,
    scope: u32,
    service: &ServiceValue,
    by: &Chooser,
    failure: &mut u32,
) -> Option<&'static BackendValue> {
    match choose(&key::flow(packet, scope.to_ne_bytes()), service, by) {
        Ok(Choice::Backend(backend)) => Some(backend),
        Ok(Choice::Gone) => {
            *failure = GONE;
            None
        }
        Err(reason) => {
            *failure = reason as u32;
            None
        }
    }
}

/// The endpoint of this node with that id, if it is still the one that was meant.
#[inline(always)]
pub fn local(id: u32, generation: u16) -> Result<&'static LocalEndpoint, DropReason> {
    // SAFETY: see `endpoint`.
    match unsafe { LOCAL_BY_ID.get(id) } {
        Some(local) if local.generation == generation => Ok(local),
        _ => Err(DropReason::StaleEndpoint),
    }
}

/// Translates a packet to a VIP or published port for a task of this node, and notes how replies go back.
#[inline(always)]
pub fn land<F: Family>(skb: Skb, packet: &mut Packet<F>, local: &LocalEndpoint, way: &Way) -> Outcome {
    unpack(landed(skb, packet, local, way))
}

#[inline(never)]
fn landed<F: Family>(skb: Skb, packet: &mut Packet<F>, local: &LocalEndpoint, way: &Way) -> u64 {
    let outcome = entered(packet, local, way)
        .and_then(|new| translate(skb, packet, &new))
        .and_then(|()| into_task(skb, local));
    if outcome.is_err() {
        traffic::dropped_on_its_way_to_task(local.id);
    }
    pack(outcome)
}

/// What a packet looks like to the task, its flow noted.
#[inline(always)]
fn entered<F: Family>(packet: &Packet<F>, local: &LocalEndpoint, way: &Way) -> Result<Tuple<F>, DropReason> {
    let mut new = packet.tuple;
    new.destination = F::local(local);
    if F::same(&new.destination, &F::UNSPECIFIED) {
        return Err(DropReason::StaleEndpoint);
    }
    if F::same(&new.source, &new.destination) && matches!(way.path, ReturnPath::Network) {
        // The task was given itself: its own address as the source would never leave its stack.
        new.source = F::gateway(network(local.vni)?);
    }
    // An echo has no port, only an identifier, which is the asker's.
    if way.target_port != [0; 2] && packet.protocol != F::ICMP {
        new.destination_port = way.target_port;
    }
    let scratch = scratch()?;
    // SAFETY: this CPU's own, which no other program uses meanwhile; nobody else holds these two.
    let (reply, value) = unsafe { (&mut (*scratch).reply, &mut (*scratch).value) };
    *reply = key::backward(&new, packet.protocol, local.vni);
    value.source = F::mapped(&packet.tuple.destination);
    value.destination = F::mapped(&packet.tuple.source);
    key::copy(&mut value.vtep, &way.vtep);
    value.source_port = packet.tuple.destination_port;
    value.destination_port = packet.tuple.source_port;
    value.ifindex = way.ifindex;
    value.path = way.path as u8;
    value.state = 0;
    value.service = way.service as u16;
    value.reserved = [0; 4];
    let port = noted(reply, value, packet.flags.into());
    if port < 0 {
        return Err(verdict::reason(-port as u32 - 1));
    }
    if port & BEGINS != 0 {
        traffic::flow_to_task(local.id);
    }
    new.source_port = (port as u16).to_be_bytes();
    Ok(new)
}

/// Beside the port: the flow is new.
const BEGINS: i64 = 1 << 16;

/// The same for both families, and so compiled once: the port, or less than zero for one more than the reason.
#[inline(never)]
fn noted(reply: &mut FlowKey, value: &mut ReverseValue, flags: u32) -> i64 {
    match reverse::remember(reply, value, flags as u8) {
        Ok((port, begins)) => i64::from(u16::from_be_bytes(port)) | if begins { BEGINS } else { 0 },
        Err(reason) => -1 - reason as i64,
    }
}

/// What another node has sent a packet back for.
pub struct Refusal {
    /// [`FlowKey::scope`].
    pub scope: u32,
    /// The endpoint that is gone, as [`mesh_abi::BackendValue`] names it.
    pub endpoint: u32,
    pub generation: u32,
    /// It was chosen after an earlier refusal: no third one.
    pub last: u32,
    /// Why there is no other one.
    pub failure: u32,
    pub vtep: Address,
}

alone! {
    /// The choice for a packet that came back: a key into `BACKENDS`. When there is none, `refusal.failure` says why.
    fn chosen_again[chosen_again4, chosen_again6]<F>(
        packet: &Packet<F>,
        service: &ServiceValue,
        client: u32,
        ifindex: u32,
        refusal: &mut Refusal,
    ) -> u64, or NO_BACKEND; {
        let by = Chooser { flags: packet.flags, client, ifindex, service: service.counter().into() };
        let key = key::flow(packet, refusal.scope.to_ne_bytes());
        let is_refused = |backend: &BackendValue| {
            backend.endpoint == refusal.endpoint
                && u32::from(backend.generation) == refusal.generation
                && key::same(&backend.vtep, &refusal.vtep)
        };
        match choose_again(&key, service, &by, is_refused, refusal.last != 0) {
            Ok(Again::Backend(id)) => id.into(),
            Ok(Again::Gone) => {
                refusal.failure = GONE;
                NO_BACKEND
            }
            Err(reason) => {
                refusal.failure = reason as u32;
                NO_BACKEND
            }
        }
    }
}

/// In place of a key into `BACKENDS`.
const NO_BACKEND: u64 = u64::MAX;

/// The endpoint of a network that has an address.
#[inline(always)]
pub fn endpoint<F: Family>(vni: [u8; 4], address: &F::Address) -> Option<&'static EndpointValue> {
    // SAFETY: values of a map without preallocation stay as they were until the program ends, here and below.
    unsafe { ENDPOINTS.get(key::endpoint(vni, F::mapped(address))) }
}

/// Whether an address is a VIP of a network.
#[inline(always)]
pub fn vip<F: Family>(vni: [u8; 4], address: &F::Address) -> Option<&'static ServiceValue> {
    // SAFETY: see `endpoint`.
    unsafe { SERVICES.get(key::vip(vni, F::mapped(address))) }
}

/// The service that publishes a port.
#[inline(always)]
pub fn published<F: Family>(port: [u8; 2], protocol: u8) -> Option<&'static ServiceValue> {
    // SAFETY: see `endpoint`.
    unsafe { SERVICES.get(key::published(key::known(&F::ANY), port, protocol)) }
}

/// The port behind one that is published at an address, on this node or another; zero when it is the same.
#[inline(always)]
pub fn target<F: Family>(
    node: &NodeConfig,
    address: &F::Address,
    port: [u8; 2],
    protocol: u8,
) -> Result<[u8; 2], DropReason> {
    let service = ingress::service_at::<F>(node, address, port, protocol);
    Ok(service.ok_or(DropReason::NoBackend)?.target_port)
}

/// A network with an endpoint on this node.
#[inline(always)]
pub fn network(vni: [u8; 4]) -> Result<&'static NetworkValue, DropReason> {
    // SAFETY: see `endpoint`.
    unsafe { NETWORKS.get(key::network(vni)) }.ok_or(DropReason::UnknownVni)
}
