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
