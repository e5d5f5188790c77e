//! Membership by foca; the only file that names it.
//!
//! foca finds out who is there and tells who is gone. It carries no items of ours. Timers that fire late because
//! this process stood still are put off by as long: time in which nobody could have answered proves nothing.

use std::{
    collections::BTreeMap, convert::Infallible, net::SocketAddr, num::NonZeroU8, num::NonZeroUsize,
    time::Duration,
};

use foca::{
    Config, Error, Foca, Member, NoCustomBroadcast, Notification, OwnedNotification, PeriodicParams,
    PostcardCodec, Runtime, State, Timer,
};
use mesh_types::NodeId;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{MemberState, Timing, wire::SWIM_BUDGET};

/// Lateness above this is a standstill of this process rather than the timer's grain.
const STANDSTILL: Duration = Duration::from_millis(100);

/// Who a member is to foca: the node, unique; the rest says which of its lives is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    /// The incarnation of the process.
    pub(crate) epoch: u64,
    /// Counts how often it came back after others took it for dead.
    pub(crate) renewal: u32,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.renewal.checked_add(1).map(|renewal| Self { renewal, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.epoch, self.renewal) > (adversary.epoch, adversary.renewal)
    }
}

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
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Identity>)>,
    changed: bool,
    renewed: bool,
}

impl Runtime<Identity> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.changed = true;
        self.renewed |= matches!(notification.to_owned(), OwnedNotification::Rejoin(_));
    }
    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }
    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// What came of an event.
#[derive(Default)]
pub(crate) struct SwimOutcome {
    /// Datagrams to send.
    pub(crate) sends: Vec<(SocketAddr, Vec<u8>)>,
    /// Somebody came, went or changed.
    pub(crate) changed: bool,
    /// Others took this node for dead, and it came back under a new identity that they have yet to hear of.
    pub(crate) renewed: bool,
    /// foca refused the event.
    pub(crate) refused: bool,
}

pub(crate) struct Swim {
    foca: Foca<Identity, PostcardCodec, Rng, NoCustomBroadcast>,
    timers: BTreeMap<(Duration, u64), Timer<Identity>>,
    submitted: u64,
}

impl Swim {
    pub(crate) fn new(identity: Identity, timing: &Timing, seed: u64) -> Self {
        let foca = Foca::new(identity, config(timing), Rng(StdRng::seed_from_u64(seed)), PostcardCodec);
        Self { foca, timers: BTreeMap::new(), submitted: 0 }
    }

    pub(crate) fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    /// All that foca remembers, the dead included, this node excluded.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Identity, MemberState)> {
        self.foca.iter_membership_state().map(|member| {
            let state = match member.state() {
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down => MemberState::Down,
            };
            (*member.id(), state)
        })
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn data(&mut self, bytes: &[u8], now: Duration) -> SwimOutcome {
        self.run(now, |foca, wishes| foca.handle_data(bytes, wishes))
    }

    /// Makes oneself known to a node; it answers with the members it knows.
    pub(crate) fn announce(&mut self, node: NodeId, addr: SocketAddr, now: Duration) -> SwimOutcome {
        let to = Identity { node, addr, epoch: 0, renewal: 0 };
        self.run(now, |foca, wishes| foca.announce(to, wishes))
    }

    /// Takes a member for dead and tells the others.
    pub(crate) fn declare_down(&mut self, identity: Identity, now: Duration) -> SwimOutcome {
        self.run(now, |foca, wishes| foca.apply_many(std::iter::once(Member::down(identity)), true, wishes))
    }

    pub(crate) fn change_epoch(&mut self, epoch: u64, now: Duration) -> SwimOutcome {
        let identity = Identity { epoch, renewal: 0, ..self.identity() };
        self.run(now, |foca, wishes| foca.change_identity(identity, wishes))
    }

    pub(crate) fn leave(&mut self, now: Duration) -> SwimOutcome {
        self.run(now, |foca, wishes| foca.leave_cluster(wishes))
    }

    /// Fires what is due.
    pub(crate) fn timers(&mut self, now: Duration) -> SwimOutcome {
        if let Some(first) = self.deadline() {
            let late = now.saturating_sub(first);
            if late > STANDSTILL {
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
            let one = self.run(now, |foca, wishes| foca.handle_timer(timer, wishes));
            outcome.sends.extend(one.sends);
            outcome.changed |= one.changed;
            outcome.renewed |= one.renewed;
        }
        outcome
    }

    /// Whether `timer` ends a suspicion that is over. foca 2.0 would leave the member alive, but send it word that it
    /// is down all the same, and it would come back under a new identity for nothing.
    fn is_refuted(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        !self.foca.iter_membership_state().any(|member| {
            member.id() == member_id
                && member.incarnation() == *incarnation
                && member.state() == State::Suspect
        })
    }

    fn run(
        &mut self,
        now: Duration,
        event: impl FnOnce(
            &mut Foca<Identity, PostcardCodec, Rng, NoCustomBroadcast>,
            &mut Wishes,
        ) -> Result<(), Error>,
    ) -> SwimOutcome {
        let mut wishes = Wishes::default();
        // An error leaves foca usable, and what it wanted before it is still to be done.
        let refused = event(&mut self.foca, &mut wishes).is_err();
        for (after, timer) in wishes.timers {
            self.submitted += 1;
            self.timers.insert((now + after, self.submitted), timer);
        }
        let sends = wishes.sends.into_iter().map(|(to, data)| (to.addr, data)).collect();
        SwimOutcome { sends, changed: wishes.changed, renewed: wishes.renewed, refused }
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
