//! Changes reach everyone concerned, whatever the network does.

use super::*;
use crate::Message;

#[test]
fn three_nodes_find_each_other_and_tell_changes_at_once() {
    let mut sim = Sim::new(1, 3);
    let joined = sim.until(SECOND, Sim::all_alive);
    assert!(joined < Duration::from_millis(100), "{joined:?}");
    sim.run(SECOND);
    sim.tell(1, Input::Announce(own(1, 1, [7])));
    let told = sim.until(SECOND, |s| s.all_see(1, &[7].into()));
    assert!(told < Duration::from_millis(5), "{told:?}");
    sim.tell(1, Input::Announce(vec![]));
    let gone = sim.until(SECOND, |s| s.all_see(1, &[].into()));
    assert!(gone < Duration::from_millis(5), "{gone:?}");
}

#[test]
fn a_change_replaces_what_was_told_before() {
    let mut sim = Sim::new(2, 3);
    sim.until(SECOND, Sim::all_alive);
    sim.tell(1, Input::Announce(own(1, 1, [7])));
    sim.run(SECOND);
    let mut changed = own(1, 1, [7]);
    changed[0].endpoint.state = EndpointState::Draining;
    sim.tell(1, Input::Announce(changed.clone()));
    sim.until(SECOND / 10, |s| {
        let told = |n| s.tables(n).endpoints.get(&net(1)).unwrap().values().map(|e| &**e);
        [2, 3].into_iter().all(|n| told(n).eq([&changed[0].endpoint]))
    });
    let sent = sim.datagrams;
    sim.tell(1, Input::Announce(changed));
    assert_eq!(sim.datagrams, sent, "the same truth again is no news");
}

#[test]
fn losses_are_repaired() {
    for seed in 0..5 {
        let mut sim = Sim::new(seed, 5);
        sim.loss = 0.25;
        sim.until(SECOND * 20, Sim::all_alive);
        let mut expected = BTreeSet::new();
        for n in 1..=5u8 {
            let tasks = (0..40).map(|t| u128::from(n) * 1000 + t);
            expected.extend(tasks.clone());
            sim.tell(n, Input::Announce(own(n, 1, tasks)));
        }
        let took = sim.until(SECOND * 20, |s| s.all_see(1, &expected));
        assert!(took < SECOND * 10, "{took:?}");
    }
}

#[test]
fn thirty_nodes_converge_by_relay() {
    let mut sim = Sim::new(3, 30);
    sim.until(SECOND * 10, Sim::all_alive);
    sim.run(SECOND * 5);
    sim.tell(4, Input::Announce(own(4, 1, 0..5)));
    let took = sim.until(SECOND * 5, |s| s.all_see(1, &(0..5).collect()));
    assert!(took < Duration::from_millis(300), "{took:?}");
    sim.tell(4, Input::Announce(own(4, 1, 1..5)));
    let took = sim.until(SECOND * 5, |s| s.all_see(1, &(1..5).collect()));
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_latecomer_gets_everything() {
    let mut sim = Sim::new(4, 3);
    sim.until(SECOND, Sim::all_alive);
    sim.tell(1, Input::Announce(own(1, 1, 0..500)));
    sim.run(SECOND * 3);
    sim.boot(4, 1000, 4, Interest::Networks([net(1)].into()));
    let took = sim.until(SECOND * 3, |s| s.all_see(1, &(0..500).collect()));
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn equal_tables_cost_one_small_message_per_comparison() {
    let mut sim = Sim::new(5, 3);
    sim.until(SECOND, Sim::all_alive);
    for n in 1..=3 {
        sim.tell(n, Input::Announce(own(n, 1, [u128::from(n)])));
    }
    sim.run(SECOND * 10);
    let syncs = |s: &Sim| s.cores.values().map(|r| r.core.stats().syncs).sum::<u64>();
    let (streams, before) = (sim.streams, syncs(&sim));
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = told.clone();
    sim.lost = Box::new(move |_, _, packet| {
        match packet.message {
            Message::Swim(_) => {}
            _ => heard.lock().unwrap().push(packet.encode().len()),
        }
        false
    });
    sim.run(SECOND * 60);
    assert_eq!(sim.streams, streams, "no connection");
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len() as u64, syncs(&sim) - before, "digests, without an answer");
    assert!(told.len() >= 30, "one per node and 5 s or so");
    assert!(told.iter().all(|len| *len < 150), "{told:?}");
    let idle = sim.datagrams;
    sim.run(SECOND * 10);
    assert!(sim.datagrams - idle < 3 * 10 * 20, "{} datagrams in 10 s", sim.datagrams - idle);
}

#[test]
fn large_entries_go_by_tcp() {
    let mut sim = Sim::new(6, 3);
    sim.until(SECOND, Sim::all_alive);
    let mut large = own(1, 1, [7]);
    large[0].endpoint.aliases =
        (0..60).map(|n| Name::new(format!("a-rather-long-alias-of-this-task-{n}")).unwrap()).collect();
    sim.tell(1, Input::Announce(large));
    sim.until(SECOND, |s| s.all_see(1, &[7].into()));
}
