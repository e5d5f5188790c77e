//! How the replies of translated flows are translated back.
//!
//! The first packet of a flow towards a task writes the entry under which its replies will be looked up. Two clients'
//! flows can look the same to the task (one client port, through two nodes, to the same task): then the second one is
//! given another source port, found again by its packets among the same few candidates.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use mesh_abi::{
    DISPLACED_MARKS, DropReason, FlowKey, PUBLISHED, ReturnPath, ReverseValue, flow_state::CONFIRMED,
};

use crate::{
    choose,
    conntrack::{self, Flow},
    hash, key,
    maps::{DISPLACED, REVERSE, REVERSE_KEPT, SEARCH},
    parse::TCP,
    stage,
    verifier::alone,
};

/// Source ports tried for one flow, its own included.
const CANDIDATES: u32 = 16;
/// When all are taken, one is given away whose flow was silent for so long and was never confirmed.
const SILENT_NS: u64 = 120_000_000_000;
/// The same for one that both sides have closed, or one has reset: what is still on the way has come by then.
const CLOSED_NS: u64 = 1_000_000_000;
/// Ports below are left to services.
const FIRST_PORT: u32 = 1024;

/// Notes how the replies of a flow go back, and returns the source port that its packets must have at the task, and whether the
/// flow begins.
///
/// `reply` is the reply's key, its destination port the client's own; `value` is what replies become; `flags` is TCP's
/// flag byte of the packet towards the task, zero for other protocols.
#[inline(always)]
pub fn remember(
    reply: &mut FlowKey,
    value: &mut ReverseValue,
    flags: u8,
) -> Result<([u8; 2], bool), DropReason> {
    let now = conntrack::now();
    value.last_seen = now;
    value.state = conntrack::asked(0, reply.protocol == TCP, flags);
    let own = value.destination_port;
    reply.destination_port = own;
    let (mut found, mut kept) = entry(reply);
    let mut searched = false;
    let place = match &found {
        Some(known) if same_flow(known, value) => Place::new(own, Place::FOUND),
        // Others may have been given a later port, but seldom were; a connection that opens may have any.
        None if conntrack::opens(flags) || !is_displaced(value) => Place::new(own, Place::FREE),
        _ => {
            searched = true;
            search_all(reply, value)
        }
    };
    let port = place.port();
    reply.destination_port = port;
    let begins = match place.kind() {
        Place::FOUND => {
            if searched {
                (found, kept) = entry(reply);
            }
            // One that was evicted this very moment comes back with the next packet.
            match found {
                Some(known) => go_on(reply, value, flags, now, (known, kept))?,
                None => false,
            }
        }
        Place::FREE => {
            if port != own {
                displace(value);
            }
            // Fails too when another CPU was faster, with this flow or another: the client's next packet finds out.
            begin(reply, value, BPF_NOEXIST)?;
            true
        }
        Place::SILENT => {
            displace(value);
            begin(reply, value, BPF_ANY)?;
            let gone: &FlowKey = reply;
            let _ = REVERSE_KEPT.remove(gone);
            true
        }
        _ => return Err(DropReason::NoFreePort),
    };
    Ok((port, begins))
}

/// Where a flow's entry is or may be: a port, and one of the kinds. One number, because the verifier forgets what
/// belongs together in anything larger.
#[derive(Clone, Copy)]
struct Place(u32);

impl Place {
    const NOWHERE: u32 = 0;
    /// The flow has an entry.
    const FOUND: u32 = 1;
    /// It has none, and nobody has this one.
    const FREE: u32 = 2;
    /// It has none, and every one is another's; this one's flow has been silent for long.
    const SILENT: u32 = 3;

    #[inline(always)]
    fn new([a, b]: [u8; 2], kind: u32) -> Self {
        Self(u32::from_le_bytes([a, b, kind as u8, 0]))
    }

    #[inline(always)]
    fn port(self) -> [u8; 2] {
        let [a, b, ..] = self.0.to_le_bytes();
        [a, b]
    }

    #[inline(always)]
    fn kind(self) -> u32 {
        self.0 >> 16
    }
}

/// A search under way. It is in a map rather than on the stack, where the verifier would follow each value that any caller
/// may have put there through every turn of the loops.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Search {
    reply: FlowKey,
    value: ReverseValue,
}

/// Looks through all candidates; few packets need it.
#[inline(always)]
fn search_all(reply: &FlowKey, value: &ReverseValue) -> Place {
    let Some(search) = SEARCH.get_ptr_mut(0) else { return Place(Place::NOWHERE) };
    // SAFETY: this CPU's own slot, and nothing else runs there before this program ends.
    let search = unsafe { &mut *search };
    key::copy(&mut search.reply, reply);
    key::copy(&mut search.value, value);
    Place(walk())
}

alone! {
    /// The [`Place`] for what is in `SEARCH`.
    fn walk[reverse_walk]() -> u32, or Place::NOWHERE; {
        let Some(search) = SEARCH.get_ptr_mut(0) else { return Place::NOWHERE };
        // SAFETY: see `search_all`; only `kind_of` changes it meanwhile, and not the value.
        let value = unsafe { &(*search).value };
        for wanted in [Place::FOUND, Place::FREE, Place::SILENT] {
            let mut candidate = value.destination_port;
            for _ in 0..CANDIDATES {
                if kind_of(u16::from_ne_bytes(candidate).into()) == wanted {
                    return Place::new(candidate, wanted).0;
                }
                candidate = next_candidate(candidate, value);
            }
        }
        Place::NOWHERE
    }
}

alone! {
    /// Which kind of [`Place`] a port is for what is in `SEARCH`. It asks for that itself, for its key is a map's.
    fn kind_of[reverse_kind_of](port: u32) -> u32, or Place::NOWHERE; {
        let Some(search) = SEARCH.get_ptr_mut(0) else { return Place::NOWHERE };
        // SAFETY: see `search_all`.
        let Search { reply, value } = unsafe { &mut *search };
        reply.destination_port = (port as u16).to_ne_bytes();
        match entry(reply).0 {
            None => Place::FREE,
            Some(known) if same_flow(known, value) => Place::FOUND,
            Some(known) if is_over(known, value.last_seen) => Place::SILENT,
            Some(_) => Place::NOWHERE,
        }
    }
}

/// Whether an entry may be given to another flow.
#[inline(always)]
fn is_over(known: &ReverseValue, now: u64) -> bool {
    let silent = now.saturating_sub(known.last_seen);
    if conntrack::closed(known.state) {
        silent > CLOSED_NS
    } else {
        known.state & CONFIRMED == 0 && silent > SILENT_NS
    }
}

/// The entry for a reply as a task sent it, with these TCP flags.
#[inline(always)]
pub fn find(reply: &FlowKey, flags: u8) -> Option<&'static ReverseValue> {
    let (entry, kept) = entry(reply);
    let entry = entry?;
    let now = conntrack::now();
    let told = entry.told();
    let next = conntrack::answered(told.0, reply.protocol == TCP, flags);
    if entry.is_news(next, now) {
        // SAFETY: a map value, valid until the program ends.
        unsafe { ReverseValue::tell(entry, (next, now)) };
        tell_choice(reply, entry, flags);
        if !kept && conntrack::settles(told, next, now) {
            keep(reply, entry);
        }
    }
    Some(entry)
}

/// The source port that the packets of a flow have at the task, if the flow is known. Arguments as for [`remember`];
/// nothing is noted.
#[inline(always)]
pub fn search(reply: &mut FlowKey, value: &ReverseValue) -> Option<[u8; 2]> {
    let place = search_all(reply, value);
    if place.kind() == Place::FOUND { Some(place.port()) } else { None }
}

/// The entry of a reply, as it stands.
#[inline(always)]
pub fn known(reply: &FlowKey) -> Option<&'static ReverseValue> {
    entry(reply).0.map(|known| &*known)
}

/// The entry of a reply, and whether its flow is established.
#[inline(always)]
fn entry(reply: &FlowKey) -> (Option<&'static mut ReverseValue>, bool) {
    let Some(stage) = stage::of(reply) else { return (None, false) };
    let asked = *stage;
    let mut found = None;
    if asked == stage::NEW {
        found = REVERSE.get_ptr_mut(reply);
    }
    let mut kept = false;
    if found.is_none() {
        found = REVERSE_KEPT.get_ptr_mut(reply);
        kept = found.is_some();
        if kept {
            *stage = stage::KEPT;
        } else if asked != stage::NEW {
            found = REVERSE.get_ptr_mut(reply);
            if found.is_some() {
                *stage = stage::NEW;
            }
        }
    }
    // SAFETY: a map value, valid until the program ends. An entry that is removed meanwhile says what it said last, or what
    // another flow's says, to one packet.
    (found.map(|found| unsafe { &mut *found }), kept)
}

/// A further packet of a known flow, whose entry was `found`; whether it begins anew.
#[inline(always)]
fn go_on(
    reply: &FlowKey,
    value: &ReverseValue,
    flags: u8,
    now: u64,
    (known, kept): (&mut ReverseValue, bool),
) -> Result<bool, DropReason> {
    if conntrack::opens(flags) && conntrack::closing(known.state) {
        begin(reply, value, BPF_ANY)?;
        if kept {
            let _ = REVERSE_KEPT.remove(reply);
        }
        return Ok(true);
    }
    let next = conntrack::asked(known.state, reply.protocol == TCP, flags);
    let moved = known.path != value.path
        || known.vtep != value.vtep
        || known.ifindex != value.ifindex
        || known.service != value.service;
    if !moved && !known.is_news(next, now) {
        return Ok(false);
    }
    let settles = !kept && conntrack::settles(known.told(), next, now);
    key::copy(&mut known.vtep, &value.vtep);
    known.ifindex = value.ifindex;
    known.path = value.path;
    known.service = value.service;
    // SAFETY: a map value, valid until the program ends.
    unsafe { ReverseValue::tell(known, (next, now)) };
    if settles {
        keep(reply, known);
    }
    Ok(false)
}

/// Moves a flow to the second stage.
#[inline(never)]
fn keep(reply: &FlowKey, value: &ReverseValue) -> u64 {
    let kept = REVERSE_KEPT.insert(reply, value, u64::from(BPF_NOEXIST)).is_ok();
    if kept {
        // The caller's pointer into that map stays readable.
        let _ = REVERSE.remove(reply);
    }
    kept.into()
}

#[inline(always)]
fn begin(reply: &FlowKey, value: &ReverseValue, how: u32) -> Result<(), DropReason> {
    REVERSE.insert(reply, value, u64::from(how)).map_err(|_| DropReason::FlowTableFull)
}

/// Replies that leave without passing the programs that ask for choices tell theirs themselves, when there is news.
#[inline(always)]
fn tell_choice(reply: &FlowKey, value: &ReverseValue, flags: u8) {
    const NETWORK: u8 = ReturnPath::Network as u8;
    const UPLINK: u8 = ReturnPath::Uplink as u8;
    const HOST: u8 = ReturnPath::Host as u8;
    let scope = match value.path {
        NETWORK => reply.scope,
        UPLINK | HOST => PUBLISHED,
        _ => return,
    };
    let asked = FlowKey {
        source: value.destination,
        destination: value.source,
        scope,
        source_port: value.destination_port,
        destination_port: value.source_port,
        protocol: reply.protocol,
        reserved: [0; 3],
    };
    let _ = choose::answered(&asked, flags);
}

/// A flow is known by both its ends; the node it comes through may change.
#[inline(always)]
fn same_flow(a: &ReverseValue, b: &ReverseValue) -> bool {
    let ports = |v: &ReverseValue| {
        let (s, d) = (v.source_port, v.destination_port);
        u32::from_le_bytes([s[0], s[1], d[0], d[1]])
    };
    let (sources, destinations) = (
        (key::words(&a.source), key::words(&b.source)),
        (key::words(&a.destination), key::words(&b.destination)),
    );
    // Without a branch for each word: the verifier would follow every one.
    let mut differs = ports(a) ^ ports(b);
    for i in 0..4 {
        differs |= sources.0[i] ^ sources.1[i];
        differs |= destinations.0[i] ^ destinations.1[i];
    }
    differs == 0 && (a.path == ReturnPath::Network as u8) == (b.path == ReturnPath::Network as u8)
}

/// The candidate after `port`: depends on both ends of the flow, so that colliding flows part ways.
#[inline(always)]
fn next_candidate(port: [u8; 2], value: &ReverseValue) -> [u8; 2] {
    let s = &value.source;
    let front = u32::from_le_bytes([s[12], s[13], s[14], s[15]]);
    let ports = u32::from_le_bytes([port[0], port[1], value.source_port[0], value.source_port[1]]);
    let number = FIRST_PORT + hash::again(front ^ ports) % (65536 - FIRST_PORT);
    (number as u16).to_be_bytes()
}

/// Whether a flow like this one may have another source port than its client's.
#[inline(always)]
fn is_displaced(value: &ReverseValue) -> bool {
    DISPLACED.get(mark_of(value)).is_none_or(|mark| *mark != 0)
}

/// Notes that this flow has.
#[inline(always)]
fn displace(value: &ReverseValue) {
    if let Some(mark) = DISPLACED.get_ptr_mut(mark_of(value)) {
        // SAFETY: a map value; whoever writes it writes the same.
        unsafe { *mark = 1 };
    }
}

#[inline(always)]
fn mark_of(value: &ReverseValue) -> u32 {
    let c = &value.destination;
    let client = u32::from_le_bytes([c[12], c[13], c[14], c[15]]);
    let ports = [value.destination_port, value.source_port];
    hash::again(client ^ u32::from_le_bytes([ports[0][0], ports[0][1], ports[1][0], ports[1][1]]))
        % DISPLACED_MARKS
}
