//! Managers and nodes in virtual time, with everything that goes wrong between them: no address is ever on two tasks.
//!
//! The managers are the real state machine, whose commands arrive late, twice or never, also long after they were sent. The
//! nodes are the real core. Clocks run at their own rates, daemons are stopped, killed between any two writes, and machines
//! reboot; leaders change and forget how long they have waited. What takes addresses back is [`mesh_store`]'s rule with a
//! timer as the managers have it.

use std::collections::BTreeMap;

use mesh_store::{Command, LeaseChange, NewNetwork, Response, Secrets, Sensitive, State};
use mesh_types::{Availability, ClusterId, Node, NodeId, Role};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const NET: NetworkId = NetworkId::from_u128(7);
const NODES: usize = 4;
/// Of virtual time, in seconds.
const GRACE: u32 = 600;
const STEPS: usize = 3_000;

/// A task, which goes on whatever becomes of its daemon.
#[derive(Debug, Clone, PartialEq)]
struct Task {
    address: IpAddr,
    /// Attached by a name, so that it comes back after a reboot.
    named: bool,
    /// Until when the kernel lets it have the address, by the machine's clock.
    lifetime: Option<Duration>,
}

#[derive(Debug)]
struct Machine {
    id: NodeId,
    core: Leases,
    /// What is on its disk.
    disk: KeptLeases,
    disk_boot: u32,
    tasks: Vec<Task>,
    boot: u32,
    /// When it booted, by true time, and how fast its clock runs.
    booted: f64,
    rate: f64,
    /// Until when its daemon does nothing, by true time.
    stopped: f64,
    killed: bool,
    /// Until when it reaches no manager.
    cut: f64,
    /// A renewal under way: when it began, and whether it was answered.
    asked: Option<Duration>,
    /// A word of a manager, which may be old.
    told: Option<(u64, BTreeMap<NetworkId, Held>)>,
    version: u64,
}

/// On its way to the managers.
#[derive(Debug, Clone)]
enum Letter {
    Renewal(usize, Renewal),
    Lease(usize, u64, Option<IpAddr>),
    TakeBack(NodeId, u64),
}

/// What is wrong on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Nothing is written before it is sent.
    careless: bool,
    /// Clocks of nodes that run at a third of true time: beyond what half the grace makes up for.
    slow: bool,
    /// The kernel lets tasks have their addresses for ever.
    lifeless: bool,
}

struct World {
    faults: Faults,
    rng: StdRng,
    now: f64,
    state: State,
    machines: Vec<Machine>,
    letters: Vec<(f64, Letter)>,
    /// The leader's clock and its timers.
    leader_rate: f64,
    watched: BTreeMap<NodeId, (u64, f64)>,
    attached: usize,
    taken_back: usize,
}

fn name(text: String) -> mesh_types::Name {
    text.parse().unwrap()
}

fn node(number: usize) -> Node {
    let address = IpAddr::from([192, 168, 7, number as u8]);
    Node {
        id: NodeId::from_u128(number as u128 + 1),
        name: name(format!("n{number}")),
        role: if number == 0 { Role::Manager } else { Role::Worker },
        advertise_addr: address,
        data_path_addr: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    }
}

impl Machine {
    fn clock(&self, now: f64) -> Duration {
        Duration::from_secs_f64(((now - self.booted) * self.rate).max(0.0))
    }

    fn runs(&self, now: f64) -> bool {
        !self.killed && now >= self.stopped
    }

    fn save(&mut self) {
        (self.disk, self.disk_boot) = (self.core.kept(), self.boot);
    }

    /// The daemon comes up, with what is on the disk and what the kernel still has.
    fn start(&mut self, now: f64) {
        let clock = self.clock(now);
        let same_boot = self.disk_boot == self.boot;
        self.core = Leases::restore(self.disk.clone(), same_boot);
        let (core, boot) = (&self.core, same_boot);
        self.tasks.retain(|t| match boot {
            true => core.may_go_on(NET, t.address, clock),
            false => core.is_sure(NET, t.address),
        });
        self.tasks.iter().for_each(|t| self.core.adopt(NET, t.address, clock));
        (self.asked, self.told, self.killed, self.version) = (None, None, false, 0);
    }

    /// What its daemon does by itself.
    fn tend(&mut self, now: f64) {
        let clock = self.clock(now);
        for (_, address) in self.core.expired(clock) {
            self.tasks.retain(|t| t.address != address);
            self.core.put_back(NET, address, clock);
        }
        let (core, left) = (&self.core, self.core.left(clock));
        for task in &mut self.tasks {
            task.lifetime = (!core.is_sure(NET, task.address)).then(|| clock + left);
        }
    }
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = State::default();
        let secrets = secrets();
        let init = Command::Init {
            cluster: ClusterId::from_u128(1),
            node: node(0),
            secrets: Box::new(secrets),
            gossip_key: Sensitive([0; 32]),
            pools: vec![],
            ingress: NetworkId::from_u128(1),
            ingress_subnets: vec![],
            ingress_ipv6: false,
            now: 0,
        };
        state.apply(init).unwrap();
        for number in 1..NODES {
            state.apply(Command::AddNode(node(number))).unwrap();
        }
        // So small that addresses go round.
        let prefix = if rng.random_bool(0.5) { 28 } else { 29 };
        let new = NewNetwork {
            id: NET,
            name: name("net".to_owned()),
            subnets: vec![(format!("10.9.0.0/{prefix}").parse().unwrap(), None)],
            ipv6: false,
            ip_ranges: vec![],
            attachable: true,
            internal: false,
            ingress: false,
            mtu: None,
            labels: BTreeMap::new(),
            now: 0,
            aux_addresses: BTreeMap::new(),
        };
        state.apply(Command::CreateNetwork(new)).unwrap();
        state.apply(Command::SetLeaseGrace { secs: GRACE }).unwrap();
        let machines = (0..NODES).map(|number| Machine {
            id: node(number).id,
            core: Leases::default(),
            disk: KeptLeases::default(),
            disk_boot: 0,
            tasks: Vec::new(),
            boot: 0,
            booted: -rng.random_range(0.0..1e6),
            rate: rng.random_range(0.8..1.2) * if faults.slow { 0.35 } else { 1.0 },
            stopped: 0.0,
            killed: false,
            cut: 0.0,
            asked: None,
            told: None,
            version: 0,
        });
        let machines = machines.collect();
        let (letters, watched) = (Vec::new(), BTreeMap::new());
        let leader_rate = rng.random_range(0.8..1.2);
        Self {
            faults,
            rng,
            now: 0.0,
            state,
            machines,
            letters,
            leader_rate,
            watched,
            attached: 0,
            taken_back: 0,
        }
    }

    fn post(&mut self, letter: Letter) {
        // Most arrive at once, some late, a few very late; some twice, some never.
        for _ in 0..[1, 1, 1, 1, 1, 2, 0][self.rng.random_range(0..7)] {
            let delay = match self.rng.random_range(0..20) {
                0 => self.rng.random_range(0.0..3000.0),
                1..4 => self.rng.random_range(0.0..60.0),
                _ => 0.01,
            };
            self.letters.push((self.now + delay, letter.clone()));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.letters).into_iter().partition(|(at, _)| *at <= now);
        self.letters = later;
        let mut due: Vec<(f64, Letter)> = due;
        due.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, letter) in due {
            self.decide(letter);
        }
    }

    /// A command is decided; the answer arrives, if its node still waits for it and can be reached.
    fn decide(&mut self, letter: Letter) {
        match letter {
            Letter::Renewal(at, renewal) => {
                let change = |c: &NetworkChange| LeaseChange {
                    used: c.used.clone(),
                    unused: c.unused.clone(),
                    returned: c.returned.clone(),
                };
                let changes = renewal.changes.iter().map(|(id, c)| (*id, change(c))).collect();
                let (node, after, full) = (self.machines[at].id, renewal.after, renewal.full);
                let Ok(Response::Renewed { renewal: count, done, grace_secs, lost, held, version }) =
                    self.state.apply(Command::RenewLeases { node, after, changes, full })
                else {
                    panic!("refused")
                };
                let heard = self.hears(at) && self.machines[at].core.pending.as_ref() == Some(&renewal);
                let clock = self.machines[at].clock(self.now);
                if let (true, Some(asked)) = (heard, self.machines[at].asked.take()) {
                    let scarce = self.state.is_scarce(NET);
                    let held = held.unwrap_or_default().into_iter();
                    let answer = Answer {
                        renewal: count,
                        done,
                        grace: Duration::from_secs(grace_secs.into()),
                        version,
                        held: held.map(|(id, addresses)| (id, Held { addresses, scarce })).collect(),
                        lost,
                    };
                    let machine = &mut self.machines[at];
                    for (_, address) in machine.core.end(asked, Some(answer), clock) {
                        machine.tasks.retain(|t| t.address != address);
                        machine.core.put_back(NET, address, clock);
                    }
                    machine.save();
                }
            }
            Letter::Lease(at, term, address) => {
                let node = self.machines[at].id;
                let command = match address {
                    Some(address) => Command::LeaseAddress { node, network: NET, address },
                    None => Command::Lease { node, network: NET, count: 4, family: None },
                };
                if let Ok(Response::Leased(addresses)) = self.state.apply(command)
                    && self.hears(at)
                    // One at a time, as the agent speaks with them.
                    && self.machines[at].core.pending.is_none()
                {
                    let clock = self.machines[at].clock(self.now);
                    self.machines[at].core.add(term, NET, &addresses, clock);
                }
            }
            Letter::TakeBack(node, after) => {
                if let Ok(Response::Returned(addresses)) =
                    self.state.apply(Command::TakeBackLeases { node, after })
                {
                    self.taken_back += addresses.len();
                }
            }
        }
    }

    fn hears(&mut self, at: usize) -> bool {
        self.machines[at].runs(self.now) && self.now >= self.machines[at].cut && self.rng.random_bool(0.9)
    }

    fn lead(&mut self) {
        if self.rng.random_bool(0.005) {
            self.watched.clear();
            self.leader_rate = self.rng.random_range(0.8..1.2);
        }
        for node in self.state.nodes_with_spare_leases() {
            let renewal = self.state.renewal_of(node);
            let watched = self.watched.entry(node).or_insert((renewal.count, self.now));
            if watched.0 != renewal.count {
                *watched = (renewal.count, self.now);
            }
            let grace = if renewal.count == 0 { GRACE } else { renewal.grace_secs };
            if (self.now - watched.1) * self.leader_rate >= f64::from(grace) {
                self.post(Letter::TakeBack(node, renewal.count));
            }
        }
    }

    fn act(&mut self, at: usize) {
        let now = self.now;
        let reachable = now >= self.machines[at].cut;
        let clock = self.machines[at].clock(now);
        match self.rng.random_range(0..100) {
            // What a manager says, now or a while ago.
            0..10 if reachable => {
                let scarce = self.state.is_scarce(NET);
                let id = self.machines[at].id;
                let held = self.state.leases_of(id).into_iter();
                let held: BTreeMap<_, _> =
                    held.map(|(n, addresses)| (n, Held { addresses, scarce })).collect();
                let fresh = (self.state.version(), held);
                let keep = self.rng.random_bool(0.3);
                let machine = &mut self.machines[at];
                let (version, held) = machine.told.take().unwrap_or_else(|| fresh.clone());
                if version >= machine.version {
                    machine.version = version;
                    machine.core.replace(version, &held, clock);
                    machine.save();
                }
                machine.told = keep.then_some(fresh);
            }
            10..35 if reachable => {
                // An answer that did not come is given up.
                let machine = &mut self.machines[at];
                machine.asked = None;
                if let Some(renewal) = machine.core.begin(clock) {
                    if self.rng.random_bool(0.03) {
                        return self.kill(at);
                    }
                    if !self.faults.careless {
                        self.machines[at].save();
                    }
                    if self.rng.random_bool(0.03) {
                        return self.kill(at);
                    }
                    self.machines[at].asked = Some(clock);
                    self.post(Letter::Renewal(at, renewal));
                }
            }
            35..55 => self.attach(at, clock),
            55..70 => {
                let machine = &mut self.machines[at];
                if !machine.tasks.is_empty() {
                    let which = self.rng.random_range(0..machine.tasks.len());
                    let task = machine.tasks.swap_remove(which);
                    machine.core.put_back(NET, task.address, clock);
                    if self.rng.random_bool(0.4) {
                        machine.core.give_back(NET, &[task.address]);
                    }
                }
            }
            70..72 => self.kill(at),
            72..74 => self.machines[at].stopped = now + self.some_time(),
            74..77 => self.machines[at].cut = now + self.some_time(),
            77 => {
                // A reboot: only what has a name comes back, with what the disk has.
                let machine = &mut self.machines[at];
                machine.boot += 1;
                machine.booted = now;
                machine.tasks.retain(|t| t.named);
                machine.tasks.iter_mut().for_each(|t| t.lifetime = None);
                machine.start(now);
            }
            _ => {}
        }
    }

    fn attach(&mut self, at: usize, clock: Duration) {
        let fixed = self.rng.random_bool(0.2).then(|| IpAddr::from([10, 9, 0, self.rng.random_range(2..7)]));
        let named = self.rng.random_bool(0.3);
        let machine = &mut self.machines[at];
        let taken = match fixed {
            Some(address) => machine.core.take_address(NET, address, clock).then_some(address),
            None => machine.core.take(NET, Family::V4, clock),
        };
        match taken {
            Some(address) => {
                machine.tasks.push(Task { address, named, lifetime: None });
                self.attached += 1;
            }
            None if self.now >= machine.cut && !machine.core.must_renew_first(clock) => {
                let term = machine.core.term();
                self.post(Letter::Lease(at, term, fixed));
            }
            None => {}
        }
    }

    fn kill(&mut self, at: usize) {
        self.machines[at].killed = true;
        self.machines[at].stopped = self.now + self.some_time();
    }

    fn some_time(&mut self) -> f64 {
        let most = [5.0, 60.0, 500.0, 4000.0][self.rng.random_range(0..4)];
        self.rng.random_range(0.0..most)
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(0.0..10.0);
        self.deliver();
        let now = self.now;
        for machine in &mut self.machines {
            // The kernel takes an address away when its lifetime is over, whatever the daemon does.
            let clock = machine.clock(now);
            let lifeless = self.faults.lifeless;
            machine.tasks.retain(|t| lifeless || t.lifetime.is_none_or(|until| clock < until));
            if machine.killed && now >= machine.stopped {
                machine.start(now);
            }
            if machine.runs(now) {
                machine.tend(now);
            }
        }
        let at = self.rng.random_range(0..NODES);
        if self.machines[at].runs(now) {
            self.act(at);
            // Between any two actions of others it has looked at its leases.
            let machine = &mut self.machines[at];
            if machine.runs(now) || !machine.killed {
                machine.tend(now);
            }
        }
        self.lead();
    }

    /// Two nodes whose tasks have the same address.
    fn clash(&self) -> Option<String> {
        let mut on: BTreeMap<IpAddr, NodeId> = BTreeMap::new();
        let mut tasks = self.machines.iter().flat_map(|m| m.tasks.iter().map(|t| (m.id, t.address)));
        tasks.find_map(|(node, address)| {
            let other = on.insert(address, node)?;
            Some(format!("at {:.0} s {address} is on {other} and {node}", self.now))
        })
    }
}

/// The first clash with this seed, and how often addresses were given to tasks and taken back from nodes.
fn story(seed: u64, faults: Faults) -> (Option<String>, usize, usize) {
    let mut world = World::new(seed, faults);
    let clash = (0..STEPS).find_map(|_| {
        world.step();
        world.clash()
    });
    (clash, world.attached, world.taken_back)
}

fn secrets() -> Secrets {
    Secrets {
        ca_cert_pem: String::new(),
        ca_key_pem: String::new(),
        worker_token: [0; 16],
        manager_token: [0; 16],
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("MESHD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MESHD_SIM_SEEDS").unwrap_or(100),
    }
}

#[test]
fn no_address_is_ever_on_two_tasks() {
    let (mut attached, mut taken_back) = (0, 0);
    for seed in seeds() {
        let (clash, gave, took) = story(seed, Faults::default());
        assert_eq!(clash, None, "MESHD_SIM_SEED={seed} repeats it");
        (attached, taken_back) = (attached + gave, taken_back + took);
    }
    let seeds = seeds().count();
    assert!(attached > 20 * seeds && taken_back >= seeds, "nothing happened: {attached} {taken_back}");
}

/// What is done against double addresses is needed: without any one of it there are some.
#[test]
fn each_precaution_is_needed() {
    let found = |faults| (0..400).find(|seed| story(*seed, faults).0.is_some());
    for faults in [
        Faults { careless: true, ..Faults::default() },
        Faults { slow: true, ..Faults::default() },
        Faults { lifeless: true, ..Faults::default() },
    ] {
        assert!(found(faults).is_some(), "{faults:?} does no harm in 400 stories");
    }
}
