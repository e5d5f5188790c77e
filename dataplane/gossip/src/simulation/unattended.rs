//! Nodes whose daemon is away while their data path works: they keep what they run, until that ends too.

use super::{failure::settled, *};

fn expected(count: u8) -> BTreeSet<u128> {
    (1..=u128::from(count)).collect()
}

/// Runs for `time`; at every moment each node sees every task.
#[track_caller]
fn all_stay(sim: &mut Sim, time: Duration, count: u8) {
    let end = sim.now + time;
    while sim.step(end) {
        assert!(sim.all_see(1, &expected(count)), "{sim:?}");
    }
}

#[test]
fn a_node_whose_daemon_is_away_keeps_its_endpoints() {
    for (count, seeds) in [(2, 10), (3, 20), (5, 5), (12, 1)] {
        for seed in 0..seeds {
            let mut sim = settled(seed, count);
            let pause = sim.rng.random_range(0..3000);
            sim.run(Duration::from_millis(pause));
            sim.cores.remove(&count);
            all_stay(&mut sim, SECOND * 6, count);
            assert!((1..count).all(|n| sim.state(n, count) == Some(MemberState::Unattended)), "{sim:?}");

            sim.boot(count, 2000, count, Interest::Networks([net(1)].into()));
            sim.tell(count, Input::Announce(own(count, 1, [u128::from(count)])));
            let others = |s: &Sim| (1..count).all(|n| s.state(n, count) == Some(MemberState::Alive));
            let end = sim.now + SECOND;
            while sim.step(end) {
                assert!((1..count).all(|n| sim.sees(n, 1) == expected(count)), "{sim:?}");
            }
            assert!(others(&sim), "{sim:?}");
            let asked = sim.questions;
            sim.run(SECOND * 10);
            assert_eq!(sim.questions, asked, "of nodes with a daemon nothing is asked");
        }
    }
}

#[test]
fn an_unattended_node_that_dies_is_forgotten_within_three_seconds() {
    for (count, seeds) in [(2, 20), (3, 20), (5, 5)] {
        for seed in 0..seeds {
            let mut sim = settled(seed, count);
            sim.cores.remove(&count);
            let pause = sim.rng.random_range(3000..6000);
            sim.run(Duration::from_millis(pause));
            sim.dies(count);
            let took = sim.until(SECOND * 10, |s| s.all_see(1, &expected(count - 1)));
            assert!(took < SECOND * 3, "{took:?} with {count} nodes, seed {seed}");
            assert!(took > SECOND / 2, "{took:?}: lost answers are forgiven");
            assert!((1..count).all(|n| sim.state(n, count) == Some(MemberState::Down)));
            // That it can be asked again later proves nothing: a machine that booted has no tasks any more.
            sim.data_paths.insert(count);
            sim.run(SECOND * 20);
            assert!(sim.all_see(1, &expected(count - 1)));
        }
    }
}

#[test]
fn a_node_that_dies_while_it_is_suspected_is_forgotten_in_time() {
    for seed in 0..40 {
        let mut sim = settled(seed, 3);
        sim.cores.remove(&3);
        let pause = sim.rng.random_range(0..3000);
        sim.run(Duration::from_millis(pause));
        sim.dies(3);
        let took = sim.until(SECOND * 10, |s| s.all_see(1, &expected(2)));
        assert!(took < SECOND * 3, "{took:?}, seed {seed}");
    }
}

#[test]
fn losses_do_not_end_it() {
    for seed in 0..10 {
        let mut sim = settled(seed, 4);
        sim.loss = 0.05;
        sim.delay = (Duration::from_millis(1), Duration::from_millis(30));
        sim.cores.remove(&4);
        all_stay(&mut sim, SECOND * 30, 4);
    }
}

#[test]
fn it_lasts_longer_than_the_dead_are_remembered() {
    let mut sim = settled(1, 3);
    sim.cores.remove(&3);
    all_stay(&mut sim, Timing::default().down_retention * 2, 3);
    sim.boot(3, 2000, 3, Interest::Networks([net(1)].into()));
    sim.tell(3, Input::Announce(own(3, 1, [33])));
    let took = sim.until(SECOND * 10, |s| s.all_see(1, &[1, 2, 33].into()));
    assert!(took < SECOND * 5, "{took:?}");
}

#[test]
fn a_node_that_starts_meanwhile_learns_of_it() {
    for seed in 0..10 {
        let mut sim = settled(seed, 3);
        sim.cores.remove(&3);
        sim.run(SECOND * 5);
        sim.cores.remove(&2);
        sim.run(SECOND);
        sim.boot(2, 2000, 3, Interest::Networks([net(1)].into()));
        sim.tell(2, Input::Announce(own(2, 1, [2])));
        let took = sim.until(SECOND * 10, |s| s.all_see(1, &expected(3)));
        assert!(took < SECOND * 4, "{took:?}");
        assert_eq!(sim.state(2, 3), Some(MemberState::Unattended));
        all_stay(&mut sim, SECOND * 20, 3);
    }
}

#[test]
fn a_node_that_starts_among_the_dead_believes_in_none() {
    let mut sim = settled(1, 3);
    sim.dies(1);
    sim.dies(2);
    sim.cores.remove(&3);
    sim.run(SECOND);
    sim.boot(3, 2000, 3, Interest::Networks([net(1)].into()));
    sim.run(SECOND * 20);
    assert_eq!((sim.state(3, 1), sim.state(3, 2)), (None, None));
    let asked = sim.questions;
    sim.run(SECOND * 20);
    assert_eq!(sim.questions, asked, "in the end it does not ask any more");
}

#[test]
fn all_daemons_are_away_at_once() {
    for seed in 0..10 {
        let mut sim = settled(seed, 4);
        sim.cores.clear();
        sim.run(SECOND * 8);
        sim.boot(1, 2000, 4, Interest::Networks([net(1)].into()));
        let unattended = |s: &Sim| (2..=4).all(|of| s.state(1, of) == Some(MemberState::Unattended));
        let took = sim.until(SECOND * 5, unattended);
        assert!(took < SECOND, "{took:?}");
        for n in 2..=4 {
            sim.run(SECOND * 6);
            assert!((n..=4).all(|of| sim.state(1, of) == Some(MemberState::Unattended)), "{sim:?}");
            sim.boot(n, 2000, 4, Interest::Networks([net(1)].into()));
            sim.until(SECOND, |s| s.state(1, n) == Some(MemberState::Alive));
        }
    }
}

#[test]
fn a_standstill_of_the_asking_node_harms_nobody() {
    for seed in 0..10 {
        let mut sim = settled(seed, 3);
        sim.cores.remove(&3);
        sim.run(SECOND * 4);
        for _ in 0..10 {
            let pause = sim.rng.random_range(0..2000);
            all_stay(&mut sim, Duration::from_millis(pause), 3);
            // Node 1 stands still: its packets wait, its timers do not run.
            let asleep = sim.cores.remove(&1).unwrap();
            let wake = sim.now + SECOND;
            let mut waiting = Vec::new();
            while sim.now < wake {
                sim.run(Duration::from_millis(1));
                let held: Vec<_> = sim.packets.iter().filter(|(_, p)| p.0 == 1).map(|(k, _)| *k).collect();
                waiting.extend(held.into_iter().filter_map(|key| sim.packets.remove(&key)));
            }
            sim.cores.insert(1, asleep);
            for (_, arriving) in waiting {
                sim.tell(1, arriving.into());
            }
        }
        all_stay(&mut sim, SECOND * 5, 3);
    }
}

#[test]
fn who_leaves_is_not_asked() {
    let mut sim = settled(5, 3);
    sim.tell(3, Input::Leave);
    sim.run(SECOND);
    let asked = sim.questions;
    sim.cores.remove(&3);
    sim.run(SECOND * 10);
    assert_eq!(sim.questions, asked);
    assert!([1, 2].iter().all(|n| sim.state(*n, 3) == Some(MemberState::Left)), "{sim:?}");
    assert!(sim.all_see(1, &expected(2)));
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut sim = settled(6, 3);
    sim.dies(3);
    sim.run(SECOND * 5);
    for nonce in [0, 1, u64::MAX] {
        sim.tell(1, Input::Answer { from: data_path(3), nonce });
        sim.tell(1, Input::Answer { from: data_path(2), nonce });
    }
    assert_eq!(sim.state(1, 3), Some(MemberState::Down));
    assert_eq!(sim.state(1, 2), Some(MemberState::Alive));
}
