//! Cores and what is under way between them. Everything random comes from one seed, so that a run can be had again.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use mesh_gossip::{
    Acquaintance, Announcement, Core, CoreConfig, CoreStats, Input, Interest, KeyRing, MAX_DATAGRAM,
    MemberState, Output, Sealer, Tables, Timing,
};
use mesh_types::{ClusterId, NetworkId};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    names::{Number, addr, data_path, node, owner},
    wire::{DATAGRAM_HEADERS, Wire},
};

/// What a daemon takes for its farewell.
const FAREWELL: Duration = Duration::from_millis(250);

/// What was sent, seals and headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// TCP messages.
    pub streams: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// The largest datagram, without headers.
    pub largest: usize,
}

/// A machine: its daemon runs or not, its data path works or not.
pub struct Machine {
    daemon: Option<Daemon>,
    /// Grows with each start of the daemon.
    incarnation: u64,
    /// Whether the data path answers.
    pub data_path: bool,
    /// What its daemon was told to announce.
    pub announced: Vec<Announcement>,
    /// What its daemon was told to want.
    pub interest: Interest,
    /// Sent since the beginning.
    pub sent: Traffic,
    /// When its daemon last started, went on after a standstill or came to want other tables.
    pub since: Duration,
    leaves: bool,
}

struct Daemon {
    core: Box<Core>,
    born: Duration,
    tables: Tables,
    /// The tick that is under way.
    tick: Option<Duration>,
    /// Stands still until then, with what arrived meanwhile.
    asleep: Option<(Duration, Vec<Arriving>)>,
}

#[derive(Debug)]
enum Arriving {
    Datagram(Vec<u8>),
    Stream(Vec<u8>),
    Answer { from: Number, nonce: u64 },
}

#[derive(Debug)]
enum What {
    Arrives(Arriving),
    /// A tick of the daemon with this incarnation.
    Tick(u64),
    Wakes(u64),
    /// The daemon with this incarnation ends, and its machine.
    Ends(u64),
}

struct Event {
    at: Duration,
    order: u64,
    to: Number,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What a step was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Whose tables changed, if any did.
    pub changed: Option<Number>,
}

/// A cluster in virtual time.
pub struct World {
    /// Virtual time since the beginning.
    pub now: Duration,
    /// Of whatever is left to chance.
    pub rng: StdRng,
    /// The network.
    pub wire: Wire,
    machines: Vec<Machine>,
    queue: BinaryHeap<Reverse<Event>>,
    order: u64,
    seal: u64,
    timing: Timing,
    /// Whether tables are taken at each change; without, a step never says that any changed.
    pub watched: bool,
    /// Whether daemons are told of the data paths of the others.
    pub asks_data_paths: bool,
}

impl World {
    /// No machines yet.
    pub fn new(seed: u64, wire: Wire) -> Self {
        let ring = KeyRing::new(vec![[7; 32]]);
        let sealed =
            ring.ok().and_then(|ring| Sealer::new(ClusterId::from_u128(1), &ring).seal(&[], b"udp").ok());
        Self {
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            wire,
            machines: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            seal: sealed.map_or(0, |sealed| sealed.len() as u64),
            timing: Timing::default(),
            watched: true,
            asks_data_paths: true,
        }
    }

    /// Adds machines, whose daemons do not run.
    pub fn add(&mut self, count: u32, interest: &Interest) {
        let one = || Machine {
            daemon: None,
            incarnation: 1000,
            data_path: true,
            announced: Vec::new(),
            interest: interest.clone(),
            sent: Traffic::default(),
            since: Duration::ZERO,
            leaves: false,
        };
        self.machines.extend((0..count).map(|_| one()));
    }

    /// Starts the daemon of a machine, with what it announced and wanted before.
    pub fn start(&mut self, n: Number) {
        let Some(own) = self.begin(n) else { return };
        self.list(n);
        self.tell(n, Input::Announce(own));
    }

    /// Starts the daemons of all machines as if they had been together for long. What each knows of the others is handed to it
    /// in one piece, instead of forming the cluster packet by packet.
    pub fn start_acquainted(&mut self) {
        let all = 0..self.len();
        let own: Vec<_> = all.clone().filter_map(|n| Some((n, self.begin(n)?))).collect();
        let daemons = self.machines.iter().filter_map(|machine| machine.daemon.as_ref());
        let known: Vec<Acquaintance> = daemons.map(|daemon| daemon.core.acquaintance()).collect();
        let now = self.now;
        for daemon in self.machines.iter_mut().filter_map(|machine| machine.daemon.as_mut()) {
            daemon.core.acquaint(&known, now - daemon.born);
        }
        for (n, own) in own {
            self.list(n);
            self.tell(n, Input::Announce(own));
        }
    }

    /// Tells a daemon who the members are, as the managers do.
    pub fn list(&mut self, n: Number) {
        let all = 0..self.len();
        self.tell(n, Input::Peers(all.clone().map(|n| (node(n), addr(n))).collect()));
        if self.asks_data_paths {
            self.tell(n, Input::DataPaths(all.map(|n| (node(n), data_path(n))).collect()));
        }
    }

    /// Starts the daemon of a machine, which knows nobody yet. What it is to announce.
    fn begin(&mut self, n: Number) -> Option<Vec<Announcement>> {
        let seed = self.rng.random();
        let machine = self.machines.get_mut(n as usize)?;
        machine.incarnation += 1000;
        machine.data_path = true;
        (machine.since, machine.leaves) = (self.now, false);
        let core = Core::new(CoreConfig {
            node: node(n),
            advertise: addr(n),
            incarnation: machine.incarnation,
            timing: self.timing,
            seed,
        });
        let (interest, own) = (machine.interest.clone(), machine.announced.clone());
        machine.daemon = Some(Daemon {
            core: Box::new(core),
            born: self.now,
            tables: Tables::default(),
            tick: None,
            asleep: None,
        });
        self.tell(n, Input::Interest(interest));
        Some(own)
    }

    /// Ends a daemon without a word; the data path goes on.
    pub fn kill(&mut self, n: Number) {
        if let Some(machine) = self.machines.get_mut(n as usize) {
            machine.daemon = None;
        }
    }

    /// Ends a machine without a word.
    pub fn destroy(&mut self, n: Number) {
        self.kill(n);
        if let Some(machine) = self.machines.get_mut(n as usize) {
            machine.data_path = false;
        }
    }

    /// A machine leaves the cluster, and is gone when it has said so.
    pub fn leave(&mut self, n: Number) {
        self.announce(n, Vec::new());
        self.tell(n, Input::Leave);
        if let Some(machine) = self.machines.get_mut(n as usize) {
            machine.leaves = true;
            let incarnation = machine.incarnation;
            self.at(self.now + FAREWELL, n, What::Ends(incarnation));
        }
    }

    /// The daemon stands still for `time`: what arrives waits, its timers too.
    pub fn suspend(&mut self, n: Number, time: Duration) {
        let until = self.now + time;
        let Some(machine) = self.machines.get_mut(n as usize) else { return };
        let Some(daemon) = machine.daemon.as_mut().filter(|daemon| daemon.asleep.is_none()) else { return };
        daemon.asleep = Some((until, Vec::new()));
        let incarnation = machine.incarnation;
        self.at(until, n, What::Wakes(incarnation));
    }

    /// Says what a machine announces from now on.
    pub fn announce(&mut self, n: Number, own: Vec<Announcement>) {
        let new = own.iter().any(|own| !self.wants(n, own.scope));
        if let Some(machine) = self.machines.get_mut(n as usize) {
            machine.announced = own.clone();
            if new {
                machine.since = self.now;
            }
        }
        self.tell(n, Input::Announce(own));
    }

    /// Says what a machine wants from now on.
    pub fn want(&mut self, n: Number, interest: Interest) {
        if let Some(machine) = self.machines.get_mut(n as usize) {
            (machine.interest, machine.since) = (interest.clone(), self.now);
        }
        self.tell(n, Input::Interest(interest));
    }

    /// Hands an event to a daemon, if it runs. What it says while it stands still is lost to it, as is a command to a
    /// process that is stopped until its client gives up.
    pub fn tell(&mut self, n: Number, input: Input) -> bool {
        let Some(machine) = self.machines.get_mut(n as usize) else { return false };
        let Some(daemon) = machine.daemon.as_mut() else { return false };
        let mut out = Vec::new();
        let born = daemon.born;
        daemon.core.handle(input, self.now - born, &mut out);
        let mut changed = false;
        if self.watched
            && let Some(tables) = daemon.core.take_tables()
        {
            daemon.tables = tables;
            changed = true;
        }
        let due = born.saturating_add(daemon.core.deadline()).max(self.now);
        if daemon.tick.is_none_or(|tick| due < tick) {
            daemon.tick = Some(due);
            let incarnation = machine.incarnation;
            self.at(due, n, What::Tick(incarnation));
        }
        for output in out {
            self.send(n, output);
        }
        changed
    }

    fn at(&mut self, at: Duration, to: Number, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Event { at, order: self.order, to, what }));
    }

    fn send(&mut self, from: Number, output: Output) {
        let to = match &output {
            Output::Datagram { to, .. } | Output::Stream { to, .. } | Output::Question { to, .. } => {
                owner(*to)
            }
        };
        let Some(to) = to else { return };
        let Some(machine) = self.machines.get_mut(from as usize) else { return };
        let sent = &mut machine.sent;
        match output {
            Output::Datagram { bytes, .. } => {
                let len = bytes.len() as u64 + self.seal;
                sent.datagrams += 1;
                sent.bytes += len + DATAGRAM_HEADERS;
                sent.largest = sent.largest.max(len as usize);
                debug_assert!(len as usize <= MAX_DATAGRAM, "{len} bytes");
                let [first, second] = self.wire.datagram(from, to, &mut self.rng);
                if let Some(second) = second {
                    self.at(self.now + second, to, What::Arrives(Arriving::Datagram(bytes.clone())));
                }
                if let Some(first) = first {
                    self.at(self.now + first, to, What::Arrives(Arriving::Datagram(bytes)));
                }
            }
            Output::Stream { bytes, .. } => {
                sent.streams += 1;
                sent.bytes += Wire::stream_bytes(bytes.len() as u64 + self.seal);
                if let Some(after) = self.wire.stream(from, to, &mut self.rng) {
                    self.at(self.now + after, to, What::Arrives(Arriving::Stream(bytes)));
                }
            }
            Output::Question { nonce, .. } => {
                sent.datagrams += 1;
                sent.bytes += 16 + DATAGRAM_HEADERS;
                let works = self.machines.get(to as usize).is_some_and(|machine| machine.data_path);
                let there = self.wire.datagram(from, to, &mut self.rng)[0];
                let back = self.wire.datagram(to, from, &mut self.rng)[0];
                if let (true, Some(there), Some(back)) = (works, there, back) {
                    let answer = Arriving::Answer { from: to, nonce };
                    self.at(self.now + there + back, from, What::Arrives(answer));
                }
            }
        }
    }

    /// The next event, unless it is after `end`: then the time is `end`.
    pub fn step(&mut self, end: Duration) -> Option<Step> {
        if self.queue.peek().is_none_or(|Reverse(event)| event.at > end) {
            self.now = end;
            return None;
        }
        let Reverse(Event { at, to, what, .. }) = self.queue.pop()?;
        self.now = self.now.max(at);
        let changed = match what {
            What::Arrives(arriving) => self.arrives(to, arriving),
            What::Tick(incarnation) => self.tick(to, incarnation),
            What::Wakes(incarnation) => self.wake(to, incarnation),
            What::Ends(incarnation) => {
                if self.machine(to).is_some_and(|machine| machine.incarnation == incarnation) {
                    self.destroy(to);
                }
                false
            }
        };
        Some(Step { changed: changed.then_some(to) })
    }

    fn arrives(&mut self, to: Number, arriving: Arriving) -> bool {
        let Some(daemon) = self.machines.get_mut(to as usize).and_then(|m| m.daemon.as_mut()) else {
            return false;
        };
        if let Some((_, waiting)) = &mut daemon.asleep {
            // As much as a socket's buffer holds.
            if waiting.len() < 256 {
                waiting.push(arriving);
            }
            return false;
        }
        self.tell(
            to,
            match arriving {
                Arriving::Datagram(bytes) => Input::Datagram(bytes),
                Arriving::Stream(bytes) => Input::Stream(bytes),
                Arriving::Answer { from, nonce } => Input::Answer { from: data_path(from), nonce },
            },
        )
    }

    fn tick(&mut self, to: Number, incarnation: u64) -> bool {
        let Some(machine) = self.machines.get_mut(to as usize) else { return false };
        let Some(daemon) = machine.daemon.as_mut().filter(|_| machine.incarnation == incarnation) else {
            return false;
        };
        if daemon.tick != Some(self.now) {
            // An earlier one came before it.
            return false;
        }
        daemon.tick = None;
        if daemon.asleep.is_some() {
            return false;
        }
        let due = daemon.born.saturating_add(daemon.core.deadline());
        if due > self.now {
            daemon.tick = Some(due);
            self.at(due, to, What::Tick(incarnation));
            return false;
        }
        self.tell(to, Input::Tick)
    }

    fn wake(&mut self, to: Number, incarnation: u64) -> bool {
        let Some(machine) = self.machines.get_mut(to as usize) else { return false };
        if machine.incarnation != incarnation {
            return false;
        }
        machine.since = self.now;
        let waiting = machine.daemon.as_mut().and_then(|daemon| daemon.asleep.take());
        let mut changed = false;
        for arriving in waiting.into_iter().flat_map(|(_, waiting)| waiting) {
            changed |= self.arrives(to, arriving);
        }
        changed | self.tell(to, Input::Tick)
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end).is_some() {}
    }

    /// How many machines there are.
    pub fn len(&self) -> u32 {
        self.machines.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// A machine.
    pub fn machine(&self, n: Number) -> Option<&Machine> {
        self.machines.get(n as usize)
    }

    /// The machines whose daemon runs.
    pub fn running(&self) -> BTreeSet<Number> {
        (0..self.len()).filter(|n| self.runs(*n)).collect()
    }

    /// Whether the daemon of a machine runs and does not leave, be it that it stands still.
    pub fn runs(&self, n: Number) -> bool {
        self.machine(n).is_some_and(|machine| machine.daemon.is_some() && !machine.leaves)
    }

    /// Whether it stands still.
    pub fn sleeps(&self, n: Number) -> bool {
        self.daemon(n).is_some_and(|daemon| daemon.asleep.is_some())
    }

    fn daemon(&self, n: Number) -> Option<&Daemon> {
        self.machine(n)?.daemon.as_ref()
    }

    /// What a daemon knows, as of its last change.
    pub fn tables(&self, n: Number) -> Option<&Tables> {
        Some(&self.daemon(n)?.tables)
    }

    /// Takes what the daemons know now, where that was not taken at each change.
    pub fn look(&mut self) {
        (0..self.len()).for_each(|n| self.look_at(n));
    }

    /// The same of one daemon.
    pub fn look_at(&mut self, n: Number) {
        let daemon = self.machines.get_mut(n as usize).and_then(|machine| machine.daemon.as_mut());
        if let Some(daemon) = daemon
            && let Some(tables) = daemon.core.take_tables()
        {
            daemon.tables = tables;
        }
    }

    /// What a daemon counted.
    pub fn stats(&self, n: Number) -> Option<CoreStats> {
        Some(self.daemon(n)?.core.stats())
    }

    /// What `n` takes `of` for.
    pub fn state(&self, n: Number, of: Number) -> Option<MemberState> {
        self.tables(n)?.members.get(&node(of)).map(|status| status.state)
    }

    /// Whether `n` sees an endpoint.
    pub fn sees(&self, n: Number, endpoint: &Announcement) -> bool {
        let table = self.tables(n).and_then(|tables| tables.endpoints.get(&endpoint.scope));
        let seen = table.and_then(|table| table.get(&(&endpoint.endpoint).into()));
        seen.is_some_and(|seen| **seen == endpoint.endpoint)
    }

    /// Whether a machine has the table of a network: it asked for it, or announces in it.
    pub fn wants(&self, n: Number, scope: NetworkId) -> bool {
        self.machine(n).is_some_and(|machine| {
            machine.interest.includes(scope) || machine.announced.iter().any(|own| own.scope == scope)
        })
    }

    /// What all machines sent together.
    pub fn traffic(&self) -> Traffic {
        self.machines.iter().fold(Traffic::default(), |sum, machine| Traffic {
            datagrams: sum.datagrams + machine.sent.datagrams,
            streams: sum.streams + machine.sent.streams,
            bytes: sum.bytes + machine.sent.bytes,
            largest: sum.largest.max(machine.sent.largest),
        })
    }
}
