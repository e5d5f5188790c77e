//! The decisions: what a member does with each event. Pure: no sockets, no clock, its randomness seeded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use mesh_types::NodeId;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    Announcement, Interest, Item, Liveness, MemberState, Message, Packet, Table, Tables, Timing, Version,
    WireError,
    outbox::Outbox,
    records::{Records, Teller},
    replay::Window,
    swim::{Identity, Swim},
    sync::Agreement,
};

mod asking;
mod entries;
mod membership;
mod report;
mod sending;
mod snapshot;
mod witness;

use asking::Asking;
use witness::Witnesses;

/// Up to so many interested members are told of a change directly; more are reached by relay.
const DIRECT: usize = 32;
/// Members that a change is relayed to at once, and those that it is relayed to in each round after that.
const FANOUT: usize = 4;
const LATER_FANOUT: usize = 2;
/// For so long relays go to members that were interested at its beginning.
const AUDIENCE_AGE: Duration = Duration::from_millis(100);
/// Own entries pushed to a member that becomes interested; more are left to the comparison of tables.
const PUSHED: usize = 64;
/// Comparisons begun at a time; among many members fewer, and with a pause: where all are new to each other, the first few make
/// the others equal, which then cost one small message instead of all tables.
const SYNCS: usize = 8;
const SYNCS_OF_MANY: usize = 4;
const SYNC_PAUSE: Duration = Duration::from_millis(200);
/// Peers that are not there and are tried at a time, and the pause until the next few.
const TRIED: usize = 16;
const TRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_MIN: Duration = Duration::from_millis(250);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often a leaving member says so, and the pause between.
const FAREWELLS: u8 = 3;
const FAREWELL_PAUSE: Duration = Duration::from_millis(60);

/// Who this member is.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This node.
    pub node: NodeId,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Its incarnation; see [`crate::GossipConfig::incarnation`].
    pub incarnation: u64,
    /// How fast.
    pub timing: Timing,
    /// Of its random choices.
    pub seed: u64,
}

/// An event.
#[derive(Debug, Clone)]
pub enum Input {
    /// [`Core::deadline`] is reached.
    Tick,
    /// An opened datagram.
    Datagram(Vec<u8>),
    /// An opened TCP message.
    Stream(Vec<u8>),
    /// All endpoints of this node.
    Announce(Vec<Announcement>),
    /// The tables that this node wants.
    Interest(Interest),
    /// The members that the managers know.
    Peers(Vec<(NodeId, SocketAddr)>),
    /// Where the data paths of the other nodes can be asked whether they work.
    DataPaths(Vec<(NodeId, SocketAddr)>),
    /// A data path answers the question that bore this number.
    Answer {
        /// Who.
        from: SocketAddr,
        /// As it was asked.
        nonce: u64,
    },
    /// Others reach this node at another address from now on.
    Advertise(SocketAddr),
    /// This node leaves the cluster.
    Leave,
}

/// Something to send, yet to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// By UDP.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// By TCP, as one message.
    Stream {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// To a node's data path, from the address of this node's own.
    Question {
        /// Where to.
        to: SocketAddr,
        /// By which its answer is known.
        nonce: u64,
    },
}

/// Counters of a core since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Dropped: does not decode.
    pub dropped_malformed: u64,
    /// Dropped: of a wire version that this node does not speak.
    pub dropped_version: u64,
    /// Passed over: of a kind that a later release has.
    pub ignored_kind: u64,
    /// Dropped: seen before, or too old to tell.
    pub dropped_replayed: u64,
    /// Dropped: from a past incarnation of its sender.
    pub dropped_outdated: u64,
    /// Dropped: from a node that is no member any more, or that claims to be this one.
    pub dropped_stranger: u64,
    /// Items ignored: of a table that this node does not want.
    pub ignored_uninteresting: u64,
    /// Items ignored: told by another than the owner, and likely deleted long ago.
    pub ignored_doubtful: u64,
    /// Items ignored: not of the group they were told in.
    pub ignored_invalid: u64,
    /// Membership messages that foca refused.
    pub swim_refused: u64,
    /// Updates sent again for want of an acknowledgement.
    pub resent: u64,
    /// Comparisons of tables begun.
    pub syncs: u64,
    /// Comparisons that others began and that found a difference.
    pub syncs_differing: u64,
    /// Comparisons that others began and that found none.
    pub syncs_equal: u64,
    /// Times that this node was taken for dead and came back.
    pub renewals: u64,
    /// Members that did not answer this node's probes, and were asked about.
    pub suspicions: u64,
    /// How slow this node seems to be itself, from 0 (well) to 3; not a counter.
    pub slowness: u8,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    identity: Identity,
    state: MemberState,
    since: Duration,
}

impl Member {
    fn is_live(&self) -> bool {
        matches!(self.state, MemberState::Alive | MemberState::Suspect)
    }

    /// Whether what it told counts.
    fn counts(&self) -> bool {
        self.state.liveness() != Liveness::Gone
    }
}

#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    retry_at: Duration,
    pause: Duration,
}

#[derive(Debug, Default)]
struct Windows {
    epoch: u64,
    datagrams: Window,
    streams: Window,
}

/// One member's knowledge and behaviour.
pub struct Core {
    pub(crate) node: NodeId,
    pub(crate) timing: Timing,
    pub(crate) now: Duration,
    pub(crate) epoch: u64,
    pub(crate) counter: u64,
    pub(crate) records: Records,
    pub(crate) stats: CoreStats,
    /// As [`Core::take_tables`] gave them last.
    tables: Tables,
    members_changed: bool,
    rng: StdRng,
    swim: Swim,
    members: BTreeMap<NodeId, Member>,
    /// Members that are live, and how many were when this node last introduced itself.
    live: usize,
    introduced: usize,
    introduce_at: Duration,
    /// Owners and senders that are no members (yet), and since when.
    unknown: BTreeMap<NodeId, Duration>,
    peers: BTreeMap<NodeId, Peer>,
    /// No peer is to be tried before.
    retry_at: Duration,
    data_paths: BTreeMap<NodeId, SocketAddr>,
    asking: BTreeMap<NodeId, Asking>,
    witnesses: Witnesses,
    /// Nodes that the managers have removed.
    removed: BTreeSet<NodeId>,
    declared: Interest,
    outbox: Outbox,
    relay_at: Duration,
    /// Who relays go to, by table, and until when that holds.
    audiences: BTreeMap<Table, (Duration, Arc<[NodeId]>)>,
    /// Comparisons to begin: when, and whether surely.
    syncs: BTreeMap<NodeId, (Duration, bool)>,
    /// None is begun before.
    syncs_from: Duration,
    pub(crate) agreement: Agreement,
    sync_at: Duration,
    housekeeping_at: Duration,
    windows: BTreeMap<NodeId, Windows>,
    told_outdated: BTreeMap<NodeId, Duration>,
    sequences: (u64, u64),
    farewells: Option<(u8, Duration)>,
    pub(crate) out: Vec<Output>,
}

impl Core {
    /// A member that knows of itself only.
    pub fn new(config: CoreConfig) -> Self {
        let CoreConfig { node, advertise, incarnation, timing, seed } = config;
        let mut rng = StdRng::seed_from_u64(seed);
        let identity = Identity { node, addr: advertise, epoch: incarnation, renewal: 0 };
        let mut core = Self {
            node,
            timing,
            now: Duration::ZERO,
            epoch: incarnation,
            counter: 0,
            records: Records::default(),
            stats: CoreStats::default(),
            tables: Tables::default(),
            members_changed: true,
            swim: Swim::new(identity, &timing, rng.random()),
            members: BTreeMap::new(),
            live: 0,
            introduced: 0,
            introduce_at: Duration::MAX,
            unknown: BTreeMap::new(),
            peers: BTreeMap::new(),
            retry_at: Duration::MAX,
            data_paths: BTreeMap::new(),
            asking: BTreeMap::new(),
            witnesses: Witnesses::default(),
            removed: BTreeSet::new(),
            declared: Interest::default(),
            outbox: Outbox::default(),
            relay_at: Duration::ZERO,
            audiences: BTreeMap::new(),
            syncs: BTreeMap::new(),
            syncs_from: Duration::ZERO,
            agreement: Agreement::default(),
            sync_at: timing.sync_interval.mul_f64(rng.random_range(0.5..1.0)),
            housekeeping_at: HOUSEKEEPING,
            windows: BTreeMap::new(),
            told_outdated: BTreeMap::new(),
            sequences: (0, 0),
            farewells: None,
            out: Vec::new(),
            rng,
        };
        let version = core.next_version();
        let item = Item::Interest { owner: node, version, interest: Interest::default() };
        core.records.apply(item, Duration::ZERO, Teller::Owner);
        core
    }

    /// Takes in an event at `now`, the time since the start; what is to be sent is added to `out`.
    ///
    /// After a standstill, packets that wait are to be handed in before [`Input::Tick`].
    pub fn handle(&mut self, input: Input, now: Duration, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        match input {
            Input::Tick => self.tick(),
            Input::Datagram(bytes) => self.receive(&bytes, false),
            Input::Stream(bytes) => self.receive(&bytes, true),
            _ if self.has_left() => {}
            Input::Announce(own) => self.announce(own),
            Input::Interest(interest) => {
                self.declared = interest;
                self.refresh_interest();
            }
            Input::Peers(peers) => self.set_peers(peers),
            Input::DataPaths(listed) => self.set_data_paths(listed),
            Input::Answer { from, nonce } => self.answered(from, nonce),
            Input::Advertise(addr) => self.change_addr(addr),
            Input::Leave => self.leave(),
        }
        out.append(&mut self.out);
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Duration {
        if let Some((_, farewell)) = self.farewells {
            return self.outbox.deadline().map_or(farewell, |resend| resend.min(farewell));
        }
        [
            Some(self.sync_at),
            Some(self.housekeeping_at),
            self.swim.deadline(),
            self.outbox.deadline(),
            self.outbox.relays().then_some(self.relay_at),
            self.syncs.values().map(|(at, _)| *at).min().map(|at| at.max(self.syncs_from)),
            Some(self.introduce_at),
            self.asking_deadline(),
            self.witnesses.deadline(),
            Some(self.retry_at),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.housekeeping_at)
    }

    /// Counters since the start.
    pub fn stats(&self) -> CoreStats {
        self.stats
    }

    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(Member::is_live)
    }

    /// Whether the entries of `node` are part of the tables.
    pub(crate) fn counts(&self, node: NodeId) -> bool {
        node == self.node || self.members.get(&node).is_some_and(Member::counts)
    }

    /// Whether this node wants `table`.
    pub(crate) fn wants(&self, table: Table) -> bool {
        self.records.interest(self.node).is_some_and(|interest| wanted(interest, table))
    }

    fn has_left(&self) -> bool {
        self.farewells.is_some()
    }

    pub(crate) fn next_version(&mut self) -> Version {
        self.counter = self.counter.saturating_add(1);
        Version { epoch: self.epoch, counter: self.counter }
    }

    fn tick(&mut self) {
        self.resend();
        if self.has_left() {
            return self.say_farewell();
        }
        let outcome = self.swim.timers(self.now);
        self.take_swim(outcome);
        self.ask_due();
        self.witnesses_due();
        if self.retry_at <= self.now {
            self.try_peers();
        }
        if self.outbox.relays() && self.relay_at <= self.now {
            self.flush_relay(None);
        }
        if self.sync_at <= self.now {
            self.sync_at = self.now + self.timing.sync_interval.mul_f64(self.rng.random_range(0.8..1.2));
            let tables: BTreeSet<Table> = self.records.tables().filter(|table| self.wants(*table)).collect();
            self.sync_tables(tables, false);
        }
        if self.introduce_at <= self.now {
            self.introduce();
        }
        if self.syncs_from <= self.now {
            self.start_syncs();
        }
        if self.housekeeping_at <= self.now {
            self.housekeeping_at = self.now + HOUSEKEEPING;
            self.keep_house();
        }
    }

    /// Begins the comparisons that have been due longest.
    fn start_syncs(&mut self) {
        let many = self.live.max(self.peers.len()) > membership::MANY;
        let due = self.syncs.iter().filter(|(_, (at, _))| *at <= self.now);
        let mut due: Vec<(Duration, NodeId, bool)> =
            due.map(|(node, (at, surely))| (*at, *node, *surely)).collect();
        due.sort_unstable();
        due.truncate(if many { SYNCS_OF_MANY } else { SYNCS });
        if many && !due.is_empty() {
            self.syncs_from = self.now + SYNC_PAUSE;
        }
        for (_, node, surely) in due {
            self.syncs.remove(&node);
            self.start_sync(node, surely);
        }
    }

    fn resend(&mut self) {
        let records = &self.records;
        let current = |item: &Item| records.get(&item.key()).is_some_and(|i| i.version() == item.version());
        let due = self.outbox.due(self.now, self.timing.resend, current);
        self.stats.resent += due.parcels.len() as u64;
        for parcel in due.parcels {
            self.send_parcel(parcel);
        }
        for node in due.given_up {
            self.want_sync(node, Duration::ZERO, true);
        }
    }

    /// Tries the peers that are due, a few at a time: each that answers names many others, which are not to be tried then.
    fn try_peers(&mut self) {
        let absent = |node: &NodeId| !self.members.get(node).is_some_and(Member::is_live);
        let due = self.peers.iter().filter(|(node, peer)| peer.retry_at <= self.now && absent(node));
        let due: Vec<NodeId> = due.map(|(node, _)| *node).collect();
        let tried: Vec<NodeId> = due.choose_multiple(&mut self.rng, TRIED).copied().collect();
        for node in &tried {
            self.try_peer(*node);
        }
        self.retry_at = if tried.len() < due.len() {
            self.now + TRY_PAUSE
        } else {
            let absent = self.peers.iter().filter(|(node, _)| !self.is_live(**node));
            absent.map(|(_, peer)| peer.retry_at).min().unwrap_or(Duration::MAX)
        };
    }

    fn try_peer(&mut self, node: NodeId) {
        let jitter = self.rng.random_range(0.75..1.25);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.retry_at = self.now + peer.pause.mul_f64(jitter);
        peer.pause = (peer.pause * 2).min(self.timing.retry_max);
        let outcome = self.swim.announce(node, peer.addr, self.now);
        self.take_swim(outcome);
    }

    /// All peers that are not there are to be tried soon.
    fn try_all_peers(&mut self) {
        for peer in self.peers.values_mut() {
            (peer.retry_at, peer.pause) = (self.now, RETRY_MIN);
        }
        self.retry_at = self.now;
    }

    fn keep_house(&mut self) {
        self.records.reap(self.now, self.timing.tombstone_ttl);
        self.stats.slowness = self.swim.health().get();
        self.observe_all();
        self.audiences.retain(|_, (until, _)| *until > self.now);
        self.refresh_interest();
        let mut gone = Vec::new();
        for node in self.records.owners() {
            if !self.counts(node) && !self.members.contains_key(&node) {
                self.unknown.entry(node).or_insert(self.now);
            }
        }
        self.unknown.retain(|node, _| !self.members.contains_key(node));
        let absent = self.members.iter().filter(|(_, m)| !m.counts()).map(|(node, m)| (*node, m.since));
        for (node, since) in absent.chain(self.unknown.iter().map(|(node, since)| (*node, *since))) {
            if self.now.saturating_sub(since) >= self.timing.down_retention {
                gone.push(node);
            }
        }
        for node in gone {
            self.unknown.remove(&node);
            if self.peers.contains_key(&node) {
                // What it said last stays known, or it could be said again by whoever has heard it.
                self.records.drop_entries(node);
            } else {
                self.records.forget(node);
                self.windows.remove(&node);
                self.members_changed |= self.members.remove(&node).is_some();
            }
        }
        self.told_outdated.clear();
    }

    fn receive(&mut self, bytes: &[u8], stream: bool) {
        let Packet { from, epoch, sequence, message } = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => {
                let counter = match error {
                    WireError::Version(_) => &mut self.stats.dropped_version,
                    WireError::Kind(_) => &mut self.stats.ignored_kind,
                    WireError::Empty | WireError::Malformed => &mut self.stats.dropped_malformed,
                };
                *counter += 1;
                return;
            }
        };
        if from == self.node || self.removed.contains(&from) {
            self.stats.dropped_stranger += 1;
            return;
        }
        let known = self.records.epoch(from);
        if epoch < known {
            self.stats.dropped_outdated += 1;
            return self.tell_outdated(from, known);
        }
        let windows = self.windows.entry(from).or_default();
        if windows.epoch != epoch {
            *windows = Windows { epoch, ..Windows::default() };
        }
        let window = if stream { &mut windows.streams } else { &mut windows.datagrams };
        if !window.accept(sequence) {
            self.stats.dropped_replayed += 1;
            return;
        }
        self.records.raise_epoch(from, epoch);
        match message {
            Message::Ack { ticket } => self.outbox.acknowledged(ticket, from),
            _ if self.has_left() => {}
            Message::Swim(bytes) => {
                let outcome = self.swim.data(&bytes, self.now);
                self.take_swim(outcome);
            }
            Message::Update { relay, ticket, items } => self.receive_update(from, relay, ticket, items),
            Message::Leave => self.member_left(from),
            Message::Outdated { epoch } if epoch > self.epoch => self.raise_own_epoch(epoch),
            Message::Outdated { .. } => {}
            Message::Digest { interest, tables } => self.receive_digest(from, interest, tables),
            Message::Owners { interest, tables } => self.receive_owners(from, interest, tables),
            Message::Records { wants, groups } => self.receive_records(from, wants, groups),
            Message::Inquire { node, addr, swim, ticket } => {
                self.receive_inquiry(from, node, addr, swim, ticket)
            }
            Message::Probe { swim, ticket } => self.receive_probe(from, &swim, ticket),
            Message::Probed { swim, ticket } => self.receive_probed(from, &swim, ticket),
            Message::Witness { swim, ticket } => self.receive_witness(from, &swim, ticket),
        }
    }

    fn tell_outdated(&mut self, node: NodeId, epoch: u64) {
        let addr = self.peers.get(&node).map(|peer| peer.addr);
        let addr = addr.or_else(|| self.members.get(&node).map(|member| member.identity.addr));
        if let (Some(to), true) = (addr, self.told_outdated.insert(node, self.now).is_none()) {
            self.send(to, Message::Outdated { epoch }, false);
        }
    }

    fn receive_update(&mut self, from: NodeId, relay: bool, ticket: u64, items: Vec<Item>) {
        if ticket != 0 {
            self.send_to(from, Message::Ack { ticket }, false);
        }
        let mut fresh = BTreeSet::new();
        for item in items {
            let (key, version) = (item.key(), item.version());
            if self.accept(item, from, false) && relay {
                let times = rounds(self.relay_audience(key.table).len());
                self.outbox.relay(key, version, times, self.node);
                fresh.insert(key);
            }
        }
        self.flush_relay(Some(&fresh));
    }

    // Choosing whom to compare with; how is in `sync`.

    pub(crate) fn want_sync(&mut self, node: NodeId, after: Duration, surely: bool) {
        if self.is_live(node) {
            let at = self.now + after;
            let (due, sure) = self.syncs.entry(node).or_insert((at, surely));
            (*due, *sure) = (at.min(*due), surely || *sure);
        }
    }

    /// Compares `tables` with random members, as few as together want them all.
    fn sync_tables(&mut self, mut tables: BTreeSet<Table>, surely: bool) {
        let mut chosen = 0;
        while let (Some(table), true) = (tables.pop_first(), chosen < SYNCS) {
            if let Some(node) = self.audience(table).choose(&mut self.rng).copied() {
                chosen += 1;
                self.want_sync(node, Duration::ZERO, surely);
                match self.records.interest(node) {
                    Some(interest) => tables.retain(|table| !wanted(interest, *table)),
                    None => tables.retain(|table| *table != Table::Interests),
                }
            }
        }
    }
}

/// Whether someone with `interest` wants `table`.
pub(crate) fn wanted(interest: &Interest, table: Table) -> bool {
    match table {
        Table::Interests => true,
        Table::Endpoints(scope) => interest.includes(scope),
    }
}

/// Rounds of relaying that reach `audience` members almost surely: each member that hears of a change tells about ln n + 3
/// others (Demers et al. 1987), [`FANOUT`] of them at once and [`LATER_FANOUT`] in each further round.
fn rounds(audience: usize) -> u8 {
    let told = audience.max(1).ilog2() as usize * 7 / 10 + 3;
    (1 + told.saturating_sub(FANOUT).div_ceil(LATER_FANOUT)).min(10) as u8
}
