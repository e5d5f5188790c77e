//! Whatever a holder of the key says, a member goes on.

use proptest::prelude::*;

use super::*;
use crate::{Packet, wire::tests::message};

proptest! {
    #[test]
    fn any_message_is_survived(
        messages in proptest::collection::vec((0u8..5, any::<u64>(), any::<bool>(), message()), 1..20),
    ) {
        let mut sim = Sim::new(1, 3);
        sim.tell(1, Input::Announce(own(1, 1, [7])));
        sim.run(SECOND);
        for ((from, epoch, stream, message), sequence) in messages.into_iter().zip(10_000..) {
            let bytes = Packet { from: node(from), epoch, sequence, message }.encode();
            sim.tell(1, if stream { Input::Stream(bytes) } else { Input::Datagram(bytes) });
            sim.run(SECOND / 20);
        }
        sim.run(SECOND);
        prop_assert!(sim.sees(1, 1).contains(&7));
    }

    #[test]
    fn noise_is_counted(noise: Vec<u8>) {
        let mut sim = Sim::new(1, 1);
        sim.tell(1, Input::Datagram(noise));
        let stats = sim.cores[&1].core.stats();
        prop_assert_eq!(stats.dropped_malformed + stats.dropped_version + stats.ignored_kind, 1);
    }
}

#[test]
fn replays_are_refused_and_counted() {
    // All that node 1 was sent for a while, handed to it again: nothing of it is listened to.
    let mut sim = Sim::new(2, 3);
    let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = sent.clone();
    sim.lost = Box::new(move |_, to, packet| {
        if to == 1 {
            recorded.lock().unwrap().push(packet.encode());
        }
        false
    });
    sim.until(SECOND * 5, Sim::all_alive);
    sim.tell(2, Input::Announce(own(2, 1, [2])));
    sim.run(SECOND * 2);
    sim.tell(2, Input::Leave);
    sim.run(SECOND);
    sim.boot(2, 2000, 3, Interest::Networks([net(1)].into()));
    sim.tell(2, Input::Announce(own(2, 1, [22])));
    sim.until(SECOND * 10, |s| s.all_see(1, &[22].into()) && s.all_alive());
    sim.lost = Box::new(|_, _, _| false);
    // What is under way arrives first.
    sim.run(SECOND);
    let replayed = sent.lock().unwrap().clone();
    assert!(replayed.len() > 20, "{}", replayed.len());
    let running = sim.cores.get_mut(&1).unwrap();
    let (before, now) = (running.core.stats(), sim.now - running.born);
    for packet in &replayed {
        // Each came in one of these ways.
        running.core.handle(Input::Datagram(packet.clone()), now, &mut Vec::new());
        running.core.handle(Input::Stream(packet.clone()), now, &mut Vec::new());
    }
    let after = running.core.stats();
    let refused =
        after.dropped_replayed + after.dropped_outdated - before.dropped_replayed - before.dropped_outdated;
    assert!(refused >= replayed.len() as u64, "{refused} of {}: {after:?}", replayed.len());
    sim.run(SECOND * 5);
    assert!(sim.all_see(1, &[22].into()) && sim.all_alive(), "{sim:?}");
}
