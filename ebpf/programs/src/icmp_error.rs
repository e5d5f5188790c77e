//! ICMP errors (RFC 792, RFC 4443) follow the flow that they are about, in either direction, and look to each side as if
//! nobody had translated anything: the packet that they quote is the one that was sent.

use mesh_abi::{
    BackendValue, Counter, DropReason, FlowKey, INGRESS_VNI, LocalEndpoint, NodeConfig, PUBLISHED,
    ReturnPath, ReverseValue, Steering, SteeringKind, Turn, node_flags,
};

use crate::{
    choose,
    deliver::{self, Next, Way},
    family::Family,
    header::Macs,
    key,
    maps::{BACKENDS, LOCAL_BY_ID, scratch},
    parse::{Frame, Packet, TCP, Tuple, UDP},
    reverse,
    skb::{self, Skb},
    task,
    translate::{self, translate},
    verdict::{self, FAILED, Outcome, count, pack, unpack},
    verifier::alone,
};

/// Offset of the quoted packet in an error, and of its checksum.
const QUOTE: u32 = 8;
const CHECKSUM: u32 = 2;

/// Whether a packet reports what became of another.
#[inline(always)]
pub fn is_error<F: Family>(packet: &Packet<F>) -> bool {
    // Unreachable, time exceeded, parameter problem; with IPv6 too big as well.
    let kind = packet.icmp_type;
    let error = if F::V6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 11 | 12) };
    error && packet.protocol == F::ICMP && !packet.fragment
}

/// The packet that an error quotes.
#[inline(always)]
fn quote<F: Family>(skb: Skb, packet: &Packet<F>) -> Option<&'static Packet<F>> {
    let scratch = scratch().ok()?;
    // SAFETY: this CPU's own, which no other program uses meanwhile; each function that asks holds no other.
    let quote = unsafe { &mut *F::quote(scratch) };
    if quoted(skb, packet, quote) == 0 { Some(quote) } else { None }
}

alone! {
    fn quoted[quote4_filled, quote6_filled]<F>(skb: Skb, packet: &Packet<F>, quote: &mut Packet<F>) -> u64, or FAILED; {
        verdict::code(quote.fill_quoted(skb, packet.l4 + QUOTE))
    }
}

/// An error from a task about a packet that was translated on its way to the task: translated, and how it leaves. When it
/// is about another packet, or `failure` is not zero afterwards, nothing.
#[inline(never)]
pub fn of_task<F: Family>(
    skb: Skb,
    packet: &mut Packet<F>,
    vni: u32,
    failure: &mut u64,
) -> Option<&'static ReverseValue> {
    let quote = quote(skb, packet)?;
    if !F::same(&quote.tuple.destination, &packet.tuple.source)
        || !F::same(&quote.tuple.source, &packet.tuple.destination)
    {
        return None;
    }
    let back = task::way_back_of_quote(quote, vni)?;
    *failure = turned_back(skb, packet, quote, back);
    count(Counter::FlowError);
    Some(back)
}

#[inline(never)]
fn turned_back<F: Family>(skb: Skb, packet: &mut Packet<F>, quote: &Packet<F>, back: &ReverseValue) -> u64 {
    let Ok((outer, inner)) = tuples::<F>() else { return verdict::code(Err(DropReason::HelperFailed)) };
    outer.source = F::of(&back.source);
    outer.destination = F::of(&back.destination);
    outer.source_port = [0; 2];
    outer.destination_port = [0; 2];
    inner.source = outer.destination;
    inner.destination = outer.source;
    inner.source_port = back.destination_port;
    inner.destination_port = back.source_port;
    verdict::code(rewrite(skb, packet, quote, (outer, inner)))
}

/// Room for what an error and the packet that it quotes become.
#[inline(always)]
fn tuples<F: Family>() -> Result<(&'static mut Tuple<F>, &'static mut Tuple<F>), DropReason> {
    let tuples = F::tuples(scratch()?);
    // SAFETY: this CPU's own, which no other program uses meanwhile; each function that asks holds no other.
    Ok(unsafe { (&mut (*tuples)[0], &mut (*tuples)[1]) })
}

/// On which side of a service an error arises that is about one of its replies.
#[derive(Clone, Copy)]
pub struct Side(u64);

impl Side {
    const VIP: u64 = 1 << 32;
    const HOST: u64 = 2 << 32;

    /// A task of that network that spoke to a VIP.
    #[inline(always)]
    pub fn of_vip(vni: [u8; 4]) -> Self {
        Self(Self::VIP | u64::from(u32::from_ne_bytes(vni)))
    }

    /// The world outside, or on the way there.
    #[inline(always)]
    pub fn outside() -> Self {
        Self(0)
    }

    /// A socket or a task of this node that spoke to one of its addresses.
    #[inline(always)]
    pub fn host() -> Self {
        Self(Self::HOST)
    }
}

/// An error from the side of a service's client goes to the task that sent the reply. Nothing, when it is about no reply.
#[inline(always)]
pub fn from_client<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &Packet<F>,
    way: &mut Way,
    side: Side,
) -> Option<Result<Next, DropReason>> {
    let mut found = Found { target_port: [0; 2], direct: false };
    let backend = about_reply(skb, node, packet, side, &mut found)?;
    let (kind, path) = match side.0 & (Side::VIP | Side::HOST) {
        Side::VIP => (SteeringKind::Vip, ReturnPath::Network),
        Side::HOST => (SteeringKind::Host, ReturnPath::Host),
        _ if found.direct => (SteeringKind::Direct, ReturnPath::Uplink),
        _ => (SteeringKind::Published, ReturnPath::Uplink),
    };
    count(Counter::FlowError);
    if backend.ifindex != 0 {
        key::copy(&mut way.vtep, &node.vtep);
        way.path = path;
        way.target_port = found.target_port;
        return Some(deliver::local(backend.endpoint, backend.generation).map(Next::LandError));
    }
    key::copy(&mut way.vtep, &backend.vtep);
    way.vni = INGRESS_VNI;
    way.macs = Macs::of(Steering {
        endpoint: backend.endpoint,
        generation: backend.generation,
        kind,
        turn: Turn::First,
        target_port: found.target_port,
        vni: backend.vni,
    });
    Some(Ok(Next::Send))
}

/// What else is known of the flow that a quoted reply belongs to.
struct Found {
    /// As in [`Steering::target_port`].
    target_port: [u8; 2],
    /// Its replies leave by the task's own node.
    direct: bool,
}

/// The backend whose reply an error quotes.
#[inline(never)]
fn about_reply<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &Packet<F>,
    side: Side,
    found: &mut Found,
) -> Option<&'static BackendValue> {
    let quote = quote(skb, packet)?;
    let asked = key::backward(&quote.tuple, quote.protocol, (side.0 as u32).to_ne_bytes());
    let choice = choose::known(&asked)?;
    found.direct = choose::is_direct(choice);
    if side.0 & Side::VIP == 0 && node.flags & node_flags::ADDRESSED_PORTS != 0 {
        let t = &quote.tuple;
        found.target_port =
            deliver::target::<F>(node, &t.source, t.source_port, quote.protocol).unwrap_or([0; 2]);
    }
    // SAFETY: values of a map without preallocation stay as they were until the program ends.
    unsafe { BACKENDS.get(choice.backend) }
}

/// An error about a reply, at the node of the task that sent the reply.
#[inline(always)]
pub fn land<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &mut Packet<F>,
    local: &LocalEndpoint,
    way: &Way,
) -> Outcome {
    unpack(landed(skb, node, packet, local, way))
}

#[inline(never)]
fn landed<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &mut Packet<F>,
    local: &LocalEndpoint,
    way: &Way,
) -> u64 {
    pack(land_here(skb, node, packet, local, way).and_then(|()| deliver::into_task(skb, local)))
}

#[inline(always)]
fn land_here<F: Family>(
    skb: Skb,
    node: &NodeConfig,
    packet: &mut Packet<F>,
    local: &LocalEndpoint,
    way: &Way,
) -> Result<(), DropReason> {
    let quote = quote(skb, packet).ok_or(DropReason::Malformed)?;
    let (outer, inner) = tuples::<F>()?;
    key::copy(inner, &quote.tuple);
    as_sent(node, quote, local, (way, inner))?;
    key::copy(outer, &packet.tuple);
    outer.destination = inner.source;
    if F::same(&outer.source, &outer.destination) {
        outer.source = inner.destination;
    }
    rewrite(skb, packet, quote, (outer, inner))
}

/// Makes the quoted reply what the task sent.
#[inline(always)]
fn as_sent<F: Family>(
    node: &NodeConfig,
    quote: &Packet<F>,
    local: &LocalEndpoint,
    (way, inner): (&Way, &mut Tuple<F>),
) -> Result<(), DropReason> {
    inner.source = F::local(local);
    if !matches!(way.path, ReturnPath::Network) {
        let target = if way.target_port == [0; 2] {
            deliver::target::<F>(node, &quote.tuple.source, quote.tuple.source_port, quote.protocol)?
        } else {
            way.target_port
        };
        if target != [0; 2] {
            inner.source_port = target;
        }
    } else if F::same(&inner.destination, &inner.source) {
        inner.destination = F::gateway(deliver::network(local.vni)?);
    }
    let scratch = scratch()?;
    // SAFETY: this CPU's own, which no other program uses meanwhile; nobody else holds these two.
    let (reply, value) = unsafe { (&mut (*scratch).reply, &mut (*scratch).value) };
    *reply = key::forward(inner, quote.protocol, local.vni);
    value.source = F::mapped(&quote.tuple.source);
    value.destination = F::mapped(&quote.tuple.destination);
    value.source_port = quote.tuple.source_port;
    value.destination_port = quote.tuple.destination_port;
    value.path = way.path as u8;
    let port = searched(reply, value);
    if port < 0 {
        return Err(DropReason::UnexpectedReturn);
    }
    inner.destination_port = (port as u16).to_be_bytes();
    Ok(())
}

/// The same for both families, and so compiled once: the port, or less than zero.
#[inline(never)]
fn searched(reply: &mut FlowKey, value: &ReverseValue) -> i64 {
    reverse::search(reply, value).map_or(-1, |port| u16::from_be_bytes(port).into())
}

alone! {
    /// Whether an error that came back to this node, translated already, is about a packet that the node has passed on: the
    /// interface of the choice, plus one, or 0.
    pub fn is_asked[error4_is_asked, error6_is_asked]<F>(skb: Skb, packet: &Packet<F>) -> u64, or 0; {
        let Some(quote) = quote(skb, packet) else { return 0 };
        let choice = choose::known(&key::forward(&quote.tuple, quote.protocol, PUBLISHED));
        choice.map_or(0, |choice| u64::from(choice.ifindex) + 1)
    }
}

/// To the task of this node whose packet to an address of the node an error is about.
#[inline(always)]
pub fn to_hairpin<F: Family>(skb: Skb, packet: &mut Packet<F>) -> Outcome {
    let task = asker(skb, packet).ok_or(DropReason::UnexpectedReturn)?;
    if !F::same(&F::egress(task), &packet.tuple.destination) {
        return Err(DropReason::StaleEndpoint);
    }
    verdict::ok(inwards(skb, packet, task))?;
    deliver::into_task(skb, task)
}

#[inline(never)]
fn asker<F: Family>(skb: Skb, packet: &Packet<F>) -> Option<&'static LocalEndpoint> {
    let quote = quote(skb, packet)?;
    let choice = choose::known(&key::forward(&quote.tuple, quote.protocol, PUBLISHED))?;
    // SAFETY: values of a map without preallocation stay as they were until the program ends.
    unsafe { LOCAL_BY_ID.get(choice.client) }
}

/// Makes of an error about a packet that left a task by its egress address one about the packet that the task sent.
#[inline(never)]
pub fn inwards<F: Family>(skb: Skb, packet: &mut Packet<F>, task: &LocalEndpoint) -> u64 {
    let Ok((outer, inner)) = tuples::<F>() else { return verdict::code(Err(DropReason::HelperFailed)) };
    key::copy(outer, &packet.tuple);
    outer.destination = F::local(task);
    verdict::code(match quote(skb, packet) {
        Some(quote) if F::same(&quote.tuple.source, &F::egress(task)) => {
            key::copy(inner, &quote.tuple);
            key::copy(&mut inner.source, &outer.destination);
            count(Counter::FlowError);
            rewrite(skb, packet, quote, (outer, inner))
        }
        _ => translate(skb, packet, outer),
    })
}

/// The other way: of a task's error about a packet that came to its egress address.
#[inline(never)]
pub fn outwards<F: Family>(skb: Skb, packet: &mut Packet<F>, task: &LocalEndpoint) -> u64 {
    let Ok((outer, inner)) = tuples::<F>() else { return verdict::code(Err(DropReason::HelperFailed)) };
    key::copy(outer, &packet.tuple);
    outer.source = F::egress(task);
    verdict::code(match quote(skb, packet) {
        Some(quote) if F::same(&quote.tuple.destination, &F::local(task)) => {
            key::copy(inner, &quote.tuple);
            inner.destination = outer.source;
            count(Counter::FlowError);
            rewrite(skb, packet, quote, (outer, inner))
        }
        _ => translate(skb, packet, outer),
    })
}

/// Gives an error and the packet that it quotes other addresses and ports.
#[inline(always)]
fn rewrite<F: Family>(
    skb: Skb,
    packet: &mut Packet<F>,
    quote: &Packet<F>,
    (outer, inner): (&Tuple<F>, &Tuple<F>),
) -> Result<(), DropReason> {
    verdict::ok(requoted(skb, packet, quote, inner))?;
    translate(skb, packet, outer)
}

alone! {
    fn requoted[requoted4, requoted6]<F>(
        skb: Skb,
        packet: &Packet<F>,
        quote: &Packet<F>,
        new: &Tuple<F>,
    ) -> u64, or FAILED; {
        verdict::code(requote(skb, packet, quote, new))
    }
}

#[inline(always)]
fn requote<F: Family>(
    skb: Skb,
    packet: &Packet<F>,
    quote: &Packet<F>,
    new: &Tuple<F>,
) -> Result<(), DropReason> {
    let old = &quote.tuple;
    let ports = |t: &Tuple<F>| {
        let (s, d) = (t.source_port, t.destination_port);
        u32::from_ne_bytes([s[0], s[1], d[0], d[1]])
    };
    let of_ports = skb::difference(Some(&ports(old)), &ports(new), 0);
    let of_all = skb::difference(Some(old), new, 0);
    let second = F::SOURCE + size_of::<F::Address>() as u32;
    if !F::V6 {
        // The quoted header's own checksum makes up for the addresses, as far as the error's goes.
        let word = |a: &F::Address| F::digest(a).to_le_bytes();
        skb.fix_ip_checksum(quote.l3 + translate::CHECKSUM, word(&old.source), word(&new.source))?;
        skb.fix_ip_checksum(quote.l3 + translate::CHECKSUM, word(&old.destination), word(&new.destination))?;
    }
    skb.store(quote.l3 + F::SOURCE, &new.source)?;
    skb.store(quote.l3 + second, &new.destination)?;
    let icmp = quote.protocol == F::ICMP;
    if icmp {
        // An echo has one identifier.
        let changed = old.source_port != new.source_port || old.destination_port != new.destination_port;
        if changed {
            let id = if old.source_port == [0; 2] { new.destination_port } else { new.source_port };
            skb.store(quote.l4 + 4, &id)?;
        }
    } else if matches!(quote.protocol, TCP | UDP) {
        skb.store(quote.l4, &new.source_port)?;
        skb.store(quote.l4 + 2, &new.destination_port)?;
    } else if ports(old) != ports(new) {
        return Err(DropReason::NoFreePort);
    }
    let checksum = packet.l4 + CHECKSUM;
    skb.fix_within(checksum, if F::V6 { of_all } else { of_ports }, false)?;
    // The quoted packet's own checksum, when the quotation reaches so far.
    let (at, covered) = match quote.protocol {
        TCP => (16, of_all),
        UDP => (6, of_all),
        _ if icmp => (2, if F::V6 { of_all } else { of_ports }),
        _ => return Ok(()),
    };
    let at = quote.l4 + at;
    if at + 2 > packet.l3 + packet.total_len || skb.load::<[u8; 2]>(at)? == [0; 2] {
        return Ok(());
    }
    skb.fix_within(at, covered, true)?;
    skb.fix_within(checksum, !covered, false)
}
