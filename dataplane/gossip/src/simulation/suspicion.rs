//! Who is alive is not taken for dead: suspects are told, and asked about.

use super::{failure::settled, *};
use crate::Message;

fn everybody(count: u8) -> BTreeSet<u128> {
    (1..=u128::from(count)).collect()
}

fn renewals(sim: &Sim) -> u64 {
    sim.cores.values().map(|running| running.core.stats().renewals).sum()
}

#[test]
fn nobody_dies_while_a_fifth_is_lost() {
    for (seed, count) in [(1, 5), (2, 8), (3, 12)] {
        let mut sim = settled(seed, count);
        sim.loss = 0.2;
        let end = sim.now + SECOND * 60;
        while sim.step(end) {
            assert!(sim.all_see(1, &everybody(count)), "seed {seed}: {sim:?}");
        }
        let suspicions: u64 = sim.cores.values().map(|running| running.core.stats().suspicions).sum();
        assert!(suspicions > 10, "there was reason to: {suspicions}");
        assert_eq!(renewals(&sim), 0, "seed {seed}, {suspicions} suspicions: {sim:?}");
    }
}

#[test]
fn who_hears_of_a_suspicion_from_a_witness_alone_refutes_it() {
    // Node 1's words do not reach node 3, and nobody forwards its probes: others can reach it, and it can reach all.
    let mut sim = settled(4, 4);
    sim.lost = Box::new(|from, to, packet| (from, to) == (1, 3) || is_indirect(packet));
    let end = sim.now + SECOND * 60;
    while sim.step(end) {
        assert!(sim.all_see(1, &everybody(4)), "{sim:?}");
    }
    assert!(sim.cores[&1].core.stats().suspicions > 5, "{sim:?}");
    assert_eq!(renewals(&sim), 0, "{sim:?}");
}

/// SWIM by way of another: what is as long as one with a third identity, and no gossip of it.
fn is_indirect(packet: &Packet) -> bool {
    // foca's messages in their order: an identity, an incarnation, an identity, then the kind.
    let Message::Swim(bytes) = &packet.message else { return false };
    type Identity = (NodeId, SocketAddr, u64, u32);
    type Header = (Identity, u16, Identity, u8);
    let (header, _) = postcard::take_from_bytes::<Header>(bytes).unwrap();
    (2..=5).contains(&header.3)
}

#[test]
fn a_deaf_node_harms_nobody() {
    for seed in 0..5 {
        let mut sim = settled(seed, 5);
        sim.lost = Box::new(|_, to, _| to == 5);
        let end = sim.now + SECOND * 30;
        while sim.step(end) {
            for n in 1..=4 {
                assert!(everybody(4).is_subset(&sim.sees(n, 1)), "seed {seed}: {sim:?}");
            }
        }
        sim.lost = Box::new(|_, _, _| false);
        sim.until(SECOND * 15, |s| s.all_alive() && s.all_see(1, &everybody(5)));
    }
}

#[test]
fn a_slow_node_probes_slowly() {
    // Nobody answers node 1 in time, though all that it says arrives: it takes the fault for its own.
    let mut sim = settled(6, 5);
    let mut rng = StdRng::seed_from_u64(6);
    sim.lost = Box::new(move |_, to, _| to == 1 && rng.random_bool(0.8));
    let probes = |s: &Sim| s.datagrams;
    sim.run(SECOND * 10);
    assert!(sim.cores[&1].core.stats().slowness > 0, "{sim:?}");
    assert!((2..=5).all(|n| sim.cores[&n].core.stats().slowness == 0), "{sim:?}");
    let slow = probes(&sim);
    sim.lost = Box::new(|_, _, _| false);
    sim.run(SECOND * 10);
    assert_eq!(sim.cores[&1].core.stats().slowness, 0, "it recovers: {sim:?}");
    assert!(slow > 0);
}
