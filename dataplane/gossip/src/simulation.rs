//! Clusters of cores in virtual time, over a network that loses, delays and parts. Seeded, so that each run is the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use mesh_types::{
    Endpoint, EndpointState, Generation, Health, LocalEndpointId, Mac, Name, NetworkId, NodeId, TaskId,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    Announcement, Core, CoreConfig, EndpointTable, Input, Interest, MAX_DATAGRAM, MemberState, Output,
    Packet, Tables, Timing, seal::OVERHEAD,
};

mod convergence;
mod failure;
mod noise;
mod scoping;
mod suspicion;
mod tables;
mod unattended;

pub(crate) fn net(n: u128) -> NetworkId {
    NetworkId::from_u128(n)
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId::from_u128(u128::from(n))
}

pub(crate) fn endpoint(owner: u8, task: u128, network: u128) -> Endpoint {
    let ip = IpAddr::V4(Ipv4Addr::new(10, owner, (task >> 8) as u8, task as u8));
    Endpoint {
        network: net(network),
        node: node(owner),
        task: TaskId::from_u128(task),
        name: Name::new(format!("task{task}")).unwrap(),
        service: None,
        addresses: vec![ip],
        mac: Mac::of_address(ip),
        local_id: LocalEndpointId(task as u32),
        generation: Generation(1),
        aliases: vec![],
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    }
}

/// Tasks of `owner` in the table of network `scope`.
pub(crate) fn own(owner: u8, scope: u128, tasks: impl IntoIterator<Item = u128>) -> Vec<Announcement> {
    let one = |task| Announcement { scope: net(scope), endpoint: endpoint(owner, task, scope) };
    tasks.into_iter().map(one).collect()
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7946))
}

fn data_path(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, n], 4789))
}

struct Running {
    core: Core,
    born: Duration,
    tables: Tables,
}

struct Sim {
    now: Duration,
    rng: StdRng,
    cores: BTreeMap<u8, Running>,
    /// Under way: to whom, what.
    packets: BTreeMap<(Duration, u64), (u8, Arriving)>,
    sent: u64,
    datagrams: u64,
    streams: u64,
    /// Share of datagrams lost.
    loss: f64,
    delay: (Duration, Duration),
    /// Nodes cut off from those not in here.
    island: BTreeSet<u8>,
    /// Nodes whose data path works, whether their core runs or not.
    data_paths: BTreeSet<u8>,
    questions: u64,
    /// What else of what is sent, from whom to whom, is lost.
    lost: Box<Lost>,
}

type Lost = dyn FnMut(u8, u8, &Packet) -> bool;

enum Arriving {
    Datagram(Vec<u8>),
    Stream(Vec<u8>),
    /// From whom, by which number.
    Answer(u8, u64),
}

impl From<Arriving> for Input {
    fn from(arriving: Arriving) -> Self {
        match arriving {
            Arriving::Datagram(bytes) => Self::Datagram(bytes),
            Arriving::Stream(bytes) => Self::Stream(bytes),
            Arriving::Answer(from, nonce) => Self::Answer { from: data_path(from), nonce },
        }
    }
}

impl Sim {
    /// Nodes 1 to `count`, listed to each other, all interested in network 1.
    fn new(seed: u64, count: u8) -> Self {
        let mut sim = Self::empty(seed);
        for n in 1..=count {
            sim.boot(n, 1000, count, Interest::Networks([net(1)].into()));
        }
        sim
    }

    fn empty(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            cores: BTreeMap::new(),
            packets: BTreeMap::new(),
            sent: 0,
            datagrams: 0,
            streams: 0,
            loss: 0.0,
            delay: (Duration::from_micros(200), Duration::from_millis(2)),
            island: BTreeSet::new(),
            data_paths: BTreeSet::new(),
            questions: 0,
            lost: Box::new(|_, _, _| false),
        }
    }

    fn boot(&mut self, n: u8, incarnation: u64, count: u8, interest: Interest) {
        let config = CoreConfig {
            node: node(n),
            advertise: addr(n),
            incarnation,
            timing: Timing::default(),
            seed: self.rng.random(),
        };
        let running = Running { core: Core::new(config), born: self.now, tables: Tables::default() };
        self.cores.insert(n, running);
        self.data_paths.insert(n);
        self.tell(n, Input::Interest(interest));
        self.tell(n, Input::Peers((1..=count).map(|n| (node(n), addr(n))).collect()));
        self.tell(n, Input::DataPaths((1..=count).map(|n| (node(n), data_path(n))).collect()));
    }

    /// The machine is gone, with all that is on it.
    fn dies(&mut self, n: u8) {
        self.cores.remove(&n);
        self.data_paths.remove(&n);
    }

    fn tell(&mut self, n: u8, input: Input) {
        let mut out = Vec::new();
        if let Some(running) = self.cores.get_mut(&n) {
            running.core.handle(input, self.now - running.born, &mut out);
            if let Some(tables) = running.core.take_tables() {
                assert!(running.tables != tables, "the same again is no news");
                running.tables = tables;
            }
            assert_eq!(running.tables, running.core.tables_anew(), "kept up to date");
        }
        for output in out {
            self.send(n, output);
        }
    }

    fn send(&mut self, from: u8, output: Output) {
        let of = |to: SocketAddr| match to.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        };
        let (to, arriving) = match output {
            Output::Datagram { to, bytes } => (of(to), Arriving::Datagram(bytes)),
            Output::Stream { to, bytes } => (of(to), Arriving::Stream(bytes)),
            Output::Question { to, nonce } => {
                assert_eq!(to, data_path(of(to)));
                self.questions += 1;
                // There and back; the program answers at once.
                let lost = self.rng.random_bool(self.loss) || !self.data_paths.contains(&of(to));
                if lost || self.island.contains(&from) != self.island.contains(&of(to)) {
                    return;
                }
                return self.arrives(from, Arriving::Answer(of(to), nonce), of(to));
            }
        };
        self.arrives(to, arriving, from);
    }

    fn arrives(&mut self, to: u8, what: Arriving, from: u8) {
        if let Arriving::Stream(bytes) | Arriving::Datagram(bytes) = &what {
            let packet = Packet::decode(bytes).unwrap();
            if (self.lost)(from, to, &packet) {
                return;
            }
        }
        if let Arriving::Stream(_) = what {
            self.streams += 1;
        } else {
            if let Arriving::Datagram(bytes) = &what {
                assert!(bytes.len() + OVERHEAD <= MAX_DATAGRAM, "{} bytes", bytes.len());
                self.datagrams += 1;
            }
            if self.rng.random_bool(self.loss) {
                return;
            }
        }
        if self.island.contains(&from) != self.island.contains(&to) {
            return;
        }
        let at = self.now + self.rng.random_range(self.delay.0..=self.delay.1);
        self.sent += 1;
        self.packets.insert((at, self.sent), (to, what));
    }

    /// The next event, unless it is after `end`.
    fn step(&mut self, end: Duration) -> bool {
        let packet = self.packets.first_key_value().map(|((at, _), _)| *at);
        let tick = self.cores.iter().map(|(n, r)| (r.born.saturating_add(r.core.deadline()), *n)).min();
        match (packet, tick) {
            (Some(at), tick) if at <= end && tick.is_none_or(|(t, _)| at <= t) => {
                if let Some((_, (to, arriving))) = self.packets.pop_first() {
                    self.now = self.now.max(at);
                    self.tell(to, arriving.into());
                }
                true
            }
            (_, Some((at, n))) if at <= end => {
                self.now = self.now.max(at);
                self.tell(n, Input::Tick);
                true
            }
            _ => {
                self.now = end;
                false
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Runs until `reached`, and tells how long it took; fails after `limit`.
    #[track_caller]
    fn until(&mut self, limit: Duration, reached: impl Fn(&Sim) -> bool) -> Duration {
        let begin = self.now;
        while !reached(self) {
            assert!(self.step(begin + limit), "not reached within {limit:?}: {self:?}");
        }
        self.now - begin
    }

    fn tables(&self, n: u8) -> &Tables {
        &self.cores[&n].tables
    }

    /// The tasks that `n` sees in the table of network `scope`.
    fn sees(&self, n: u8, scope: u128) -> BTreeSet<u128> {
        let table = self.tables(n).endpoints.get(&net(scope));
        table.into_iter().flat_map(EndpointTable::keys).map(|key| key.task.as_u128()).collect()
    }

    fn state(&self, n: u8, of: u8) -> Option<MemberState> {
        self.tables(n).members.get(&node(of)).map(|status| status.state)
    }

    fn all_alive(&self) -> bool {
        let nodes: Vec<u8> = self.cores.keys().copied().collect();
        nodes.iter().all(|n| nodes.iter().all(|of| self.state(*n, *of) == Some(MemberState::Alive)))
    }

    fn all_see(&self, scope: u128, tasks: &BTreeSet<u128>) -> bool {
        self.cores.keys().all(|n| self.sees(*n, scope) == *tasks)
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, running) in &self.cores {
            let states: Vec<_> = running.tables.members.values().map(|m| m.state).collect();
            writeln!(f, "\n{n}: {states:?} {:?} {:?}", self.sees(*n, 1), running.core.stats())?;
        }
        Ok(())
    }
}

const SECOND: Duration = Duration::from_secs(1);
