//! Who is there: what foca observes, what the managers list, and taking leave.

use std::{net::SocketAddr, time::Duration};

use mesh_types::NodeId;
use rand::Rng;

use super::{Core, FAREWELL_PAUSE, FAREWELLS, PUSHED, asking::Finding, wanted};
use crate::{
    MemberState, MemberStatus, Message, Table,
    swim::{Identity, SwimOutcome},
};

/// Live members above which not each of them welcomes a new one, but about [`WELCOMES`] do.
pub(super) const MANY: usize = 64;
const WELCOMES: f64 = 32.0;
/// Between the first of many new members and this node's word to all of them.
const INTRODUCTION: Duration = Duration::from_millis(150);

impl Core {
    pub(super) fn take_swim(&mut self, outcome: SwimOutcome) {
        for (to, bytes) in outcome.sends {
            self.send(to, Message::Swim(bytes), false);
        }
        self.stats.swim_refused += u64::from(outcome.refused);
        self.observe(outcome.changed);
        for suspect in outcome.accused {
            self.stats.suspicions += 1;
            self.accuse(suspect);
        }
        if outcome.renewed {
            self.stats.renewals += 1;
            self.try_all_peers();
        }
    }

    /// Looks at every member: at those, too, that were no members when something was last heard of them.
    pub(super) fn observe_all(&mut self) {
        self.observe(self.swim.differing(&self.members));
    }

    fn observe(&mut self, seen: Vec<(Identity, MemberState)>) {
        for (identity, state) in seen {
            let is_news = match self.members.get(&identity.node) {
                None => state != MemberState::Down,
                Some(known) if known.identity(identity.node) == identity => {
                    // Of those that left or whose data path works more is known here.
                    let known_better = matches!(known.state, MemberState::Left | MemberState::Unattended);
                    known.state != state && !(known_better && state == MemberState::Down)
                }
                Some(_) => true,
            };
            if is_news && identity.node != self.node && !self.removed.contains(&identity.node) {
                self.transition(identity, state);
            }
        }
    }

    fn transition(&mut self, identity: Identity, mut state: MemberState) {
        let node = identity.node;
        if state != MemberState::Suspect {
            self.witnesses.settled(node);
        }
        match state {
            MemberState::Suspect => self.ask_suspect(node),
            MemberState::Down if self.counts(node) => match self.ask_gone(node) {
                Finding::AsBefore => return,
                Finding::Unattended => state = MemberState::Unattended,
                Finding::Gone => {}
            },
            _ => drop(self.asking.remove(&node)),
        }
        self.set_member(identity, state);
    }

    pub(super) fn set_member(&mut self, identity: Identity, state: MemberState) {
        let node = identity.node;
        let member = MemberStatus::of(identity, state, self.now);
        let before = self.members.insert(node, member);
        self.members_changed = true;
        self.records.raise_epoch(node, identity.epoch);
        let was_live = before.as_ref().is_some_and(MemberStatus::is_live);
        self.count_live(was_live, member.is_live());
        self.records.set_standing(node, member.is_live(), member.counts());
        if before.as_ref().is_some_and(MemberStatus::counts) != member.counts() {
            self.liveness_changed(node);
        }
        if member.is_live() {
            self.absent.remove(&node);
            if before.is_some_and(|b| b.state == MemberState::Down && b.epoch == identity.epoch) {
                self.ask_all_down();
            }
            if !was_live || before.is_some_and(|before| before.identity(node) != identity) {
                self.welcome(node);
            }
        } else if was_live {
            self.outbox.forget(node);
            self.syncs.remove(&node);
            self.is_absent(node);
        }
    }

    /// A member came, or came back: it is told at once what this node owns, and then compared with in full. Among many, only a
    /// few do so, and a node to which most of the others are new tells of itself by relay.
    pub(super) fn welcome(&mut self, node: NodeId) {
        self.outbox.forget(node);
        if self.live > MANY {
            if self.live * 2 >= self.introduced * 3 {
                self.introduced = self.live;
                self.introduce_at = self.introduce_at.min(self.now + INTRODUCTION);
            }
            if !self.rng.random_bool((WELCOMES / self.live as f64).min(1.0)) {
                return;
            }
        }
        let mut items = self.records.of(Table::Interests, self.node);
        if let Some(interest) = self.records.interest(node) {
            let own = self.records.all_of(self.node).into_iter();
            items.extend(own.filter(|item| wanted(interest, item.key().table) && item.key().slot.is_some()));
            items.truncate(PUSHED);
        }
        self.send_direct(node, items);
        // Both sides begin; the later one finds the tables equal already, most often.
        let later = if self.node < node { 0 } else { 200 };
        self.want_sync(node, Duration::from_millis(later), true);
    }

    /// Tells many members, which did not know this node, of what it owns.
    pub(super) fn introduce(&mut self) {
        self.introduce_at = Duration::MAX;
        let mut items = self.records.of(Table::Interests, self.node);
        items.extend(self.records.all_of(self.node).into_iter().filter(|item| item.key().slot.is_some()));
        items.truncate(PUSHED);
        self.disseminate(items);
    }

    /// Counts the live members.
    pub(super) fn count_live(&mut self, before: bool, now: bool) {
        self.live = self.live + usize::from(now) - usize::from(before);
        self.introduced = self.introduced.min(self.live);
    }

    /// Peers find this node at `addr` from now on, as somebody newer than who they know.
    pub(super) fn change_addr(&mut self, addr: SocketAddr) {
        if self.swim.identity().addr != addr {
            let outcome = self.swim.change_addr(addr, self.now);
            self.take_swim(outcome);
            self.try_all_peers();
            self.members_changed = true;
        }
    }

    pub(super) fn leave(&mut self) {
        self.announce(Vec::new());
        self.farewells = Some((FAREWELLS, self.now));
        self.say_farewell();
        let outcome = self.swim.leave(self.now);
        self.take_swim(outcome);
        self.members_changed = true;
    }

    pub(super) fn say_farewell(&mut self) {
        let Some((left, at)) = self.farewells else { return };
        if at > self.now {
            return;
        }
        if left == 0 {
            self.farewells = Some((0, Duration::MAX));
            return;
        }
        let live = self.members.values().filter(|member| member.is_live());
        let to: Vec<SocketAddr> = live.map(|member| member.addr).collect();
        for to in to {
            self.send(to, Message::Leave, false);
        }
        self.farewells = Some((left - 1, self.now + FAREWELL_PAUSE));
    }

    pub(super) fn member_left(&mut self, node: NodeId) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let (identity, was_live) = (member.identity(node), member.is_live());
        (member.state, member.since) = (MemberState::Left, self.now);
        self.count_live(was_live, false);
        self.records.set_standing(node, false, false);
        self.is_absent(node);
        self.liveness_changed(node);
        self.asking.remove(&node);
        self.outbox.forget(node);
        self.syncs.remove(&node);
        let outcome = self.swim.declare_down(identity, self.now);
        self.take_swim(outcome);
    }
}
