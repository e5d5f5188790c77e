//! Tells user space of flows that begin and end, and of packets, while it watches ([`Watch`]).
//!
//! Nobody watching costs a look at one element of an array where a flow begins or ends, where a packet is dropped, and at the
//! places where packets are told. What is told beyond that is looked up anew, from the packet as it is then.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes};
use mesh_abi::{
    BackendValue, DropReason, EndpointKey, EntryPoint, EventCounts, EventHead, EventKind, FlowKey, NOT_ICMP,
    PUBLISHED, SNAP, Sight, WATCH_WINDOW_NS, Watch, watch_kinds,
};

use crate::{
    choose, conntrack,
    family::{Family, V4, V6},
    key,
    maps::{BACKENDS, ENDPOINTS, EVENT_COUNTS, EVENT_ROOM, EVENTS, LOCAL_BY_IFINDEX, WATCH},
    parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Packet},
    skb::{self, ETHERNET, Skb},
    verifier::{alone, forget},
};

/// Where an event is made: on the stack it would take more room than there is.
#[repr(C)]
pub struct Room {
    head: EventHead,
    bytes: [u8; SNAP],
    packet4: Packet<V4>,
    packet6: Packet<V6>,
    key: EndpointKey,
}

/// A packet is at a place. `ifindex`: the host side of the task that sent it or gets it; 0 when there is none.
#[inline(always)]
pub fn seen(skb: Skb, place: Sight, program: u32, ifindex: u32) {
    if is_watched(watch_kinds::PACKET) {
        let what = EventKind::Packet as u32 | program << 8 | (place as u32) << 16;
        forget(told(skb, what, ifindex));
    }
}

/// Offsets in a frame: its EtherType, and the addresses of ARP for IPv4 (RFC 826).
const ETHERTYPE: u32 = 12;
const ARP_SENDER: u32 = ETHERNET + 14;
const ARP_TARGET: u32 = ETHERNET + 24;

/// In place of a program, where several come by.
pub const ANY: u32 = 0;

/// A packet is dropped.
#[inline(always)]
pub fn dropped(skb: Skb, reason: DropReason, program: EntryPoint) {
    if is_watched(watch_kinds::DROP) && is_told_enough() == 0 {
        let what = EventKind::Drop as u32 | (program as u32) << 8 | (reason as u32 + 1) << 24;
        forget(told(skb, what, skb.ifindex()));
    }
}

/// A flow to a service begins. `by`: as for choices.
#[inline(always)]
pub fn began(key: &FlowKey, backend: u32, number: u32, by: &choose::Chooser) {
    if is_watched(watch_kinds::NEW) && is_told_enough() == 0 {
        let what = u64::from(by.service) << 16 | u64::from(by.ifindex) << 32;
        forget(flow_told(key, what, backend, number, by.client));
    }
}

/// A connection between tasks opens.
#[inline(always)]
pub fn opened<F: Family>(packet: &Packet<F>, vni: [u8; 4], client: u32) {
    if conntrack::opens(packet.flags) && is_watched(watch_kinds::NEW) && is_told_enough() == 0 {
        forget(flow_told(&key::flow(packet, vni), 0, 0, 0, client));
    }
}

/// A flow's state goes from `before` to `state`: perhaps that is its end.
#[inline(always)]
pub fn changed(key: &FlowKey, known: &mesh_abi::ChoiceValue, before: u8, state: u8) {
    let is_end = conntrack::closed(state) && !conntrack::closed(before);
    if is_end && is_watched(watch_kinds::CLOSED) && is_told_enough() == 0 {
        let what = EventKind::Closed as u64
            | u64::from(state) << 8
            | u64::from(known.service) << 16
            | u64::from(known.ifindex) << 32;
        forget(flow_told(key, what, known.backend, 0, known.client));
    }
}

/// Whether anybody wants such events. Carriers of packets that tell nothing of them leave them to others then.
#[inline(always)]
pub fn is_watched(kinds: u32) -> bool {
    WATCH.get(0).is_some_and(|watch| watch.kinds & kinds != 0)
}

/// Whether packets are told of at their places, so that none may go by unseen.
#[inline(always)]
pub fn is_seen() -> bool {
    is_watched(watch_kinds::PACKET) && watch(conntrack::now()).is_some()
}

/// What is watched, unless that is over.
#[inline(always)]
fn watch(now: u64) -> Option<&'static Watch> {
    WATCH.get(0).filter(|watch| now < watch.until)
}

#[inline(always)]
fn room() -> Option<&'static mut Room> {
    let room = EVENT_ROOM.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, which no other program uses meanwhile; each function that asks calls none that does.
    Some(unsafe { &mut *room })
}

alone! {
    /// Whether nothing more is told for now: not 0 when a watch without conditions has had what this CPU may tell, which is counted
    /// here then, or when it is over. Asked first, it keeps a flood of events that nobody will see from costing what seen
    /// ones do; a function of its own, since what the others need of the stack is then not needed beside it.
    fn is_told_enough[event_is_left_out]() -> u32, or 1; {
        let now = conntrack::now();
        let Some(watch) = watch(now) else { return 1 };
        if !is_for_all(watch) {
            return 0;
        }
        let Some(counts) = counts() else { return 1 };
        let enough = counts.window == now / WATCH_WINDOW_NS && counts.used >= watch.rate.into();
        if enough {
            counts.limited += 1;
        }
        enough.into()
    }
}

alone! {
    /// Tells of a packet. In `what` are, a byte each, an [`EventKind`], the program, a [`Sight`], and a reason plus one. 0
    /// when it is not told.
    fn told[event_of_packet](skb: Skb, what: u32, ifindex: u32) -> u32, or 0; {
        let now = conntrack::now();
        let Some(watch) = watch(now) else { return 0 };
        // SAFETY: values of maps without preallocation stay as they were until the program ends, here and below.
        let task = unsafe { LOCAL_BY_IFINDEX.get(ifindex) };
        let (endpoint, mark) = (task.map_or(0, |task| task.id), skb.mark());
        if watch.endpoint != 0 && endpoint != watch.endpoint || watch.mark != 0 && mark != watch.mark {
            return 0;
        }
        let Some(room) = room() else { return 0 };
        let [kind, program, place, reason] = what.to_le_bytes();
        let head = &mut room.head;
        head.kind = kind;
        head.program = program;
        head.place = place;
        head.reason = reason;
        head.ifindex = ifindex;
        head.endpoint = endpoint;
        head.backend = 0;
        head.number = 0;
        head.mark = mark;
        head.len = skb.len();
        head.vni = task.map_or(PUBLISHED, |task| task.vni);
        head.service = 0;
        head.state = 0;
        head.ethertype = skb.load::<[u8; 2]>(ETHERTYPE).unwrap_or_default();
        match head.ethertype {
            ETHERTYPE_IPV4 => describe(skb, head, &mut room.packet4),
            ETHERTYPE_IPV6 => describe(skb, head, &mut room.packet6),
            kind => {
                head.source = [0; 16];
                head.destination = [0; 16];
                head.source_port = [0; 2];
                head.destination_port = [0; 2];
                head.protocol = 0;
                head.flags = 0;
                head.icmp_type = NOT_ICMP;
                if kind == ETHERTYPE_ARP {
                    head.source = asked_by(skb, ARP_SENDER);
                    head.destination = asked_by(skb, ARP_TARGET);
                }
            }
        }
        if !is_wanted(watch, head) || !is_allowed(watch) {
            return 0;
        }
        head.time = exactly();
        let wanted = if watch.snaplen < head.len { watch.snaplen } else { head.len };
        let captured = take(skb, &mut room.bytes, wanted);
        send(room, captured)
    }
}

alone! {
    /// Tells of a flow. In `what` are an [`EventKind`] and the state, a byte each, the service's index in two, the interface in
    /// four. 0 when it is not told.
    fn flow_told[event_of_flow](
        key: &FlowKey,
        what: u64,
        backend: u32,
        number: u32,
        client: u32,
    ) -> u32, or 0; {
        // Into the room at once, what would else lie on the stack: the ways here are long, and 512 bytes are for all of them
        // (check_max_stack_depth; older kernels take each function for a multiple of 32).
        let Some(room) = room() else { return 0 };
        room.head.endpoint = client;
        room.head.backend = backend;
        room.head.number = number;
        room.head.kind = what as u8;
        room.head.state = (what >> 8) as u8;
        room.head.service = (what >> 16) as u16;
        room.head.ifindex = (what >> 32) as u32;
        room.head.time = exactly();
        let Some(watch) = watch(room.head.time) else { return 0 };
        room.head.program = 0;
        room.head.place = 0;
        room.head.reason = 0;
        room.head.mark = 0;
        room.head.len = 0;
        room.head.flags = 0;
        key::copy(&mut room.head.source, &key.source);
        key::copy(&mut room.head.destination, &key.destination);
        room.head.vni = key.scope;
        room.head.source_port = key.source_port;
        room.head.destination_port = key.destination_port;
        room.head.protocol = key.protocol;
        // Either end may be here.
        if room.head.endpoint == 0 {
            key::copy(&mut room.key.address, &room.head.source);
            room.head.endpoint = here(room);
        }
        if room.head.endpoint == 0 || watch.endpoint != 0 && room.head.endpoint != watch.endpoint {
            let asked = match asked(room) {
                Some(backend) => backend.endpoint,
                None => {
                    key::copy(&mut room.key.address, &room.head.destination);
                    here(room)
                }
            };
            if room.head.endpoint == 0 || asked == watch.endpoint {
                room.head.endpoint = asked;
            }
        }
        let head = &room.head;
        let is_other = watch.endpoint != 0 && head.endpoint != watch.endpoint;
        if is_other || watch.mark != 0 || !is_wanted(watch, head) || !is_allowed(watch) {
            return 0;
        }
        send(room, 0)
    }
}

/// The task of this node that a flow is given to.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "the key stays in the room, not on the stack")]
fn asked(room: &Room) -> Option<&'static BackendValue> {
    // SAFETY: see `told`.
    unsafe { BACKENDS.get(&room.head.backend) }.filter(|backend| backend.ifindex != 0)
}

/// The id of a task of this node by the address in the room's key.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "the key stays in the room, not on the stack")]
fn here(room: &mut Room) -> u32 {
    room.key.vni = room.head.vni;
    // SAFETY: see `told`.
    unsafe { ENDPOINTS.get(&room.key) }.map_or(0, |endpoint| endpoint.local.into())
}

/// An address in an ARP packet; zeros where it ends before.
#[inline(always)]
fn asked_by(skb: Skb, offset: u32) -> mesh_abi::Address {
    skb.load::<[u8; 4]>(offset).map_or([0; 16], mesh_abi::v4_mapped)
}

/// Reads the packet's addresses and ports; zeros where it has none.
#[inline(always)]
fn describe<F: Family>(skb: Skb, head: &mut EventHead, packet: &mut Packet<F>) {
    packet.tuple.source = F::UNSPECIFIED;
    packet.tuple.destination = F::UNSPECIFIED;
    packet.protocol = 0;
    packet.icmp_type = NOT_ICMP;
    // What is malformed is told as far as it could be read.
    let _ = skb::parse(skb, ETHERNET, packet);
    key::copy(&mut head.source, &F::mapped(&packet.tuple.source));
    key::copy(&mut head.destination, &F::mapped(&packet.tuple.destination));
    head.source_port = packet.tuple.source_port;
    head.destination_port = packet.tuple.destination_port;
    head.protocol = packet.protocol;
    head.flags = packet.flags;
    head.icmp_type = packet.icmp_type;
}

/// Whether no condition but the kind is asked for.
#[inline(always)]
fn is_for_all(watch: &Watch) -> bool {
    watch.endpoint == 0
        && watch.mark == 0
        && watch.vni == PUBLISHED
        && watch.protocol == 0
        && watch.port == [0; 2]
        && key::words(&watch.address) == [0; 4]
}

#[inline(always)]
fn is_wanted(watch: &Watch, head: &EventHead) -> bool {
    let any = |address: &mesh_abi::Address| key::words(address) == [0; 4];
    let (port, none) = (watch.port, [0; 2]);
    (watch.vni == PUBLISHED || watch.vni == head.vni)
        && (watch.protocol == 0 || watch.protocol == head.protocol)
        && (port == none || port == head.source_port || port == head.destination_port)
        && (any(&watch.address)
            || key::same(&watch.address, &head.source)
            || key::same(&watch.address, &head.destination))
}

/// The kernel's monotonic clock.
#[inline(always)]
fn exactly() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether this CPU may tell one more now.
#[inline(always)]
fn is_allowed(watch: &Watch) -> bool {
    let Some(counts) = counts() else { return false };
    let window = conntrack::now() / WATCH_WINDOW_NS;
    if counts.window != window {
        counts.window = window;
        counts.used = 0;
    }
    let allowed = counts.used < watch.rate.into();
    if allowed {
        counts.used += 1;
    } else {
        counts.limited += 1;
    }
    allowed
}

#[inline(always)]
fn counts() -> Option<&'static mut EventCounts> {
    let counts = EVENT_COUNTS.get_ptr_mut(0)?;
    // SAFETY: this CPU's own.
    Some(unsafe { &mut *counts })
}

/// Copies the packet's first bytes; how many.
#[inline(always)]
fn take(skb: Skb, to: &mut [u8; SNAP], wanted: u32) -> u32 {
    if wanted == 0 {
        return 0;
    }
    let wanted = if wanted > SNAP as u32 { SNAP as u32 } else { wanted };
    // Changes nothing; the verifier sees the bounds.
    let len = (forget(wanted - 1) & (SNAP as u32 - 1)) + 1;
    // SAFETY: the helper writes as many bytes, for which there is room.
    let failed = unsafe { bpf_skb_load_bytes(skb.raw().cast(), 0, to.as_mut_ptr().cast(), len) } != 0;
    if failed { 0 } else { len }
}

/// Hands over what is in the room: the head and so many bytes. 0 when there is no room for it in the ring.
#[inline(always)]
fn send(room: &mut Room, captured: u32) -> u32 {
    const HEAD: usize = size_of::<EventHead>();
    room.head.captured = captured;
    let start = core::ptr::from_ref(room).cast::<u8>();
    let sent = if captured == 0 {
        // SAFETY: within the room.
        EVENTS.output::<[u8]>(unsafe { core::slice::from_raw_parts(start, HEAD) }, 0)
    } else {
        // As above.
        let len = (forget(captured - 1) & (SNAP as u32 - 1)) + 1;
        // SAFETY: within the room: bytes follow the head.
        EVENTS.output::<[u8]>(unsafe { core::slice::from_raw_parts(start, HEAD + len as usize) }, 0)
    };
    let Some(counts) = counts() else { return 0 };
    if sent.is_ok() {
        counts.told += 1;
        1
    } else {
        counts.lost += 1;
        0
    }
}
