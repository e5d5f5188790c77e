//! Membership by foca; the only file that names it.
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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut};
use foca::{
    Codec, Config, Error, Foca, Header, Member, Message, NoCustomBroadcast, Notification, OwnedNotification,
    PeriodicParams, PostcardCodec, Runtime, State, Timer,
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
    renewed: bool,
}

impl Runtime<Identity> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.renewed |= matches!(notification.to_owned(), OwnedNotification::Rejoin(_));
    }
    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }
    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// How slow this node itself seems to be: 0 is well. Its probes take so many times longer more.
///
/// It gets worse when this process stood still, when others took it for dead, and when nobody at all answers questions about a
/// member that it suspects; better with every probe that is answered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health(u8);

impl Health {
    /// Lifeguard goes to 8; here the dead are to be told within 3 s by slow nodes, too.
    const WORST: u8 = 3;

    pub(crate) fn get(self) -> u8 {
        self.0
    }

    pub(crate) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(Self::WORST);
    }

    fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    fn stretch(self, time: Duration) -> Duration {
        time * (u32::from(self.0) + 1)
    }
}

/// What passes through foca's codec.
#[derive(Debug, Default)]
struct Seen {
    /// The last ping: to whom, its number, and whether it was answered.
    probe: Option<(Identity, u8, bool)>,
    /// This node's incarnation, as foca counts those of one identity.
    incarnation: u16,
    /// What was told of members.
    told: Vec<Member<Identity>>,
}

impl Seen {
    fn answered(&mut self, by: &Identity, number: u8) {
        if let Some((probed, n, answered)) = &mut self.probe {
            *answered |= probed == by && *n == number;
        }
    }
}

/// Postcard, with an eye on what passes.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Codec<Identity> for Recorder {
    type Error = postcard::Error;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), Self::Error> {
        let mut seen = self.seen();
        seen.incarnation = header.src_incarnation;
        if let Message::Ping(number) = header.message {
            seen.probe = Some((header.dst, number, false));
        }
        PostcardCodec.encode_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, Self::Error> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        let mut seen = self.seen();
        match header.message {
            Message::Ack(number) => seen.answered(&header.src, number),
            Message::ForwardedAck { origin, probe_number } => seen.answered(&origin, probe_number),
            _ => {}
        }
        seen.told.push(Member::new(header.src, header.src_incarnation, State::Alive));
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), Self::Error> {
        PostcardCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, Self::Error> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        self.seen().told.push(member.clone());
        Ok(member)
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

type Inner = Foca<Identity, Recorder, Rng, NoCustomBroadcast>;

pub(crate) struct Swim {
    foca: Inner,
    recorder: Recorder,
    /// What foca knew of each member when it was last looked at.
    known: BTreeMap<NodeId, Member<Identity>>,
    /// This node's incarnation, when it was last looked at.
    incarnation: u16,
    health: Health,
    timers: BTreeMap<(Duration, u64), Timer<Identity>>,
    submitted: u64,
}

impl Swim {
    pub(crate) fn new(identity: Identity, timing: &Timing, seed: u64) -> Self {
        let recorder = Recorder::default();
        let foca = Foca::new(identity, config(timing), Rng(StdRng::seed_from_u64(seed)), recorder.clone());
        Self {
            foca,
            recorder,
            known: BTreeMap::new(),
            incarnation: 0,
            health: Health::default(),
            timers: BTreeMap::new(),
            submitted: 0,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    pub(crate) fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    /// All that foca remembers, the dead included, this node excluded.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Identity, MemberState)> {
        self.foca.iter_membership_state().map(|member| (*member.id(), state(member)))
    }

    /// Who `node` is.
    pub(crate) fn find(&self, node: NodeId) -> Option<Identity> {
        self.known.get(&node).map(|member| *member.id())
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
        self.run(now, None, |foca, wishes| foca.announce(to, wishes))
    }

    /// Takes a member for dead and tells the others.
    pub(crate) fn declare_down(&mut self, identity: Identity, now: Duration) -> SwimOutcome {
        self.run(now, Some(identity.node), |foca, wishes| {
            foca.apply_many(std::iter::once(Member::down(identity)), true, wishes)
        })
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
        self.run(now, None, |foca, wishes| {
            foca.change_identity(identity, &mut *wishes)?;
            // foca would talk to nobody until somebody talks to it.
            foca.apply_many(std::iter::empty(), false, wishes)
        })
    }

    pub(crate) fn leave(&mut self, now: Duration) -> SwimOutcome {
        self.run(now, None, |foca, wishes| foca.leave_cluster(wishes))
    }

    /// What tells `to` that this node takes `about` for what it does; of `to` itself, that it is suspected.
    pub(crate) fn word(&self, to: Identity, about: NodeId) -> Vec<u8> {
        let (src, src_incarnation) = (self.identity(), self.recorder.seen().incarnation);
        let header = Header { src, src_incarnation, dst: to, message: Message::Gossip };
        let bytes = postcard::to_stdvec(&header).unwrap_or_default();
        let Some(member) = self.known.get(&about).filter(|_| about != src.node) else { return bytes };
        let counted = [&bytes[..], &1u16.to_be_bytes()].concat();
        postcard::to_extend(member, counted).unwrap_or(bytes)
    }

    /// A suspect is down at `at` unless it is heard of.
    pub(crate) fn condemn_at(&mut self, identity: Identity, at: Duration) {
        let found = self.timers.iter().find(
            |(_, timer)| matches!(timer, Timer::ChangeSuspectToDown { member_id, .. } if *member_id == identity),
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
                    Some(member_id.node)
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
        Some(probed.node)
    }

    /// Whether `timer` ends a suspicion that is over. foca 2.0 would leave the member alive, but send it word that it
    /// is down all the same, and it would come back under a new identity for nothing.
    fn is_refuted(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        !self.known.get(&member_id.node).is_some_and(|member| {
            member.id() == member_id
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
                    accused.push(*member_id);
                    after
                }
                _ => after,
            };
            self.submitted += 1;
            self.timers.insert((now + after, self.submitted), timer);
        }
        let sends = wishes.sends.into_iter().map(|(to, data)| (to.addr, data)).collect();
        let changed = self.look(about);
        SwimOutcome { sends, changed, accused, renewed: wishes.renewed, refused }
    }

    /// What foca thinks otherwise than before, of `about` and of those that it was told of.
    fn look(&mut self, about: Option<NodeId>) -> Vec<(Identity, MemberState)> {
        let (told, incarnation) = {
            let mut seen = self.recorder.seen();
            (std::mem::take(&mut seen.told), seen.incarnation)
        };
        if std::mem::replace(&mut self.incarnation, incarnation) < incarnation {
            // It had to speak against a suspicion.
            self.health.worse();
        }
        let news =
            told.iter().filter(|told| self.known.get(&told.id().node).is_none_or(|k| may_change(k, told)));
        let nodes: BTreeSet<NodeId> = news.map(|told| told.id().node).chain(about).collect();
        if nodes.is_empty() {
            return Vec::new();
        }
        // foca finds nobody by address but by looking at all: once for all that a message told.
        let now: BTreeMap<NodeId, Member<Identity>> = self
            .foca
            .iter_membership_state()
            .filter(|member| nodes.contains(&member.id().node))
            .map(|member| (member.id().node, member.clone()))
            .collect();
        let mut changed = Vec::new();
        for node in nodes {
            let now = now.get(&node);
            let before = match now {
                Some(member) => self.known.insert(node, member.clone()),
                None => self.known.remove(&node),
            };
            if let Some(member) = now
                && before.is_none_or(|before| before.id() != member.id() || before.state() != member.state())
            {
                changed.push((*member.id(), state(member)));
            }
        }
        changed
    }
}

fn state(member: &Member<Identity>) -> MemberState {
    match member.state() {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
    }
}

/// Whether `told` may be news of a member that is known as `known` (the order of SWIM, section 4.2; identities besides).
fn may_change(known: &Member<Identity>, told: &Member<Identity>) -> bool {
    if known.id() != told.id() {
        return true;
    }
    match (known.state(), told.state()) {
        (State::Down, _) => false,
        (_, State::Down) => true,
        (_, State::Alive) | (State::Suspect, State::Suspect) => told.incarnation() > known.incarnation(),
        (State::Alive, State::Suspect) => told.incarnation() >= known.incarnation(),
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
