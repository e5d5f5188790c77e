//! Beginning among members that have known each other for long. Only simulations do: to form a cluster of thousands, each one of
//! them has to hear of each other one, which is most of the work of simulating it.

use std::time::Duration;

use rand::Rng;

use super::{Core, HOUSEKEEPING, receiving::Windows};
use crate::{Item, MemberState, MemberStatus, Table, records::Teller, swim::Identity};

/// What all others know of a member that has been there for a while.
#[derive(Debug, Clone)]
pub struct Acquaintance {
    identity: Identity,
    /// What it said of its interest, if anything.
    interest: Option<Item>,
}

impl Core {
    /// What others are to know of this member.
    pub fn acquaintance(&self) -> Acquaintance {
        let interest = self.records.of(Table::Interests, self.node).pop();
        Acquaintance { identity: self.swim.identity(), interest }
    }

    /// Knows `others`, this member perhaps among them, as if all had been together for long and had compared their tables: they
    /// are alive, and there is nothing to tell. Each rhythm begins at a point left to chance. To be called before anything else
    /// is heard, and before [`crate::Input::Peers`].
    pub fn acquaint(&mut self, others: &[Acquaintance], now: Duration) {
        self.now = self.now.max(now);
        let others: Vec<&Acquaintance> = others.iter().filter(|o| o.identity.node != self.node).collect();
        let identities: Vec<Identity> = others.iter().map(|other| other.identity).collect();
        let outcome = self.swim.acquaint(&identities, self.now, &mut self.rng);
        for Acquaintance { identity, interest } in others {
            let node = identity.node;
            let member = MemberStatus::of(*identity, MemberState::Alive, self.now);
            let was_live = self.members.insert(node, member).is_some_and(|before| before.is_live());
            self.count_live(was_live, true);
            self.records.raise_epoch(node, identity.epoch);
            self.records.set_standing(node, true, true);
            self.windows.insert(node, Windows::of(identity.epoch));
            if let Some(item) = interest {
                let version = item.version();
                self.records.apply(item.clone(), self.now, Teller::Owner);
                self.records.complete(Table::Interests, node, version, std::slice::from_ref(item));
            }
        }
        self.introduced = self.live;
        self.members_changed = true;
        self.housekeeping_at = self.now + HOUSEKEEPING.mul_f64(self.rng.random_range(0.0..1.0));
        self.sync_at = self.now + self.timing.sync_interval.mul_f64(self.rng.random_range(0.0..1.0));
        // They are as they were told; what it takes to begin is not said to anybody.
        drop(outcome);
    }
}
