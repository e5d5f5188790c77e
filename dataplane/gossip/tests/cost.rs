//! What packets of strangers, and damaged or hostile ones of members, may cost: counted allocations.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::SocketAddr,
    time::Duration,
};

use mesh_gossip::{
    Acquaintance, Core, CoreConfig, Input, Interest, KeyRing, MAX_STREAM, Message, Packet, SealError, Sealer,
    Timing,
};
use mesh_types::{ClusterId, NetworkId, NodeId};

/// Counts what this thread allocates: how often, how much at present, and how much at most.
struct Counting;

thread_local! {
    static TIMES: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn held(change: isize) {
    // Threads that end free what they have when these are gone already.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        MOST.with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: it passes everything on to the system's allocator, and counts besides without allocating.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = TIMES.try_with(|times| times.set(times.get() + 1));
        held(layout.size() as isize);
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        held(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates, and how many bytes it holds at most.
fn cost(work: impl FnOnce()) -> (usize, usize) {
    let (times, before) = (TIMES.get(), HELD.get());
    MOST.set(before);
    work();
    (TIMES.get() - times, (MOST.get() - before) as usize)
}

fn sealer(cluster: u128, keys: &[u8]) -> Sealer {
    let ring = KeyRing::new(keys.iter().map(|key| [*key; 32]).collect()).unwrap();
    Sealer::new(ClusterId::from_u128(cluster), &ring)
}

#[test]
fn what_strangers_send_is_refused_without_an_allocation() {
    let own = sealer(1, &[1, 2, 3]);
    let plain = [7; 1000];
    let mut forged = sealer(1, &[2]).seal(&plain, b"udp").unwrap();
    forged[500] ^= 1;
    let strangers = [
        (vec![0; 1232], SealError::Malformed),
        (vec![1; 1232], SealError::UnknownKey),
        (sealer(1, &[9]).seal(&plain, b"udp").unwrap(), SealError::UnknownKey),
        (sealer(2, &[1]).seal(&plain, b"udp").unwrap(), SealError::Forged),
        (sealer(1, &[1]).seal(&plain, b"tcp").unwrap(), SealError::Forged),
        (forged, SealError::Forged),
    ];
    for (mut packet, why) in strangers {
        let before = packet.clone();
        let (times, _) = cost(|| assert_eq!(own.open_in_place(&mut packet, b"udp").unwrap_err(), why));
        assert_eq!(times, 0, "{why}");
        assert_eq!(packet, before, "{why}");
    }
    let mut known = sealer(1, &[3]).seal(&plain, b"udp").unwrap();
    let (times, _) = cost(|| assert_eq!(own.open_in_place(&mut known, b"udp").unwrap(), plain));
    assert_eq!(times, 0, "nor is what members send copied");
}

/// A packet whose body is `body`, after its sender and numbers.
fn packet(body: &[u8]) -> Vec<u8> {
    let from = NodeId::from_u128(1);
    let mut bytes = Packet { from, epoch: 1, sequence: 1, message: Message::Leave }.encode();
    bytes.pop();
    bytes.extend_from_slice(body);
    bytes
}

const HUGE: [u8; 9] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];

const ID: [u8; 16] = [7; 16];

#[test]
fn giant_counts_reserve_little() {
    // Each list of each message says that it has more elements than there is memory.
    let told = [&[0][..], &ID, &[1, 1, 0]].concat();
    let all = [&[0][..], &ID, &[1, 1, 1]].concat();
    let lists: [(&str, &[&[u8]]); 12] = [
        ("swim", &[&[0]]),
        ("update", &[&[1, 0, 0]]),
        ("item of an update", &[&[1, 0, 0, 1]]),
        ("interest of a digest", &[&[5], &told]),
        ("digest", &[&[5], &told, &[0]]),
        ("owners", &[&[6], &all]),
        ("owners of a table", &[&[6], &all, &[1, 0]]),
        ("wants", &[&[7]]),
        ("groups", &[&[7, 0]]),
        ("items of a group", &[&[7, 0, 1, 0], &ID, &[0]]),
        ("inquiry", &[&[8], &ID, &[0, 127, 0, 0, 1, 1]]),
        ("witness", &[&[11]]),
    ];
    for (list, beginning) in lists {
        let beginning = beginning.concat();
        let none = packet(&[&beginning, &[0][..], &[0; 20]].concat());
        assert_eq!(Packet::decode(&none).is_ok(), list != "item of an update", "{list} may have no elements");
        for tail in [0, 1000] {
            let bytes = packet(&[&beginning, &HUGE[..], &vec![0; tail]].concat());
            let (_, most) = cost(|| assert!(Packet::decode(&bytes).is_err(), "{list}"));
            assert!(most < 4 << 20, "{list} of {tail} bytes: {most} bytes");
        }
    }
}

#[test]
fn no_message_takes_much_more_memory_than_bytes() {
    // As many of the smallest elements as the largest message has room for: tables of two bytes each.
    let count = (MAX_STREAM - 100) / 2;
    let mut body = [&[6, 0][..], &ID, &[1, 1, 1]].concat();
    body = postcard::to_extend(&(count as u64), body).unwrap();
    body.resize(body.len() + count * 2, 0);
    let bytes = packet(&body);
    assert!(bytes.len() <= MAX_STREAM);
    let mut decoded = None;
    let (_, most) = cost(|| decoded = Packet::decode(&bytes).ok());
    let Message::Owners { tables, .. } = decoded.unwrap().message else { panic!() };
    assert_eq!(tables.len(), count);
    assert!(most < bytes.len() * 64, "{most} bytes for {}", bytes.len());
}

/// A member of a large cluster. Ids are random in life.
fn member(n: u32) -> (Core, (NodeId, SocketAddr)) {
    let node = NodeId::from_u128(u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let [_, b, c, d] = n.to_be_bytes();
    let addr = SocketAddr::from(([10, b, c, d], 7946));
    let timing = Timing::default();
    let mut core =
        Core::new(CoreConfig { node, advertise: addr, incarnation: 1, timing, seed: u64::from(n) });
    let interest = Interest::Networks([NetworkId::from_u128(1)].into());
    core.handle(Input::Interest(interest), Duration::ZERO, &mut Vec::new());
    (core, (node, addr))
}

#[test]
fn little_is_kept_of_each_member() {
    let others: Vec<(Acquaintance, (NodeId, SocketAddr))> =
        (1..=4096).map(member).map(|(core, named)| (core.acquaintance(), named)).collect();
    let held = |count: usize| {
        let (known, listed): (Vec<_>, Vec<_>) = others[..count].iter().cloned().unzip();
        let before = HELD.get();
        let (mut core, _) = member(0);
        core.acquaint(&known, Duration::ZERO);
        core.handle(Input::Peers(listed.clone()), Duration::ZERO, &mut Vec::new());
        let tables = core.take_tables().unwrap();
        assert_eq!(tables.members.len(), count + 1);
        // The lists were made before.
        HELD.get() - before
    };
    let each = (held(4096) - held(1024)) / (4096 - 1024);
    assert!((100..=460).contains(&each), "{each} bytes");
}
