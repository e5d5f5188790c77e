//! The decisions: what a member does with each event. Pure: no sockets, no clock, its randomness seeded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_types::NodeId;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    Interest, Item, MemberStatus, SharedMap, Table, Tables, Timing, Version,
    addr::SmallAddr,
    nodes::NodeMap,
    outbox::Outbox,
    records::{Records, Teller},
    swim::{Identity, Swim},
    sync::Agreement,
};

mod acquaint;
mod asking;
mod entries;
mod io;
mod membership;
mod peers;
mod receiving;
mod report;
mod sending;
mod snapshot;
mod tick;
mod witness;

pub use acquaint::Acquaintance;
use asking::Asking;
pub use io::{CoreConfig, CoreStats, Input, Output};
use peers::Retry;
use receiving::Windows;
use witness::Witnesses;

/// Up to so many interested members are told of a change directly; more are reached by relay.
const DIRECT: usize = 32;
/// Members that a change is relayed to at once, and those that it is relayed to in each round after that.
const FANOUT: usize = 4;
const LATER_FANOUT: usize = 2;
/// Own entries pushed to a member that becomes interested; more are left to the comparison of tables.
const PUSHED: usize = 64;
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often a leaving member says so, and the pause between.
const FAREWELLS: u8 = 3;
const FAREWELL_PAUSE: Duration = Duration::from_millis(60);

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
    /// The other members.
    members: SharedMap<NodeId, MemberStatus>,
    /// Members that are live, and how many were when this node last introduced itself.
    live: usize,
    introduced: usize,
    introduce_at: Duration,
    /// Owners and senders that are no members (yet), and since when.
    unknown: BTreeMap<NodeId, Duration>,
    /// Who the managers know, and where.
    peers: NodeMap<SmallAddr>,
    /// Those of them that are not there.
    absent: BTreeMap<NodeId, Retry>,
    /// None of them is to be tried before.
    retry_at: Duration,
    data_paths: BTreeMap<NodeId, SocketAddr>,
    asking: BTreeMap<NodeId, Asking>,
    witnesses: Witnesses,
    /// Nodes that the managers have removed.
    removed: BTreeSet<NodeId>,
    declared: Interest,
    outbox: Outbox,
    relay_at: Duration,
    /// Comparisons to begin: when, and whether surely.
    syncs: BTreeMap<NodeId, (Duration, bool)>,
    /// None is begun before.
    syncs_from: Duration,
    pub(crate) agreement: Agreement,
    sync_at: Duration,
    housekeeping_at: Duration,
    housekeepings: u32,
    windows: NodeMap<Windows>,
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
            members: SharedMap::default(),
            live: 0,
            introduced: 0,
            introduce_at: Duration::MAX,
            unknown: BTreeMap::new(),
            peers: NodeMap::default(),
            absent: BTreeMap::new(),
            retry_at: Duration::MAX,
            data_paths: BTreeMap::new(),
            asking: BTreeMap::new(),
            witnesses: Witnesses::default(),
            removed: BTreeSet::new(),
            declared: Interest::default(),
            outbox: Outbox::default(),
            relay_at: Duration::ZERO,
            syncs: BTreeMap::new(),
            syncs_from: Duration::ZERO,
            agreement: Agreement::default(),
            sync_at: timing.sync_interval.mul_f64(rng.random_range(0.5..1.0)),
            housekeeping_at: HOUSEKEEPING,
            housekeepings: 0,
            windows: NodeMap::default(),
            told_outdated: BTreeMap::new(),
            sequences: (0, 0),
            farewells: None,
            out: Vec::new(),
            rng,
        };
        let version = core.next_version();
        let item = Item::Interest { owner: node, version, interest: Interest::default() };
        core.records.set_standing(node, false, true);
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
        self.members.get(&node).is_some_and(MemberStatus::is_live)
    }

    /// Whether the entries of `node` are part of the tables.
    pub(crate) fn counts(&self, node: NodeId) -> bool {
        node == self.node || self.members.get(&node).is_some_and(MemberStatus::counts)
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
}

/// Whether someone with `interest` wants `table`.
pub(crate) fn wanted(interest: &Interest, table: Table) -> bool {
    match table {
        Table::Interests => true,
        Table::Endpoints(scope) => interest.includes(scope),
    }
}

/// Rounds of relaying that reach `audience` members almost surely: each member that hears of a change tells about ln n
/// others (Demers et al. 1987; here ln n + 4), [`FANOUT`] of them at once and [`LATER_FANOUT`] in each further round.
fn rounds(audience: usize) -> u8 {
    // One change in fifty or fewer misses anybody.
    let told = (audience.max(1) as f64).ln().ceil() as usize + 4;
    (1 + told.saturating_sub(FANOUT).div_ceil(LATER_FANOUT)).min(10) as u8
}
