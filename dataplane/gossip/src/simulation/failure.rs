//! Nodes die, come back, leave, are cut off: the tables follow.

use super::*;

pub(super) fn settled(seed: u64, count: u8) -> Sim {
    let mut sim = Sim::new(seed, count);
    sim.until(SECOND * 10, Sim::all_alive);
    for n in 1..=count {
        sim.tell(n, Input::Announce(own(n, 1, [u128::from(n)])));
    }
    sim.until(SECOND * 5, |s| s.all_see(1, &(1..=u128::from(count)).collect()));
    sim
}

#[test]
fn a_dead_nodes_endpoints_leave_within_three_seconds() {
    for (count, seeds) in [(2, 20), (3, 40), (5, 20), (12, 5)] {
        for seed in 0..seeds {
            let mut sim = settled(seed, count);
            let pause = sim.rng.random_range(0..3000);
            sim.run(Duration::from_millis(pause));
            sim.dies(count);
            let left: BTreeSet<u128> = (1..u128::from(count)).collect();
            let took = sim.until(SECOND * 10, |s| s.all_see(1, &left));
            assert!(took < SECOND * 3, "{took:?} with {count} nodes, seed {seed}");
            assert_eq!(sim.state(1, count), Some(MemberState::Down));
        }
    }
}

#[test]
fn nobody_dies_of_a_lossy_network() {
    for seed in 0..4 {
        let mut sim = settled(seed, 5);
        sim.loss = 0.05;
        sim.delay = (Duration::from_millis(1), Duration::from_millis(60));
        let end = sim.now + SECOND * 60;
        while sim.step(end) {
            assert!(sim.all_see(1, &(1..=5).collect()), "seed {seed}: {sim:?}");
        }
        let renewals: u64 = sim.cores.values().map(|r| r.core.stats().renewals).sum();
        assert_eq!(renewals, 0, "seed {seed}: {sim:?}");
    }
}

#[test]
fn a_standstill_of_a_second_is_forgiven() {
    let mut sim = settled(2, 3);
    for _ in 0..20 {
        // Node 3 stands still: its packets wait, its timers do not run.
        let asleep = sim.cores.remove(&3).unwrap();
        let wake = sim.now + SECOND;
        let mut waiting = Vec::new();
        while sim.now < wake {
            sim.run(Duration::from_millis(1));
            let held: Vec<_> = sim.packets.iter().filter(|(_, p)| p.0 == 3).map(|(k, _)| *k).collect();
            waiting.extend(held.into_iter().filter_map(|key| sim.packets.remove(&key)));
        }
        sim.cores.insert(3, asleep);
        for (_, arriving) in waiting {
            sim.tell(3, arriving.into());
        }
        assert!(sim.all_see(1, &[1, 2, 3].into()), "{sim:?}");
        sim.run(SECOND * 3);
        assert!(sim.all_see(1, &[1, 2, 3].into()), "{sim:?}");
    }
}

#[test]
fn a_partition_heals_by_itself() {
    for (seed, count) in [(1, 2), (2, 3), (3, 5), (4, 5)] {
        let mut sim = settled(seed, count);
        sim.island = [1, 2].into_iter().filter(|n| *n < count).collect();
        sim.run(SECOND * 30);
        assert_eq!(sim.state(1, count), Some(MemberState::Down));
        // Both sides change in the meantime: one entry goes, two come.
        sim.tell(1, Input::Announce(own(1, 1, [101])));
        sim.tell(count, Input::Announce(own(count, 1, [u128::from(count), 103])));
        sim.run(SECOND);
        sim.island.clear();
        let mut expected: BTreeSet<u128> = (2..=u128::from(count)).collect();
        expected.extend([101, 103]);
        let took = sim.until(SECOND * 15, |s| s.all_see(1, &expected) && s.all_alive());
        assert!(took < SECOND * 8, "{took:?}");
    }
}

#[test]
fn a_partition_heals_that_outlasts_what_is_remembered() {
    for seed in 0..2 {
        let mut sim = settled(seed, 4);
        sim.island = [4].into();
        sim.run(SECOND * 5);
        sim.tell(1, Input::Announce(own(1, 1, [101])));
        sim.tell(4, Input::Announce(own(4, 1, [104])));
        sim.run(Timing::default().down_retention + SECOND * 60);
        sim.island.clear();
        let took = sim.until(SECOND * 15, |s| s.all_see(1, &[2, 3, 101, 104].into()) && s.all_alive());
        assert!(took < SECOND * 8, "{took:?}, seed {seed}");
    }
}

#[test]
fn what_a_dead_node_once_said_brings_it_back_at_no_time() {
    let mut sim = settled(8, 3);
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = said.clone();
    sim.lost = Box::new(move |from, to, packet| {
        if (from, to) == (3, 1) {
            recorded.lock().unwrap().push(packet.encode());
        }
        false
    });
    sim.run(SECOND * 5);
    sim.tell(3, Input::Announce(own(3, 1, [3, 33])));
    sim.run(SECOND);
    sim.dies(3);
    sim.run(Timing::default().down_retention + SECOND * 60);
    let said = said.lock().unwrap().clone();
    assert!(said.len() > 20, "{}", said.len());
    for packet in said {
        sim.tell(1, Input::Datagram(packet));
        assert_eq!((sim.state(1, 3), sim.sees(1, 1)), (Some(MemberState::Down), [1, 2].into()), "{sim:?}");
    }
}

#[test]
fn a_restart_drops_ghosts() {
    let mut sim = settled(3, 3);
    sim.tell(3, Input::Announce(own(3, 1, [3, 33])));
    sim.run(SECOND);
    sim.cores.remove(&3);
    sim.run(SECOND / 5);
    sim.boot(3, 2000, 3, Interest::Networks([net(1)].into()));
    sim.tell(3, Input::Announce(own(3, 1, [333])));
    // What is new is known at once; what its past life told goes as soon as it has told all.
    let took = sim.until(SECOND, |s| [1, 2].iter().all(|n| s.sees(*n, 1).contains(&333)));
    assert!(took < SECOND / 2, "{took:?}");
    let took = sim.until(SECOND * 10, |s| s.all_see(1, &[1, 2, 333].into()));
    assert!(took < SECOND * 5, "{took:?}");
}

#[test]
fn a_clock_that_went_back_is_overcome() {
    let mut sim = settled(4, 3);
    sim.dies(3);
    sim.run(SECOND * 4);
    sim.boot(3, 10, 3, Interest::Networks([net(1)].into()));
    sim.tell(3, Input::Announce(own(3, 1, [333])));
    sim.until(SECOND * 8, |s| s.all_see(1, &[1, 2, 333].into()) && s.all_alive());
}

#[test]
fn a_leave_is_known_at_once() {
    let mut sim = settled(5, 3);
    sim.tell(3, Input::Leave);
    let took = sim.until(SECOND, |s| {
        [1, 2].iter().all(|n| s.sees(*n, 1) == [1, 2].into() && s.state(*n, 3) == Some(MemberState::Left))
    });
    assert!(took < Duration::from_millis(10), "{took:?}");
    sim.run(SECOND * 10);
    assert_eq!(sim.state(1, 3), Some(MemberState::Left));
    sim.boot(3, 2000, 3, Interest::Networks([net(1)].into()));
    sim.tell(3, Input::Announce(own(3, 1, [3])));
    sim.until(SECOND * 6, |s| s.all_see(1, &[1, 2, 3].into()) && s.all_alive());
}

#[test]
fn a_node_that_the_managers_remove_is_forgotten() {
    let mut sim = settled(6, 3);
    for n in [1, 2] {
        sim.tell(n, Input::Peers([1, 2].map(|n| (node(n), addr(n))).into()));
    }
    for _ in 0..20 {
        sim.run(SECOND / 2);
        for n in [1, 2] {
            assert_eq!((sim.sees(n, 1), sim.state(n, 3)), ([1, 2].into(), None), "{sim:?}");
        }
    }
    for n in [1, 2] {
        sim.tell(n, Input::Peers([1, 2, 3].map(|n| (node(n), addr(n))).into()));
    }
    sim.until(SECOND * 15, |s| s.all_see(1, &[1, 2, 3].into()) && s.all_alive());
}

#[test]
fn deleted_entries_do_not_come_back() {
    for seed in 0..4 {
        let mut sim = settled(seed, 4);
        // Node 4 keeps the entry through a partition longer than any tombstone lives.
        sim.island = [4].into();
        sim.run(SECOND * 5);
        sim.tell(1, Input::Announce(vec![]));
        sim.run(Timing::default().tombstone_ttl * 2);
        sim.island.clear();
        let end = sim.now + SECOND * 20;
        while sim.step(end) {
            for n in [1, 2, 3] {
                assert!(!sim.sees(n, 1).contains(&1), "node {n}, seed {seed}: {sim:?}");
            }
        }
        assert!(sim.all_see(1, &[2, 3, 4].into()), "{sim:?}");
    }
}
