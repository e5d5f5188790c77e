//! What news costs a member that knows 100,000 endpoints, each in the table of its network and in that of published
//! ports: `cargo run --release -p mesh-gossip --example tables_at_scale [endpoints networks]`. Cores talk to each other
//! directly, in virtual time; only the observer's own work is timed.

use std::{
    collections::VecDeque,
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use mesh_gossip::{Announcement, Core, CoreConfig, Input, Interest, Output, Tables, Timing};
use mesh_types::{
    Endpoint, EndpointState, Generation, Health, LocalEndpointId, Mac, Name, NetworkId, NodeId, TaskId,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const OWNERS: u8 = 10;
const ROUNDS: u32 = 200;

fn main() -> Result<()> {
    let given: Vec<u32> =
        std::env::args().skip(1).map(|a| a.parse()).collect::<std::result::Result<_, _>>()?;
    let [endpoints, networks] = match given[..] {
        [] => [100_000, 1_000],
        [endpoints, networks] => [endpoints, networks],
        _ => return Err("give no numbers, or two: endpoints networks".into()),
    };
    let mut members = Members::new();
    for owner in 1..=OWNERS {
        let own = owned(owner, endpoints, networks, None)?;
        members.tell(owner, Input::Announce(own));
    }
    let wanted = endpoints as usize * 2;
    while members.known() != wanted {
        if members.now > Duration::from_secs(120) {
            return Err(format!("only {} entries of {wanted} were told", members.known()).into());
        }
        members.run(Duration::from_millis(100));
    }
    println!("{endpoints} endpoints in 2 tables each, {networks} networks");
    println!("told in {:?} of virtual time, {:?} of work", members.now, members.observer_worked());

    // What comparisons found, and whatever else was under way, is over.
    members.run(Duration::from_secs(30));
    members.work.clear();
    members.run(Duration::from_secs(60));
    println!("a minute without news: {:?} of work", members.observer_worked());

    let (mut took, mut changes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let owner = (round % u32::from(OWNERS)) as u8 + 1;
        members.tell(owner, Input::Announce(owned(owner, endpoints, networks, Some(round))?));
        let before = members.tables.clone();
        members.work.clear();
        members.deliver();
        took.push(members.observer_worked());
        let begin = Instant::now();
        let changed: usize = before
            .endpoints
            .changes(&members.tables.endpoints)
            .map(|(_, old, new)| old.zip(new).map_or(0, |(old, new)| old.changes(new).count()))
            .sum();
        changes.push(begin.elapsed());
        if changed == 0 {
            return Err("a change did not arrive".into());
        }
    }
    report("one endpoint changed, heard", took);
    report("what is new, found", changes);
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{what:<31}{:>12?} median, {:?} p99", at(50), at(99));
}

fn node(n: u8) -> NodeId {
    NodeId::from_u128(u128::from(n) + 1)
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7946))
}

fn network(n: u32) -> NetworkId {
    NetworkId::from_u128(u128::from(n) + 1)
}

/// The endpoints of an owner; one more drains in each of its rounds up to `round`.
fn owned(owner: u8, endpoints: u32, networks: u32, round: Option<u32>) -> Result<Vec<Announcement>> {
    let mut all = Vec::new();
    for number in (0..endpoints).filter(|n| n % u32::from(OWNERS) == u32::from(owner - 1)) {
        let address = IpAddr::V4(Ipv4Addr::from(0x0a40_0000 + number));
        let owners = u32::from(OWNERS);
        let drains = round.is_some_and(|round| number / owners <= round / owners);
        let endpoint = Endpoint {
            network: network(1 + number / u32::from(OWNERS) % networks),
            node: node(owner),
            task: TaskId::from_u128(
                u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            ),
            name: Name::new(format!("task{number}"))?,
            service: None,
            addresses: vec![address],
            mac: Mac::of_address(address),
            local_id: LocalEndpointId(1 + number),
            generation: Generation(1),
            aliases: vec![],
            state: if drains { EndpointState::Draining } else { EndpointState::Ready },
            weight: 1,
            health: Health::None,
            health_note: None,
        };
        all.push(Announcement { scope: endpoint.network, endpoint: endpoint.clone() });
        all.push(Announcement { scope: network(0), endpoint });
    }
    Ok(all)
}

/// An observer, number 0, and the owners.
struct Members {
    now: Duration,
    cores: Vec<Core>,
    under_way: VecDeque<(u8, Input)>,
    tables: Tables,
    work: Vec<Duration>,
}

impl Members {
    fn new() -> Self {
        let cores = (0..=OWNERS).map(|n| {
            Core::new(CoreConfig {
                node: node(n),
                advertise: addr(n),
                incarnation: 1,
                timing: Timing::default(),
                seed: n.into(),
            })
        });
        let mut members = Self {
            now: Duration::ZERO,
            cores: cores.collect(),
            under_way: VecDeque::new(),
            tables: Tables::default(),
            work: Vec::new(),
        };
        members.tell(0, Input::Interest(Interest::All));
        for n in 0..=OWNERS {
            members.tell(n, Input::Peers((0..=OWNERS).map(|n| (node(n), addr(n))).collect()));
        }
        members.run(Duration::from_secs(2));
        members
    }

    /// Entries that the observer knows, of all tables.
    fn known(&self) -> usize {
        self.tables.endpoints.values().map(|table| table.len()).sum()
    }

    fn observer_worked(&self) -> Duration {
        self.work.iter().sum()
    }

    fn tell(&mut self, n: u8, input: Input) {
        let mut out = Vec::new();
        let Some(core) = self.cores.get_mut(usize::from(n)) else { return };
        let begin = Instant::now();
        core.handle(input, self.now, &mut out);
        if n == 0 {
            if let Some(tables) = core.take_tables() {
                self.tables = tables;
            }
            self.work.push(begin.elapsed());
        } else {
            core.take_tables();
        }
        for output in out {
            let (to, input) = match output {
                Output::Datagram { to, bytes } => (to, Input::Datagram(bytes)),
                Output::Stream { to, bytes } => (to, Input::Stream(bytes)),
                Output::Question { .. } => continue,
            };
            if let IpAddr::V4(ip) = to.ip() {
                self.under_way.push_back((ip.octets()[3], input));
            }
        }
    }

    /// Delivers what is under way, and what follows from it.
    fn deliver(&mut self) {
        while let Some((to, input)) = self.under_way.pop_front() {
            self.tell(to, input);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.deliver();
            let next = self.cores.iter().map(Core::deadline).enumerate().min_by_key(|(_, at)| *at);
            match next {
                Some((n, at)) if at <= end => {
                    self.now = self.now.max(at);
                    self.tell(n as u8, Input::Tick);
                }
                _ => break,
            }
        }
        self.now = end;
    }
}
