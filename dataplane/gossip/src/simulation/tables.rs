//! Entries: nothing is lost for good and nothing dead comes back. Some are named by the faults that networkdb had.

use super::{failure::settled, *};
use crate::{Item, Message, Table, Version};

fn set(tasks: impl IntoIterator<Item = u128>) -> BTreeSet<u128> {
    tasks.into_iter().collect()
}

/// `by` says something in an update, as it might at any time.
fn says(sim: &mut Sim, by: u8, to: u8, items: Vec<Item>) {
    let update = Message::Update { relay: false, ticket: 0, items };
    let packet = Packet { from: node(by), epoch: 1000, sequence: 1_000_000, message: update };
    sim.tell(to, Input::Datagram(packet.encode()));
}

fn gone(owner: u8, task: u128, counter: u64) -> Item {
    let version = Version { epoch: 1000, counter };
    Item::Gone { scope: net(1), version, owner: node(owner), task: TaskId::from_u128(task), network: net(1) }
}

#[test]
fn attachments_missing_from_a_bulk_sync() {
    // Not one update comes through: all is known by comparison alone, who is interested included.
    let mut sim = Sim::empty(1);
    sim.lost = Box::new(|_, _, packet| matches!(packet.message, Message::Update { .. }));
    for n in 1..=4 {
        sim.boot(n, 1000, 4, Interest::default());
    }
    sim.until(SECOND, Sim::all_alive);
    sim.run(SECOND * 10);
    for n in 1..=3 {
        sim.tell(n, Input::Announce(own(n, 1, [u128::from(n)])));
    }
    let all = |s: &Sim| (1..=3).all(|n| s.sees(n, 1) == set(1..=3));
    sim.until(SECOND * 40, all);
    sim.tell(4, Input::Interest(Interest::Networks([net(1)].into())));
    sim.until(SECOND * 40, |s| all(s) && s.sees(4, 1) == set(1..=3));
}

#[test]
fn forged_tombstones() {
    let mut sim = settled(2, 4);
    // By nobody but the owner, of any age, and by all of them at once.
    for counter in [1, 50, 5000] {
        for (by, to) in [(2, 3), (3, 2), (2, 4), (4, 1)] {
            says(&mut sim, by, to, vec![gone(1, 1, counter)]);
        }
        let took = sim.until(SECOND * 15, |s| s.all_see(1, &set(1..=4)));
        assert!(took < SECOND * 12, "{took:?}");
        sim.run(SECOND * 10);
        assert!(sim.all_see(1, &set(1..=4)), "{sim:?}");
    }
}

#[test]
fn lost_sync_acks() {
    // Half of each step of the comparisons is lost, and all updates are.
    for seed in 0..5 {
        let mut sim = settled(seed, 4);
        let mut rng = StdRng::seed_from_u64(seed);
        sim.lost = Box::new(move |_, _, packet| match packet.message {
            Message::Update { .. } => true,
            Message::Digest { .. } | Message::Owners { .. } | Message::Records { .. } => rng.random_bool(0.5),
            _ => false,
        });
        sim.tell(1, Input::Announce(own(1, 1, [11, 12])));
        sim.tell(2, Input::Announce(vec![]));
        sim.until(SECOND * 120, |s| s.all_see(1, &set([3, 4, 11, 12])));
    }
}

#[test]
fn failed_node_state_dropped() {
    // Back after any time, a node whose entries have not changed at all is known again with all of them.
    for away in [5, 60, 1500] {
        let mut sim = settled(3, 3);
        sim.island = [3].into();
        sim.run(SECOND * away);
        assert!([1, 2].iter().all(|n| sim.sees(*n, 1) == set(1..=2)), "{sim:?}");
        sim.island.clear();
        let took = sim.until(SECOND * 15, |s| s.all_see(1, &set(1..=3)) && s.all_alive());
        assert!(took < SECOND * 8, "{took:?} after {away} s");
    }
}

#[test]
fn what_was_deleted_stays_so_while_its_owner_is_silent() {
    for seed in 0..4 {
        let mut sim = settled(seed, 4);
        sim.tell(1, Input::Announce(own(1, 1, [1, 100])));
        sim.run(SECOND * 10);
        // Node 4 does not hear of the deletion, and is away for longer than tombstones live.
        sim.island = [4].into();
        sim.run(SECOND * 5);
        sim.tell(1, Input::Announce(own(1, 1, [100])));
        sim.run(Timing::default().tombstone_ttl * 2);
        // The only one that could contradict is not there when it comes back, and keeps what it runs.
        sim.cores.remove(&1);
        sim.run(SECOND * 5);
        sim.island.clear();
        let end = sim.now + SECOND * 30;
        while sim.step(end) {
            for n in [2, 3] {
                assert!(!sim.sees(n, 1).contains(&1), "node {n}, seed {seed}: {sim:?}");
            }
        }
        assert!(sim.all_see(1, &set([2, 3, 4, 100])), "seed {seed}: {sim:?}");
    }
}

#[test]
fn tombstones_go_after_a_bounded_time() {
    let mut sim = settled(4, 3);
    for round in 0..50 {
        sim.tell(1, Input::Announce(own(1, 1, (0..20).map(|n| 1000 + round * 20 + n))));
        sim.run(SECOND / 5);
    }
    let held = |s: &Sim, n: u8| s.cores[&n].core.records.of(Table::Endpoints(net(1)), node(1)).len();
    assert!((1..=3).all(|n| held(&sim, n) > 500), "{sim:?}");
    sim.run(Timing::default().tombstone_ttl + SECOND * 3);
    assert!((1..=3).all(|n| held(&sim, n) == 20), "{:?}", [held(&sim, 1), held(&sim, 2), held(&sim, 3)]);
}

#[test]
fn a_node_tells_its_truth_after_a_restart() {
    for (seed, incarnation) in [(1, 2000), (2, 1000), (3, 5)] {
        // The new daemon's incarnation may be higher, the same, or lower: whatever its clock says.
        let mut sim = settled(seed, 3);
        sim.tell(3, Input::Announce(own(3, 1, [3, 33])));
        sim.run(SECOND);
        sim.cores.remove(&3);
        sim.run(SECOND);
        sim.boot(3, incarnation, 3, Interest::Networks([net(1)].into()));
        sim.tell(3, Input::Announce(own(3, 1, [33, 333])));
        let took = sim.until(SECOND * 20, |s| s.all_see(1, &set([1, 2, 33, 333])) && s.all_alive());
        assert!(took < SECOND * 10, "{took:?} with incarnation {incarnation}");
    }
}

#[test]
fn a_node_that_moves_is_followed() {
    let mut sim = settled(6, 4);
    let moved = SocketAddr::from(([10, 0, 1, 4], 7946));
    sim.tell(4, Input::Advertise(moved));
    let at = |s: &Sim, n: u8| s.tables(n).members.get(&node(4)).unwrap().addr;
    let end = sim.now + SECOND;
    while sim.step(end) {
        assert!(sim.all_see(1, &set(1..=4)), "{sim:?}");
    }
    assert!((1..=4).all(|n| at(&sim, n) == moved), "{sim:?}");
    let end = sim.now + SECOND * 10;
    while sim.step(end) {
        assert!(sim.all_see(1, &set(1..=4)) && sim.all_alive(), "{sim:?}");
    }
}

#[test]
fn a_restart_elsewhere_is_followed() {
    let mut sim = settled(7, 3);
    let old = sim.cores.remove(&3).unwrap();
    drop(old);
    sim.run(SECOND * 4);
    sim.boot(3, 2000, 3, Interest::Networks([net(1)].into()));
    let moved = SocketAddr::from(([10, 0, 1, 3], 7946));
    sim.tell(3, Input::Advertise(moved));
    sim.tell(3, Input::Announce(own(3, 1, [3])));
    sim.until(SECOND * 10, |s| s.all_see(1, &set(1..=3)) && s.all_alive());
    assert!((1..=3).all(|n| sim.tables(n).members.get(&node(3)).unwrap().addr == moved));
}
