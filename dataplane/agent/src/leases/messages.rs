//! What is said to the managers of leases, and what they answer. One renewal at a time; one whose answer got lost may have
//! had its effect or not, or may have it later, until another one with the same number is answered.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use mesh_types::NetworkId;

use super::{Held, Leases};

/// What this node says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewal {
    /// How often it has renewed before.
    pub after: u64,
    /// What changed.
    pub changes: BTreeMap<NetworkId, NetworkChange>,
    /// Whether it has to be told all that it holds.
    pub full: bool,
}

/// What changed on a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkChange {
    /// Tasks use these now.
    pub used: Vec<IpAddr>,
    /// No task uses these (any more).
    pub unused: Vec<IpAddr>,
    /// Given back.
    pub returned: Vec<IpAddr>,
}

/// What the managers answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// How often this node has renewed.
    pub renewal: u64,
    /// Whether it had said the right number; else nothing was done.
    pub done: bool,
    /// How long it must be silent before they take back what no task uses.
    pub grace: Duration,
    /// The version of their state.
    pub version: u64,
    /// All that this node holds, if it asked.
    pub held: BTreeMap<NetworkId, Held>,
    /// Addresses of its tasks that are others'.
    pub lost: Vec<(NetworkId, IpAddr)>,
}

impl Leases {
    /// What to say to the managers now, if there is anything, or it is time. It must be kept ([`Leases::kept`]) before it is
    /// sent, and ended ([`Leases::end`]) before the next one begins.
    pub fn begin(&mut self, now: Duration) -> Option<Renewal> {
        // What was said to be unused or given back may not have been heard.
        let unanswered = self.pending.is_some();
        self.unsettled |= unanswered;
        self.tidy(now);
        let mut changes = BTreeMap::new();
        for (&network, lease) in &mut self.networks {
            let used = lease.used.difference(&lease.sure).copied().collect();
            let mut unused: Vec<IpAddr> =
                lease.sure.iter().filter(|a| !lease.used.contains(a)).copied().collect();
            lease.sure.retain(|a| lease.used.contains(a));
            if self.unsettled {
                unused = lease.free.iter().copied().collect();
            }
            let returned = lease.returning.iter().copied().collect();
            let change = NetworkChange { used, unused, returned };
            if change != NetworkChange::default() {
                changes.insert(network, change);
            }
        }
        if changes.is_empty() && !unanswered && !self.term.is_due(now) && self.is_granted(now) {
            return None;
        }
        let renewal = Renewal { after: self.term.count, changes, full: !self.is_granted(now) };
        self.pending = Some(renewal.clone());
        Some(renewal)
    }

    /// The answer to the renewal that was begun at `asked`; `None` if there is none. Gives the addresses that tasks of this
    /// node have and must not have.
    pub fn end(
        &mut self,
        asked: Duration,
        answer: Option<Answer>,
        now: Duration,
    ) -> Vec<(NetworkId, IpAddr)> {
        let Some(answer) = answer else { return Vec::new() };
        let Some(pending) = self.pending.take() else { return Vec::new() };
        if answer.renewal < self.term.count {
            self.term.forget();
            self.networks.values_mut().for_each(|lease| lease.sure.clear());
        }
        self.term.answered(answer.renewal, answer.version);
        if !answer.done {
            // An earlier one may have had its effect.
            self.unsettled = true;
            return Vec::new();
        }
        self.unsettled = false;
        for (network, change) in pending.changes {
            let Some(lease) = self.networks.get_mut(&network) else { continue };
            let lost = |a: &IpAddr| answer.lost.contains(&(network, *a));
            lease.sure.extend(change.used.into_iter().filter(|a| !lost(a)));
            lease.returning.retain(|a| !change.returned.contains(a));
        }
        // It was full: the term before is over, and what was leased then may be others'.
        let begins = pending.full.then_some(answer.version);
        self.term.renew(asked, answer.grace, begins);
        if pending.full {
            self.take_over(&answer.held, now);
        }
        answer.lost
    }
}
