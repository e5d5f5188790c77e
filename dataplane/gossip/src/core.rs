//! The decisions: what a member does with each event. Pure: no sockets, no clock, its randomness seeded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_types::NodeId;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    Announcement, Interest, Item, Key, MemberState, MemberStatus, Message, Packet, Table, Tables, Timing,
    Version,
    outbox::{Outbox, Parcel, portions},
    records::{Applied, Records},
    replay::Window,
    swim::{Identity, Swim, SwimOutcome},
    wire::ITEM_BUDGET,
};

/// Up to so many interested members are told of a change directly; more are reached by relay.
const DIRECT: usize = 16;
/// Members that a change is relayed to at a time.
const FANOUT: usize = 4;
/// Own entries pushed to a member that becomes interested; more are left to the comparison of tables.
const PUSHED: usize = 64;
/// Comparisons begun at a time.
const SYNCS: usize = 8;
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
}

/// Counters of a core since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Dropped: does not decode.
    pub dropped_malformed: u64,
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
    /// Comparisons that found a difference.
    pub syncs_differing: u64,
    /// Times that this node was taken for dead and came back.
    pub renewals: u64,
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
    pub(crate) changed: bool,
    rng: StdRng,
    swim: Swim,
    members: BTreeMap<NodeId, Member>,
    /// Owners and senders that are no members (yet), and since when.
    unknown: BTreeMap<NodeId, Duration>,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that the managers have removed.
    removed: BTreeSet<NodeId>,
    declared: Interest,
    outbox: Outbox,
    relay_at: Duration,
    syncs: BTreeMap<NodeId, Duration>,
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
            changed: true,
            swim: Swim::new(identity, &timing, rng.random()),
            members: BTreeMap::new(),
            unknown: BTreeMap::new(),
            peers: BTreeMap::new(),
            removed: BTreeSet::new(),
            declared: Interest::default(),
            outbox: Outbox::default(),
            relay_at: Duration::ZERO,
            syncs: BTreeMap::new(),
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
        core.records.apply(item, Duration::ZERO, true);
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
            Input::Leave => self.leave(),
        }
        out.append(&mut self.out);
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Duration {
        if let Some((_, farewell)) = self.farewells {
            return self.outbox.deadline().map_or(farewell, |resend| resend.min(farewell));
        }
        let retries = self.peers.iter().filter(|(node, _)| !self.is_live(**node)).map(|(_, p)| p.retry_at);
        [
            Some(self.sync_at),
            Some(self.housekeeping_at),
            self.swim.deadline(),
            self.outbox.deadline(),
            self.outbox.relays().then_some(self.relay_at),
            self.syncs.values().min().copied(),
            retries.min(),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.housekeeping_at)
    }

    /// What this node knows, if that changed since the last call.
    pub fn take_tables(&mut self) -> Option<Tables> {
        std::mem::take(&mut self.changed).then(|| self.tables())
    }

    /// Counters since the start.
    pub fn stats(&self) -> CoreStats {
        self.stats
    }

    fn tables(&self) -> Tables {
        let own = MemberStatus {
            addr: self.swim.identity().addr,
            state: if self.has_left() { MemberState::Left } else { MemberState::Alive },
            since: Duration::ZERO,
        };
        let mut tables = Tables::default();
        tables.members.insert(self.node, own);
        tables.members.extend(self.members.iter().map(|(node, member)| {
            (*node, MemberStatus { addr: member.identity.addr, state: member.state, since: member.since })
        }));
        for (scope, endpoint) in self.records.endpoints() {
            if self.counts(endpoint.node) {
                let table = tables.endpoints.entry(scope).or_default();
                table.insert((endpoint.task, endpoint.network), endpoint.clone());
            }
        }
        tables
    }

    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(Member::is_live)
    }

    /// Whether the entries of `node` are part of the tables.
    pub(crate) fn counts(&self, node: NodeId) -> bool {
        node == self.node || self.is_live(node)
    }

    /// Whether this node wants `table`.
    pub(crate) fn wants(&self, table: Table) -> bool {
        self.records.interest(self.node).is_some_and(|interest| wanted(interest, table))
    }

    fn has_left(&self) -> bool {
        self.farewells.is_some()
    }

    pub(crate) fn next_version(&mut self) -> Version {
        self.counter += 1;
        Version { epoch: self.epoch, counter: self.counter }
    }

    // Time.

    fn tick(&mut self) {
        self.resend();
        if self.has_left() {
            return self.say_farewell();
        }
        let outcome = self.swim.timers(self.now);
        self.take_swim(outcome, true);
        let retry: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, peer)| peer.retry_at <= self.now && !self.is_live(**node))
            .map(|(node, _)| *node)
            .collect();
        for node in retry {
            self.try_peer(node);
        }
        if self.outbox.relays() && self.relay_at <= self.now {
            self.flush_relay(None);
        }
        if self.sync_at <= self.now {
            self.sync_at = self.now + self.timing.sync_interval.mul_f64(self.rng.random_range(0.8..1.2));
            let tables: BTreeSet<Table> = self.records.tables().filter(|table| self.wants(*table)).collect();
            self.sync_tables(tables);
        }
        let due = self.syncs.iter().filter(|(_, at)| **at <= self.now).map(|(node, _)| *node);
        for node in due.take(SYNCS).collect::<Vec<_>>() {
            self.syncs.remove(&node);
            self.start_sync(node);
        }
        if self.housekeeping_at <= self.now {
            self.housekeeping_at = self.now + HOUSEKEEPING;
            self.keep_house();
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
            self.want_sync(node, Duration::ZERO);
        }
    }

    fn try_peer(&mut self, node: NodeId) {
        let jitter = self.rng.random_range(0.75..1.25);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.retry_at = self.now + peer.pause.mul_f64(jitter);
        peer.pause = (peer.pause * 2).min(self.timing.retry_max);
        let outcome = self.swim.announce(node, peer.addr, self.now);
        self.take_swim(outcome, false);
    }

    fn keep_house(&mut self) {
        self.records.reap(self.now, self.timing.tombstone_ttl);
        self.refresh_interest();
        let mut gone = Vec::new();
        for node in self.records.owners() {
            if !self.counts(node) && !self.members.contains_key(&node) {
                self.unknown.entry(node).or_insert(self.now);
            }
        }
        self.unknown.retain(|node, _| !self.members.contains_key(node));
        let absent = self.members.iter().filter(|(_, m)| !m.is_live()).map(|(node, m)| (*node, m.since));
        for (node, since) in absent.chain(self.unknown.iter().map(|(node, since)| (*node, *since))) {
            if self.now.saturating_sub(since) >= self.timing.down_retention {
                gone.push(node);
            }
        }
        for node in gone {
            self.records.forget(node);
            self.windows.remove(&node);
            self.unknown.remove(&node);
            if !self.peers.contains_key(&node) {
                self.changed |= self.members.remove(&node).is_some();
            }
        }
        self.told_outdated.clear();
    }

    // Membership.

    fn take_swim(&mut self, outcome: SwimOutcome, look: bool) {
        for (to, bytes) in outcome.sends {
            self.send(to, Message::Swim(bytes), false);
        }
        self.stats.swim_refused += u64::from(outcome.refused);
        if outcome.changed || look {
            self.observe_members();
        }
        if outcome.renewed {
            self.stats.renewals += 1;
            for peer in self.peers.values_mut() {
                (peer.retry_at, peer.pause) = (self.now, RETRY_MIN);
            }
        }
    }

    fn observe_members(&mut self) {
        let seen: Vec<(Identity, MemberState)> = self
            .swim
            .members()
            .filter(|(identity, state)| match self.members.get(&identity.node) {
                None => *state != MemberState::Down,
                Some(known) if known.identity == *identity => {
                    known.state != *state
                        && !(known.state == MemberState::Left && *state == MemberState::Down)
                }
                Some(_) => true,
            })
            .collect();
        for (identity, state) in seen {
            if identity.node != self.node && !self.removed.contains(&identity.node) {
                self.transition(identity, state);
            }
        }
    }

    fn transition(&mut self, identity: Identity, state: MemberState) {
        let node = identity.node;
        let member = Member { identity, state, since: self.now };
        let before = self.members.insert(node, member);
        self.changed = true;
        self.records.raise_epoch(node, identity.epoch);
        let was_live = before.as_ref().is_some_and(Member::is_live);
        if member.is_live() {
            if !was_live || before.is_some_and(|before| before.identity != identity) {
                self.welcome(node);
            }
        } else if was_live {
            self.outbox.forget(node);
            self.syncs.remove(&node);
            if let Some(peer) = self.peers.get_mut(&node) {
                (peer.retry_at, peer.pause) = (self.now + RETRY_MIN, RETRY_MIN);
            }
        }
    }

    /// A member came, or came back: it is told at once what this node owns, and then compared with in full.
    fn welcome(&mut self, node: NodeId) {
        self.outbox.forget(node);
        let mut items = self.records.of(Table::Interests, self.node);
        if let Some(interest) = self.records.interest(node) {
            let own = self.records.all_of(self.node).into_iter();
            items.extend(own.filter(|item| wanted(interest, item.key().table) && item.key().slot.is_some()));
            items.truncate(PUSHED);
        }
        self.send_direct(node, items);
        // Both sides begin; the later one finds the tables equal already, most often.
        let later = if self.node < node { 0 } else { 200 };
        self.want_sync(node, Duration::from_millis(later));
    }

    fn set_peers(&mut self, listed: Vec<(NodeId, SocketAddr)>) {
        let listed: BTreeMap<NodeId, SocketAddr> =
            listed.into_iter().filter(|(node, _)| *node != self.node).collect();
        let unlisted: Vec<NodeId> =
            self.peers.keys().filter(|node| !listed.contains_key(node)).copied().collect();
        for node in unlisted {
            self.peers.remove(&node);
            self.removed.insert(node);
            self.outbox.forget(node);
            self.syncs.remove(&node);
            self.windows.remove(&node);
            self.records.forget(node);
            self.changed = true;
            if let Some(member) = self.members.remove(&node) {
                let outcome = self.swim.declare_down(member.identity, self.now);
                self.take_swim(outcome, false);
            }
        }
        for (node, addr) in listed {
            let known = self.peers.get(&node).is_some_and(|peer| peer.addr == addr);
            self.removed.remove(&node);
            if !known {
                self.peers.insert(node, Peer { addr, retry_at: self.now, pause: RETRY_MIN });
                if !self.is_live(node) {
                    self.try_peer(node);
                }
            }
        }
    }

    fn leave(&mut self) {
        self.announce(Vec::new());
        self.farewells = Some((FAREWELLS, self.now));
        self.say_farewell();
        let outcome = self.swim.leave(self.now);
        self.take_swim(outcome, false);
        self.changed = true;
    }

    fn say_farewell(&mut self) {
        let Some((left, at)) = self.farewells else { return };
        if at > self.now {
            return;
        }
        if left == 0 {
            self.farewells = Some((0, Duration::MAX));
            return;
        }
        let to: Vec<SocketAddr> =
            self.members.values().filter(|member| member.is_live()).map(|m| m.identity.addr).collect();
        for to in to {
            self.send(to, Message::Leave, false);
        }
        self.farewells = Some((left - 1, self.now + FAREWELL_PAUSE));
    }

    fn member_left(&mut self, node: NodeId) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let identity = member.identity;
        (member.state, member.since) = (MemberState::Left, self.now);
        self.changed = true;
        self.outbox.forget(node);
        self.syncs.remove(&node);
        let outcome = self.swim.declare_down(identity, self.now);
        self.take_swim(outcome, false);
    }

    // Entries of this node.

    fn announce(&mut self, own: Vec<Announcement>) {
        let mut missing: BTreeMap<Key, Item> =
            self.records.all_of(self.node).into_iter().map(|item| (item.key(), item)).collect();
        missing.retain(|key, _| key.slot.is_some());
        let mut changes = Vec::new();
        let unset = Version { epoch: 0, counter: 0 };
        for Announcement { scope, mut endpoint } in own {
            endpoint.node = self.node;
            let item = Item::Endpoint { scope, version: unset, endpoint: Box::new(endpoint) };
            let before = missing.remove(&item.key());
            if before.is_none_or(|before| before.with_version(unset) != item) {
                changes.push(item);
            }
        }
        for (key, item) in missing {
            if let (Table::Endpoints(scope), Some((task, network)), false) =
                (key.table, key.slot, item.is_gone())
            {
                changes.push(Item::Gone { scope, version: unset, owner: self.node, task, network });
            }
        }
        self.publish(changes);
        self.refresh_interest();
    }

    /// Gives own items new versions and tells everyone concerned.
    pub(crate) fn publish(&mut self, items: Vec<Item>) {
        let mut told = Vec::with_capacity(items.len());
        for item in items {
            let item = item.with_version(self.next_version());
            self.records.apply(item.clone(), self.now, true);
            told.push(item);
        }
        if !told.is_empty() {
            self.changed = true;
            self.disseminate(told);
        }
    }

    /// Brings this node's stated interest in line with what it declared and what it owns.
    fn refresh_interest(&mut self) {
        let mut interest = self.declared.clone();
        if let Interest::Networks(networks) = &mut interest {
            networks.extend(self.records.tables().filter_map(|table| match table {
                Table::Endpoints(scope) if !self.records.of(table, self.node).is_empty() => Some(scope),
                _ => None,
            }));
        }
        let before = self.records.interest(self.node).cloned().unwrap_or_default();
        if interest == before {
            return;
        }
        let version = Version { epoch: 0, counter: 0 };
        self.publish(vec![Item::Interest { owner: self.node, version, interest: interest.clone() }]);
        self.records.retain_tables(|table| wanted(&interest, table));
        let mut known = BTreeSet::new();
        for node in std::iter::once(self.node).chain(self.members.keys().copied()) {
            if let Some(Interest::Networks(networks)) = self.records.interest(node) {
                known.extend(networks);
            }
        }
        let grown = known.into_iter().filter(|scope| interest.includes(*scope) && !before.includes(*scope));
        self.sync_tables(grown.map(Table::Endpoints).collect());
    }

    /// Others know a life of this node that it does not: it goes on from there.
    fn raise_own_epoch(&mut self, known: u64) {
        let own = self.records.all_of(self.node);
        self.epoch = known.saturating_add(1);
        self.records.raise_epoch(self.node, self.epoch);
        let outcome = self.swim.change_epoch(self.epoch, self.now);
        self.take_swim(outcome, false);
        for peer in self.peers.values_mut() {
            (peer.retry_at, peer.pause) = (self.now, RETRY_MIN);
        }
        self.publish(own);
    }

    /// Another tells of an entry of this node: whatever is not so is put right.
    fn own_entry_told(&mut self, item: &Item, by: NodeId) {
        let told = item.version();
        if told.epoch > self.epoch {
            return self.raise_own_epoch(told.epoch);
        }
        let mine = self.records.get(&item.key()).cloned();
        match mine {
            _ if told.epoch < self.epoch => self.want_sync(by, Duration::ZERO),
            Some(mine) if told.counter > mine.version().counter => {
                self.counter = self.counter.max(told.counter);
                self.publish(vec![mine]);
            }
            Some(mine) if told.counter < mine.version().counter => self.send_direct(by, vec![mine]),
            Some(_) => {}
            None => {
                self.counter = self.counter.max(told.counter);
                if let Item::Endpoint { scope, version, endpoint } = item {
                    let (task, network) = (endpoint.task, endpoint.network);
                    let (scope, version) = (*scope, *version);
                    self.publish(vec![Item::Gone { scope, version, owner: self.node, task, network }]);
                }
            }
        }
    }

    // Entries of others.

    /// Takes in an item that `by` told. `true` if it was new.
    pub(crate) fn accept(&mut self, item: Item, by: NodeId) -> bool {
        let Key { table, owner, .. } = item.key();
        if owner == self.node {
            self.own_entry_told(&item, by);
            return false;
        }
        if self.removed.contains(&owner) {
            return false;
        }
        if !self.wants(table) {
            self.stats.ignored_uninteresting += 1;
            return false;
        }
        let before = match &item {
            Item::Interest { .. } => self.records.interest(owner).cloned(),
            _ => None,
        };
        let interest = match &item {
            Item::Interest { interest, .. } => Some(interest.clone()),
            _ => None,
        };
        match self.records.apply(item, self.now, by == owner) {
            Applied::New => {
                self.changed = true;
                if let Some(interest) = interest {
                    self.interest_told(owner, &before.unwrap_or_default(), &interest);
                }
                true
            }
            Applied::Doubtful => {
                self.stats.ignored_doubtful += 1;
                self.want_sync(owner, Duration::ZERO);
                false
            }
            Applied::Same | Applied::Stale => false,
        }
    }

    /// A member wants more than before: it gets what this node owns of it, unless so many want it that it is
    /// cheaper to let it ask one of them.
    fn interest_told(&mut self, node: NodeId, before: &Interest, now: &Interest) {
        if !self.is_live(node) {
            return;
        }
        let mut items = self.records.all_of(self.node);
        items.retain(|item| match item.key().table {
            Table::Endpoints(scope) => now.includes(scope) && !before.includes(scope),
            Table::Interests => false,
        });
        if items.len() <= PUSHED {
            self.send_direct(node, items);
        }
    }

    // Sending.

    fn audience(&self, table: Table) -> Vec<NodeId> {
        self.members
            .iter()
            .filter(|(node, member)| {
                member.is_live()
                    && (table == Table::Interests
                        || self.records.interest(**node).is_some_and(|interest| wanted(interest, table)))
            })
            .map(|(node, _)| *node)
            .collect()
    }

    fn disseminate(&mut self, items: Vec<Item>) {
        let mut audiences: BTreeMap<Table, Vec<NodeId>> = BTreeMap::new();
        let mut direct: BTreeMap<NodeId, Vec<Item>> = BTreeMap::new();
        let mut fresh = BTreeSet::new();
        for item in items {
            let key = item.key();
            let audience = audiences.entry(key.table).or_insert_with(|| self.audience(key.table));
            if audience.len() > DIRECT {
                self.outbox.relay(key, item.version(), rounds(audience.len()));
                fresh.insert(key);
            } else {
                for node in audience.iter() {
                    direct.entry(*node).or_default().push(item.clone());
                }
            }
        }
        for (node, items) in direct {
            self.send_direct(node, items);
        }
        self.flush_relay(Some(&fresh));
    }

    pub(crate) fn send_direct(&mut self, to: NodeId, items: Vec<Item>) {
        if items.is_empty() || !self.is_live(to) {
            return;
        }
        match self.outbox.direct(to, items, self.now, self.timing.resend) {
            Some(parcels) => parcels.into_iter().for_each(|parcel| self.send_parcel(parcel)),
            None => self.want_sync(to, Duration::ZERO),
        }
    }

    fn send_parcel(&mut self, parcel: Parcel) {
        let Parcel { to, ticket, items } = parcel;
        let large = items.iter().any(|item| item.encoded_len() > ITEM_BUDGET);
        self.send_to(to, Message::Update { relay: false, ticket, items }, large);
    }

    /// Relays what is due, or only `fresh` changes at once.
    fn flush_relay(&mut self, fresh: Option<&BTreeSet<Key>>) {
        let mut by_target: BTreeMap<NodeId, Vec<Item>> = BTreeMap::new();
        let mut targets: BTreeMap<Table, Vec<NodeId>> = BTreeMap::new();
        if fresh.is_none_or(|fresh| !fresh.is_empty()) {
            for (key, version) in self.outbox.take_relay(fresh) {
                let Some(item) = self.records.get(&key).filter(|item| item.version() == version) else {
                    continue;
                };
                let item = item.clone();
                let targets = targets.entry(key.table).or_insert_with(|| {
                    let audience = self.audience(key.table);
                    audience.choose_multiple(&mut self.rng, FANOUT).copied().collect()
                });
                for node in targets.iter().filter(|node| **node != key.owner) {
                    by_target.entry(*node).or_default().push(item.clone());
                }
            }
        }
        for (node, items) in by_target {
            for items in portions(items) {
                let large = items.iter().any(|item| item.encoded_len() > ITEM_BUDGET);
                self.send_to(node, Message::Update { relay: true, ticket: 0, items }, large);
            }
        }
        if fresh.is_none() || self.relay_at < self.now {
            self.relay_at = self.now + self.timing.gossip_interval;
        }
    }

    pub(crate) fn send_to(&mut self, node: NodeId, message: Message, stream: bool) {
        if let Some(member) = self.members.get(&node) {
            self.send(member.identity.addr, message, stream);
        }
    }

    fn send(&mut self, to: SocketAddr, message: Message, stream: bool) {
        let counter = if stream { &mut self.sequences.1 } else { &mut self.sequences.0 };
        *counter += 1;
        let packet = Packet { from: self.node, epoch: self.epoch, sequence: *counter, message };
        let bytes = packet.encode();
        self.out.push(if stream { Output::Stream { to, bytes } } else { Output::Datagram { to, bytes } });
    }

    // Receiving.

    fn receive(&mut self, bytes: &[u8], stream: bool) {
        let Ok(packet) = Packet::decode(bytes) else {
            self.stats.dropped_malformed += 1;
            return;
        };
        let Packet { from, epoch, sequence, message } = packet;
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
        self.changed |= self.records.raise_epoch(from, epoch);
        match message {
            Message::Ack { ticket } => self.outbox.acknowledged(ticket, from),
            _ if self.has_left() => {}
            Message::Swim(bytes) => {
                let outcome = self.swim.data(&bytes, self.now);
                self.take_swim(outcome, false);
            }
            Message::Update { relay, ticket, items } => self.receive_update(from, relay, ticket, items),
            Message::Leave => self.member_left(from),
            Message::Outdated { epoch } if epoch > self.epoch => self.raise_own_epoch(epoch),
            Message::Outdated { .. } => {}
            Message::Digest { interest, tables } => self.receive_digest(from, interest, tables),
            Message::Owners { interest, tables } => self.receive_owners(from, interest, tables),
            Message::Records { wants, groups } => self.receive_records(from, wants, groups),
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
            if self.accept(item, from) && relay {
                let times = rounds(self.audience(key.table).len());
                self.outbox.relay(key, version, times);
                fresh.insert(key);
            }
        }
        self.flush_relay(Some(&fresh));
    }

    // Choosing whom to compare with; how is in `sync`.

    pub(crate) fn want_sync(&mut self, node: NodeId, after: Duration) {
        if self.is_live(node) {
            let at = self.now + after;
            self.syncs.entry(node).and_modify(|due| *due = at.min(*due)).or_insert(at);
        }
    }

    /// Compares `tables` with random members, as few as together want them all.
    fn sync_tables(&mut self, mut tables: BTreeSet<Table>) {
        let mut chosen = 0;
        while let (Some(table), true) = (tables.pop_first(), chosen < SYNCS) {
            if let Some(node) = self.audience(table).choose(&mut self.rng).copied() {
                chosen += 1;
                self.want_sync(node, Duration::ZERO);
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

/// Rounds of relaying, [`FANOUT`] members each, that reach `audience` members almost surely.
fn rounds(audience: usize) -> u8 {
    (2 + audience.checked_ilog(FANOUT).unwrap_or(0)).min(10) as u8
}
