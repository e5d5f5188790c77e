//! The text of one node. Pure: what it follows from is given.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_agent::{
    DnsHistogram, Frontend, LATENCY_BOUNDS, MemberState, Place, ProgramStats, PublishedOn, ServiceCounts,
    SessionState, Snapshot, Traffic, since,
};
use mesh_types::ServiceId;

use crate::{
    bounded::{Bounded, Division, Growing},
    catalogue as c,
    process::Process,
    text::{Family, Format, Labels, Writer},
};

/// Stands for all that have no series of their own; no name has these characters.
const OTHER: &str = "(other)";

/// Most series of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Endpoints of this node with series of their own.
    pub endpoints: usize,
    /// Services, and virtual addresses and published ports, with series of their own.
    pub services: usize,
}

/// What a node tells of itself.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The daemon's version.
    pub version: &'a str,
    /// Its process, if /proc told.
    pub process: Option<Process>,
    /// Connections to the listener that were one too many.
    pub turned_away: u64,
    /// Whether the node is ready.
    pub ready: bool,
    /// The node; none while it is in no cluster.
    pub member: Option<Member<'a>>,
}

/// A node in a cluster.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// How it stands.
    pub snapshot: &'a Snapshot,
    /// `worker` or `manager`.
    pub role: &'a str,
    /// Its manager, if it has one.
    pub manager: Option<Manager>,
}

/// A manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manager {
    /// Whether it leads.
    pub leads: bool,
    /// Whether it knows who leads.
    pub has_leader: bool,
    /// Whether it votes.
    pub votes: bool,
    /// Whether it has stopped by itself.
    pub failed: bool,
    /// See [`c::RAFT_TERM`].
    pub term: u64,
    /// See [`c::RAFT_LAST`].
    pub last: u64,
    /// See [`c::RAFT_COMMITTED`].
    pub committed: u64,
    /// See [`c::RAFT_APPLIED`].
    pub applied: u64,
    /// See [`c::RAFT_SNAPSHOT`].
    pub snapshot: u64,
    /// Of all managers, if this one leads: whether it votes, and whether it is reachable.
    pub managers: Vec<(bool, bool)>,
}

impl Growing for Traffic {
    fn since(&self, before: &Self) -> Self {
        since(self, before)
    }

    fn plus(&self, other: &Self) -> Self {
        *self + *other
    }
}

/// Makes texts, and remembers who has series of its own. One for a node and all who scrape it.
#[derive(Debug)]
pub struct Metrics {
    endpoints: Bounded<Place, Traffic>,
    frontends: Bounded<(ServiceId, Frontend), Traffic>,
    services: Bounded<ServiceId, Traffic>,
}

impl Metrics {
    /// With so many series.
    pub fn new(limits: Limits) -> Self {
        Self {
            endpoints: Bounded::new(limits.endpoints),
            frontends: Bounded::new(limits.services),
            services: Bounded::new(limits.services),
        }
    }

    /// The whole text.
    pub fn text(&mut self, format: Format, facts: &Facts<'_>) -> String {
        let mut w = Writer::new(format);
        w.family(&c::BUILD).with(&[facts.version], 1u64);
        if let Some(member) = &facts.member {
            let snapshot = member.snapshot;
            w.family(&c::NODE).with(&[&snapshot.node_name, &snapshot.node.to_string(), member.role], 1u64);
        }
        w.single(&c::READY, facts.ready);
        if let Some(process) = &facts.process {
            write_process(&mut w, process);
        }
        w.single(&c::TURNED_AWAY, facts.turned_away);
        if let Some(member) = &facts.member {
            self.write_member(&mut w, member);
        }
        w.finish()
    }

    fn write_member(&mut self, w: &mut Writer, member: &Member<'_>) {
        let snapshot = member.snapshot;
        let endpoints: Vec<_> = snapshot.endpoints.iter().map(|e| ((e.task, e.network), e.traffic)).collect();
        let endpoints = self.endpoints.divide(&endpoints);
        let frontends: Vec<_> =
            snapshot.frontends.iter().map(|f| ((f.service, f.frontend), f.traffic)).collect();
        let frontends = self.frontends.divide(&frontends);
        let services: Vec<_> = snapshot.services.iter().map(|s| (s.service, Traffic::default())).collect();
        let services = self.services.divide(&services);
        let mut left_out = w.family(&c::LEFT_OUT);
        left_out.with(&["endpoints"], endpoints.left_out as u64);
        left_out.with(&["services"], services.left_out as u64);
        left_out.with(&["frontends"], frontends.left_out as u64);
        write_state(w, snapshot);
        write_data_path(w, snapshot);
        write_networks(w, snapshot);
        write_services(w, snapshot, &services);
        write_frontends(w, snapshot, &frontends);
        write_endpoints(w, snapshot, &endpoints);
        write_dns(w, snapshot);
        write_gossip(w, snapshot);
        if let Some(manager) = &member.manager {
            write_manager(w, manager);
        }
    }
}

fn write_process(w: &mut Writer, process: &Process) {
    w.single(&c::START, seconds_since_epoch(process.start));
    w.single(&c::CPU, process.cpu.as_secs_f64());
    w.single(&c::RESIDENT, process.resident);
    w.single(&c::OPEN_FDS, process.open);
    w.single(&c::MAX_FDS, process.most);
}

fn write_state(w: &mut Writer, s: &Snapshot) {
    w.single(&c::SESSION, matches!(s.session, SessionState::Connected(_)));
    w.single(&c::STATE_KNOWN, s.known);
    w.single(&c::STATE_APPLIED, s.applied);
    w.single(&c::FAULT, s.fault.is_some());
    w.single(&c::LEASE, s.lease_left.as_secs_f64());
    w.single(&c::UNCONFIRMED, s.unconfirmed as u64);
    w.single(&c::CERTIFICATE, seconds_since_epoch(s.certificate_expires).trunc());
    w.single(&c::CA, seconds_since_epoch(s.ca_expires).trunc());
    w.single(&c::TASKS, s.tasks as u64);
    let mut members = w.family(&c::MEMBERS);
    for (state, name) in MEMBER_STATES {
        let count = s.members.values().filter(|member| **member == state).count();
        members.with(&[name], count as u64);
    }
}

const MEMBER_STATES: [(MemberState, &str); 5] = [
    (MemberState::Alive, "alive"),
    (MemberState::Suspect, "suspect"),
    (MemberState::Unattended, "unattended"),
    (MemberState::Down, "down"),
    (MemberState::Left, "left"),
];

fn write_data_path(w: &mut Writer, s: &Snapshot) {
    let counts = &s.data_path;
    let mut drops = w.family(&c::DROPPED);
    counts.drops.iter().for_each(|(reason, &packets)| drops.with(&[reason.as_str()], packets));
    let mut paths = w.family(&c::PATH);
    counts.counters.iter().for_each(|(path, &packets)| paths.with(&[path.as_str()], packets));
    let flows = [("from_clients", "CHOICES_KEPT"), ("to_tasks", "REVERSE_KEPT")];
    let flows = flows.map(|(table, map)| (table, counts.maps.get(map).copied()));
    let mut used = w.family(&c::FLOWS);
    flows.iter().for_each(|(table, map)| map.iter().for_each(|m| used.with(&[table], u64::from(m.used))));
    let mut room = w.family(&c::FLOWS_MAX);
    flows.iter().for_each(|(table, map)| map.iter().for_each(|m| room.with(&[table], u64::from(m.capacity))));
    let mut entries = w.family(&c::MAP_ENTRIES);
    counts.maps.iter().for_each(|(name, map)| entries.with(&[name], u64::from(map.used)));
    let mut capacity = w.family(&c::MAP_CAPACITY);
    counts.maps.iter().for_each(|(name, map)| capacity.with(&[name], u64::from(map.capacity)));
    let ran = |p: &&ProgramStats| p.runs > 0;
    let mut runs = w.family(&c::PROGRAM_RUNS);
    s.programs.iter().filter(ran).for_each(|p| runs.with(&[p.program], p.runs));
    let mut time = w.family(&c::PROGRAM_TIME);
    s.programs.iter().filter(ran).for_each(|p| time.with(&[p.program], p.time.as_secs_f64()));
    w.single(&c::NODE_RX_PACKETS, s.traffic.packets_in);
    w.single(&c::NODE_RX_BYTES, s.traffic.bytes_in);
    w.single(&c::NODE_TX_PACKETS, s.traffic.packets_out);
    w.single(&c::NODE_TX_BYTES, s.traffic.bytes_out);
    w.single(&c::NODE_NEW_FLOWS, s.traffic.new_flows);
}

/// A family whose value is one field of what was counted.
type Field = (&'static Family, fn(&Traffic) -> u64);

/// One family after the other, each for all.
fn write_fields<'a>(
    w: &mut Writer,
    fields: &[Field],
    all: impl Iterator<Item = (&'a Labels, &'a Traffic)> + Clone,
) {
    for (family, field) in fields {
        let mut samples = w.family(family);
        all.clone().for_each(|(labels, traffic)| samples.add(labels, field(traffic)));
    }
}

fn write_networks(w: &mut Writer, s: &Snapshot) {
    const FIELDS: [Field; 5] = [
        (&c::NETWORK_RX_PACKETS, |t| t.packets_in),
        (&c::NETWORK_RX_BYTES, |t| t.bytes_in),
        (&c::NETWORK_TX_PACKETS, |t| t.packets_out),
        (&c::NETWORK_TX_BYTES, |t| t.bytes_out),
        (&c::NETWORK_NEW_FLOWS, |t| t.new_flows),
    ];
    let mut endpoints = w.family(&c::NETWORK_ENDPOINTS);
    s.networks.iter().for_each(|n| endpoints.with(&[&n.name], n.endpoints as u64));
    let mut flows = w.family(&c::NETWORK_FLOWS);
    s.networks.iter().for_each(|n| flows.with(&[&n.name], n.flows));
    let labels: Vec<_> =
        s.networks.iter().map(|n| Labels::new(c::NETWORK_RX_BYTES.labels, &[&n.name])).collect();
    write_fields(w, &FIELDS, labels.iter().zip(s.networks.iter().map(|n| &n.traffic)));
    let mut dropped = w.family(&c::NETWORK_DROPPED);
    for network in &s.networks {
        dropped.with(&[&network.name, "receive"], network.traffic.drops_in);
        dropped.with(&[&network.name, "transmit"], network.traffic.drops_out);
    }
}

/// The same for what a service has.
type ServiceField = (&'static Family, fn(&ServiceCounts) -> u64);

fn write_services(w: &mut Writer, s: &Snapshot, division: &Division<Traffic>) {
    let own =
        || s.services.iter().zip(&division.shown).filter(|(_, shown)| **shown).map(|(service, _)| service);
    let rest =
        || s.services.iter().zip(&division.shown).filter(|(_, shown)| !**shown).map(|(service, _)| service);
    let fields: [ServiceField; 3] = [
        (&c::SERVICE_TASKS, |s| s.tasks as u64),
        (&c::SERVICE_READY, |s| s.ready as u64),
        (&c::SERVICE_FLOWS, |s| s.flows),
    ];
    for (family, field) in fields {
        let mut samples = w.family(family);
        own().for_each(|service| samples.with(&[&service.name], field(service)));
        if division.left_out > 0 {
            samples.with(&[OTHER], rest().map(field).sum::<u64>());
        }
    }
}

fn write_frontends(w: &mut Writer, s: &Snapshot, division: &Division<Traffic>) {
    const FIELDS: [Field; 6] = [
        (&c::FRONTEND_RX_PACKETS, |t| t.packets_in),
        (&c::FRONTEND_RX_BYTES, |t| t.bytes_in),
        (&c::FRONTEND_TX_PACKETS, |t| t.packets_out),
        (&c::FRONTEND_TX_BYTES, |t| t.bytes_out),
        (&c::FRONTEND_NEW_FLOWS, |t| t.new_flows),
        (&c::FRONTEND_REFUSED, |t| t.drops_in),
    ];
    let names = c::FRONTEND_RX_BYTES.labels;
    let own =
        s.frontends.iter().zip(&division.shown).filter(|(_, shown)| **shown).map(|(frontend, _)| frontend);
    let own = own.map(|f| {
        (Labels::new(names, &[&f.service_name, &frontend_text(&f.frontend), &f.network_name]), f.traffic)
    });
    let others = division.others.map(|traffic| (Labels::new(names, &[OTHER, OTHER, OTHER]), traffic));
    let all: Vec<_> = own.chain(others).collect();
    write_fields(w, &FIELDS, all.iter().map(|(labels, traffic)| (labels, traffic)));
}

/// As people write it: `10.0.3.2`, `80/tcp`, `192.0.2.1:80/tcp`, `[2001:db8::1]:80/tcp`. A port on all addresses of a family
/// says which.
pub fn frontend_text(frontend: &Frontend) -> String {
    match frontend {
        Frontend::Vip { address, .. } => address.to_string(),
        Frontend::Published { on, port, protocol } => match on {
            PublishedOn::AnyV4 => format!("0.0.0.0:{port}/{protocol}"),
            PublishedOn::AnyV6 => format!("[::]:{port}/{protocol}"),
            PublishedOn::Address(address) => {
                format!("{}/{protocol}", std::net::SocketAddr::new(*address, *port))
            }
        },
    }
}

fn write_endpoints(w: &mut Writer, s: &Snapshot, division: &Division<Traffic>) {
    const FIELDS: [Field; 7] = [
        (&c::ENDPOINT_RX_PACKETS, |t| t.packets_in),
        (&c::ENDPOINT_RX_BYTES, |t| t.bytes_in),
        (&c::ENDPOINT_TX_PACKETS, |t| t.packets_out),
        (&c::ENDPOINT_TX_BYTES, |t| t.bytes_out),
        (&c::ENDPOINT_NEW_FLOWS, |t| t.new_flows),
        (&c::ENDPOINT_RX_DROPPED, |t| t.drops_in),
        (&c::ENDPOINT_TX_DROPPED, |t| t.drops_out),
    ];
    let names = c::ENDPOINT_FLOWS.labels;
    let mut rest = 0;
    let mut all = Vec::with_capacity(s.endpoints.len().min(division.shown.len()) + 1);
    for (endpoint, shown) in s.endpoints.iter().zip(&division.shown) {
        if !shown {
            rest += endpoint.flows;
            continue;
        }
        let service = endpoint.service.as_ref().map_or("", |(_, name)| name);
        let labels = Labels::new(names, &[&endpoint.network_name, service, &endpoint.task_name]);
        all.push((labels, endpoint.traffic, endpoint.flows));
    }
    if let Some(others) = division.others {
        all.push((Labels::new(names, &[OTHER, OTHER, OTHER]), others, rest));
    }
    write_fields(w, &FIELDS, all.iter().map(|(labels, traffic, _)| (labels, traffic)));
    let mut flows = w.family(&c::ENDPOINT_FLOWS);
    all.iter().for_each(|(labels, _, count)| flows.add(labels, *count));
}

fn write_dns(w: &mut Writer, s: &Snapshot) {
    let dns = &s.dns;
    let mut queries = w.family(&c::DNS_QUERIES);
    for (outcome, count) in [
        ("answered", dns.answered.saturating_sub(dns.unknown)),
        ("unknown", dns.unknown),
        ("forwarded", dns.relayed),
        ("cached", dns.kept),
        ("failed", dns.failed),
        ("malformed", dns.malformed),
    ] {
        queries.with(&[outcome], count);
    }
    w.single(&c::DNS_TRUNCATED, dns.truncated);
    for (family, latency) in [(&c::DNS_OWN, &dns.own), (&c::DNS_OUTSIDE, &dns.outside)] {
        let bounds = LATENCY_BOUNDS.map(|micros| micros as f64 / 1e6);
        let DnsHistogram { buckets, nanos } = latency;
        w.family(family).histogram(&[], &bounds, buckets, *nanos as f64 / 1e9);
    }
}

fn write_gossip(w: &mut Writer, s: &Snapshot) {
    let Some(gossip) = &s.gossip else { return };
    let (counters, report) = (&gossip.counters, &gossip.report);
    let mut datagrams = w.family(&c::GOSSIP_DATAGRAMS);
    datagrams.with(&["receive"], counters.datagrams_in);
    datagrams.with(&["transmit"], counters.datagrams_out);
    let mut bytes = w.family(&c::GOSSIP_BYTES);
    bytes.with(&["receive", "udp"], counters.bytes_in);
    bytes.with(&["transmit", "udp"], counters.bytes_out);
    bytes.with(&["receive", "tcp"], counters.stream_bytes_in);
    bytes.with(&["transmit", "tcp"], counters.stream_bytes_out);
    let mut refused = w.family(&c::GOSSIP_REFUSED);
    counters.refused().iter().for_each(|(reason, packets)| refused.with(&[reason], *packets));
    w.single(&c::GOSSIP_FAILED, counters.send_failed);
    w.single(&c::GOSSIP_TABLES, report.tables.len() as u64);
    w.single(&c::GOSSIP_BEHIND, report.tables.values().filter(|table| table.behind.is_some()).count() as u64);
    w.single(&c::GOSSIP_LAG, report.lag().unwrap_or(Duration::ZERO).as_secs_f64());
    w.single(&c::GOSSIP_UNACKNOWLEDGED, report.unacknowledged as u64);
    let mut syncs = w.family(&c::GOSSIP_SYNCS);
    syncs.with(&["equal"], counters.core.syncs_equal);
    syncs.with(&["differing"], counters.core.syncs_differing);
    w.single(&c::GOSSIP_SUSPICIONS, counters.core.suspicions);
    w.single(&c::GOSSIP_RENEWALS, counters.core.renewals);
    w.single(&c::GOSSIP_SLOWNESS, u64::from(report.slowness));
}

fn write_manager(w: &mut Writer, manager: &Manager) {
    w.single(&c::RAFT_LEADER, manager.leads);
    w.single(&c::RAFT_HAS_LEADER, manager.has_leader);
    w.single(&c::RAFT_VOTES, manager.votes);
    w.single(&c::RAFT_TERM, manager.term);
    w.single(&c::RAFT_LAST, manager.last);
    w.single(&c::RAFT_COMMITTED, manager.committed);
    w.single(&c::RAFT_APPLIED, manager.applied);
    w.single(&c::RAFT_SNAPSHOT, manager.snapshot);
    if manager.leads {
        let mut managers = w.family(&c::RAFT_MANAGERS);
        let words = |yes: bool| if yes { "true" } else { "false" };
        for (voter, reachable) in [(true, true), (true, false), (false, true), (false, false)] {
            let count = manager.managers.iter().filter(|m| **m == (voter, reachable)).count();
            managers.with(&[words(voter), words(reachable)], count as u64);
        }
    }
    w.single(&c::RAFT_FAILED, manager.failed);
}

fn seconds_since_epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
