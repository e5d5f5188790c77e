//! Membership by foca; the only module that names it.
//!
//! foca finds out who is there and tells who is gone. It carries no items of ours. Timers that fire late because
//! this process stood still are put off by as long: time in which nobody could have answered proves nothing.
//!
//! What Lifeguard (Dadgar, Phillips, Currey 2018) adds to SWIM is done around foca, by its timers and its codec: probes take
//! longer while this node itself seems slow ([`Health`]), and who accuses whom is told to [`crate::Core`], which asks others
//! before it condemns.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    num::NonZeroU8,
    num::NonZeroUsize,
    time::Duration,
};

use foca::{
    Config, Error, Foca, Header, Member, Message, NoCustomBroadcast, Notification, OwnedNotification,
    PeriodicParams, Runtime, State, Timer,
};
use mesh_types::NodeId;
use rand::{Rng as _, RngCore, SeedableRng, rngs::StdRng};

use crate::{MemberState, MemberStatus, SharedMap, Timing, wire::SWIM_BUDGET};

mod health;
mod identity;
mod recorder;

use health::Health;
pub(crate) use identity::Identity;
use identity::Life;
use recorder::Recorder;

/// Lateness above this is a standstill of this process rather than the timer's grain.
const STANDSTILL: Duration = Duration::from_millis(100);

/// foca asks for another generation of the traits that our generator has.
struct Rng(StdRng);

impl rand_core::TryRng for Rng {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(dst);
        Ok(())
    }
}

/// What foca wants done.
#[derive(Default)]
struct Wishes {
    sends: Vec<(Life, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Life>)>,
    renewed: bool,
}

impl Runtime<Life> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        self.renewed |= matches!(notification.to_owned(), OwnedNotification::Rejoin(_));
    }
    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }
    fn submit_after(&mut self, event: Timer<Life>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// What came of an event.
#[derive(Default)]
pub(crate) struct SwimOutcome {
    /// Datagrams to send.
    pub(crate) sends: Vec<(SocketAddr, Vec<u8>)>,
    /// Members that came, went or changed.
    pub(crate) changed: Vec<(Identity, MemberState)>,
    /// Members that did not answer this node's own probe, and are suspected by it from now on.
    pub(crate) accused: Vec<Identity>,
    /// Others took this node for dead, and it came back under a new identity that they have yet to hear of.
    pub(crate) renewed: bool,
    /// foca refused the event.
    pub(crate) refused: bool,
}

type Inner = Foca<Life, Recorder, Rng, NoCustomBroadcast>;

pub(crate) struct Swim {
    foca: Inner,
    /// Holds what foca knew of each member when it was last looked at.
    recorder: Recorder,
    /// This node's incarnation, when it was last looked at.
    incarnation: u16,
    health: Health,
    timers: BTreeMap<(Duration, u64), Timer<Life>>,
    submitted: u64,
}

impl Swim {
    pub(crate) fn new(identity: Identity, timing: &Timing, seed: u64) -> Self {
        let recorder = Recorder::new(identity);
        let rng = Rng(StdRng::seed_from_u64(seed));
        let foca = Foca::new(identity.life(), config(timing), rng, recorder.clone());
        Self {
            foca,
            recorder,
            incarnation: 0,
            health: Health::default(),
            timers: BTreeMap::new(),
            submitted: 0,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.foca.identity().at(self.recorder.seen().addr)
    }

    pub(crate) fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    /// The members, the dead included, of which foca thinks otherwise than `members` has it.
    pub(crate) fn differing(
        &self,
        members: &SharedMap<NodeId, MemberStatus>,
    ) -> Vec<(Identity, MemberState)> {
        let seen = self.recorder.seen();
        let mut others = members.iter().peekable();
        let mut differing = Vec::new();
        // Both are in order.
        for (node, known) in seen.known.iter() {
            while others.next_if(|(other, _)| **other < node).is_some() {}
            let Some(member) = known.member(node) else { continue };
            let state = state(member.state());
            let is_same = others.peek().is_some_and(|(other, status)| {
                **other == node && (status.epoch, status.renewal) == known.age() && status.state == state
            });
            if !is_same {
                differing.push((*member.id(), state));
            }
        }
        differing
    }

    /// Takes what is known of each member from foca anew, should it have changed unseen.
    pub(crate) fn resync(&mut self) {
        let mut seen = self.recorder.seen();
        let in_foca: BTreeSet<NodeId> = self.foca.iter_membership_state().map(|m| m.id().node()).collect();
        seen.known.retain(|node, _| in_foca.contains(&node));
        for member in self.foca.iter_membership_state() {
            seen.note(member.id().node(), Some(member));
        }
    }

    /// Who `node` is.
    pub(crate) fn find(&self, node: NodeId) -> Option<Identity> {
        self.recorder.seen().find(node)
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn data(&mut self, bytes: &[u8], now: Duration) -> SwimOutcome {
        self.run(now, None, |foca, wishes| foca.handle_data(bytes, wishes))
    }

    /// Makes oneself known to a node; it answers with the members it knows.
    pub(crate) fn announce(&mut self, node: NodeId, addr: SocketAddr, now: Duration) -> SwimOutcome {
        let to = Identity { node, addr, epoch: 0, renewal: 0 };
        self.recorder.seen().announced = Some(to);
        let outcome = self.run(now, None, |foca, wishes| foca.announce(to.life(), wishes));
        self.recorder.seen().announced = None;
        outcome
    }

    /// Takes a member for dead and tells the others.
    pub(crate) fn declare_down(&mut self, identity: Identity, now: Duration) -> SwimOutcome {
        self.recorder.seen().meet(&identity);
        self.run(now, Some(identity.node), |foca, wishes| {
            foca.apply_many(std::iter::once(Member::down(identity.life())), true, wishes)
        })
    }

    /// Knows `others` as one who has been with them for long: alive, with nothing to tell. Rhythms begin at any point.
    pub(crate) fn acquaint(&mut self, others: &[Identity], now: Duration, rng: &mut StdRng) -> SwimOutcome {
        {
            let mut seen = self.recorder.seen();
            others.iter().for_each(|other| seen.meet(other));
        }
        let own = self.foca.identity().node();
        let alive = others.iter().filter(|other| other.node != own).map(|other| Member::alive(other.life()));
        let alive: Vec<Member<Life>> = alive.collect();
        let mut outcome =
            self.run(now, None, |foca, wishes| foca.apply_many(alive.into_iter(), false, wishes));
        let mut seen = self.recorder.seen();
        for member in self.foca.iter_membership_state() {
            if let Some((identity, now)) = seen.note(member.id().node(), Some(member)) {
                outcome.changed.push((identity, state(now)));
            }
        }
        drop(seen);
        let begun = std::mem::take(&mut self.timers);
        let later = |((at, n), timer): ((Duration, u64), Timer<Life>)| {
            let pause = at.saturating_sub(now);
            ((now + pause.mul_f64(rng.random_range(0.0..1.0)), n), timer)
        };
        self.timers = begun.into_iter().map(later).collect();
        outcome
    }

    pub(crate) fn change_epoch(&mut self, epoch: u64, now: Duration) -> SwimOutcome {
        self.change_identity(Identity { epoch, renewal: 0, ..self.identity() }, now)
    }

    /// This node is to be found at `addr` from now on.
    pub(crate) fn change_addr(&mut self, addr: SocketAddr, now: Duration) -> SwimOutcome {
        let identity = self.identity();
        self.change_identity(Identity { addr, renewal: identity.renewal.saturating_add(1), ..identity }, now)
    }

    fn change_identity(&mut self, identity: Identity, now: Duration) -> SwimOutcome {
        self.recorder.seen().addr = identity.addr;
        self.run(now, None, |foca, wishes| {
            foca.change_identity(identity.life(), &mut *wishes)?;
            // foca would talk to nobody until somebody talks to it.
            foca.apply_many(std::iter::empty(), false, wishes)
        })
    }

    pub(crate) fn leave(&mut self, now: Duration) -> SwimOutcome {
        self.run(now, None, |foca, wishes| foca.leave_cluster(wishes))
    }

    /// What tells `to` that this node takes `about` for what it does; of `to` itself, that it is suspected.
    pub(crate) fn word(&self, to: Identity, about: NodeId) -> Vec<u8> {
        let src = self.identity();
        let seen = self.recorder.seen();
        let header = Header { src, src_incarnation: seen.incarnation, dst: to, message: Message::Gossip };
        let bytes = postcard::to_stdvec(&header).unwrap_or_default();
        let known = seen.known.get(about).filter(|_| about != src.node);
        let Some(member) = known.and_then(|known| known.member(about)) else { return bytes };
        let counted = [&bytes[..], &1u16.to_be_bytes()].concat();
        postcard::to_extend(&member, counted).unwrap_or(bytes)
    }

    /// A suspect is down at `at` unless it is heard of.
    pub(crate) fn condemn_at(&mut self, identity: Identity, at: Duration) {
        let life = identity.life();
        let found = self.timers.iter().find(
            |(_, timer)| matches!(timer, Timer::ChangeSuspectToDown { member_id, .. } if *member_id == life),
        );
        let Some((&key, _)) = found else { return };
        if let Some(timer) = self.timers.remove(&key) {
            self.timers.insert((at, key.1), timer);
        }
    }

    /// Fires what is due.
    pub(crate) fn timers(&mut self, now: Duration) -> SwimOutcome {
        if let Some(first) = self.deadline() {
            let late = now.saturating_sub(first);
            if late > STANDSTILL {
                self.health.worse();
                let put_off = std::mem::take(&mut self.timers);
                self.timers = put_off.into_iter().map(|((at, n), t)| ((at + late, n), t)).collect();
            }
        }
        let mut outcome = SwimOutcome::default();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            if self.is_refuted(&timer) {
                continue;
            }
            let about = match &timer {
                Timer::ProbeRandomMember(_) => self.judge_probe(),
                Timer::ChangeSuspectToDown { member_id, .. } | Timer::RemoveDown(member_id) => {
                    Some(member_id.node())
                }
                _ => None,
            };
            let one = self.run(now, about, |foca, wishes| foca.handle_timer(timer, wishes));
            outcome.sends.extend(one.sends);
            outcome.changed.extend(one.changed);
            outcome.accused.extend(one.accused);
            outcome.renewed |= one.renewed;
        }
        outcome
    }

    /// The member that did not answer the probe that ends now.
    fn judge_probe(&mut self) -> Option<NodeId> {
        let (probed, _, answered) = self.recorder.seen().probe.take()?;
        if answered {
            self.health.better();
            return None;
        }
        Some(probed.node())
    }

    /// Whether `timer` ends a suspicion that is over. foca 2.0 would leave the member alive, but send it word that it
    /// is down all the same, and it would come back under a new identity for nothing.
    fn is_refuted(&self, timer: &Timer<Life>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        let seen = self.recorder.seen();
        let node = member_id.node();
        !seen.known.get(node).and_then(|known| known.member(node)).is_some_and(|member| {
            member.id().life() == *member_id
                && member.incarnation() == *incarnation
                && member.state() == State::Suspect
        })
    }

    /// Hands an event to foca; `about` is a member that it may change, besides those that messages tell of.
    fn run(
        &mut self,
        now: Duration,
        about: Option<NodeId>,
        event: impl FnOnce(&mut Inner, &mut Wishes) -> Result<(), Error>,
    ) -> SwimOutcome {
        let mut wishes = Wishes::default();
        // An error leaves foca usable, and what it wanted before it is still to be done.
        let refused = event(&mut self.foca, &mut wishes).is_err();
        let mut accused = Vec::new();
        for (after, timer) in wishes.timers {
            let after = match &timer {
                Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => self.health.stretch(after),
                // Another probe of the same suspect failed: the first suspicion says when it is over.
                Timer::ChangeSuspectToDown { .. } if self.timers.values().any(|known| *known == timer) => {
                    continue;
                }
                Timer::ChangeSuspectToDown { member_id, .. } => {
                    accused.extend(self.recorder.seen().place(*member_id));
                    after
                }
                _ => after,
            };
            self.submitted += 1;
            self.timers.insert((now + after, self.submitted), timer);
        }
        let sends = {
            let seen = self.recorder.seen();
            let placed = |(to, data)| Some((seen.place(to)?.addr, data));
            wishes.sends.into_iter().filter_map(placed).collect()
        };
        let changed = self.look(about);
        SwimOutcome { sends, changed, accused, renewed: wishes.renewed, refused }
    }

    /// What foca thinks otherwise than before, of `about` and of those that it was told of.
    fn look(&mut self, about: Option<NodeId>) -> Vec<(Identity, MemberState)> {
        let mut seen = self.recorder.seen();
        if std::mem::replace(&mut self.incarnation, seen.incarnation) < seen.incarnation {
            // It had to speak against a suspicion.
            self.health.worse();
        }
        let nodes: BTreeSet<NodeId> = seen.take_news().into_iter().chain(about).collect();
        if nodes.is_empty() {
            return Vec::new();
        }
        // foca finds nobody by address but by looking at all: once for all that a message told.
        let mut now: BTreeMap<NodeId, &Member<Life>> = BTreeMap::new();
        for member in self.foca.iter_membership_state() {
            let node = member.id().node();
            if nodes.contains(&node) {
                now.insert(node, member);
                if now.len() == nodes.len() {
                    break;
                }
            }
        }
        let noted = nodes.into_iter().filter_map(|node| seen.note(node, now.get(&node).copied()));
        noted.map(|(identity, now)| (identity, state(now))).collect()
    }
}

fn state(state: State) -> MemberState {
    match state {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
    }
}

fn config(timing: &Timing) -> Config {
    const fn count(n: usize) -> NonZeroUsize {
        match NonZeroUsize::new(n) {
            Some(n) => n,
            None => NonZeroUsize::MIN,
        }
    }
    Config {
        probe_period: timing.probe_period,
        probe_rtt: timing.probe_rtt,
        num_indirect_probes: count(3),
        max_transmissions: NonZeroU8::new(12).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: timing.suspect_timeout,
        remove_down_after: Some(timing.down_retention),
        max_packet_size: count(SWIM_BUDGET),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(30), num_members: count(1) }),
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: Duration::from_secs(10),
            num_members: count(2),
        }),
        periodic_gossip: Some(PeriodicParams { frequency: timing.gossip_interval, num_members: count(3) }),
    }
}
