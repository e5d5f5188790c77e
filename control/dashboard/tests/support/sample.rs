//! A made-up cluster of any size, whose rates move and which takes changes.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use mesh_dashboard::{
    Change, Cluster, Drops, End, Event, Model, Network, Node, Port, Problem, Rates, Refusal, Service,
    Severity, Source, Talk, Task,
};

/// See the module.
pub struct Sample {
    /// As it is; tests change it.
    pub model: Mutex<Model>,
    /// How often it was asked for.
    pub asked: AtomicU64,
    /// What was done.
    pub changes: Mutex<Vec<Change>>,
}

const NAMES: [&str; 8] = ["web", "api", "db", "cache", "search", "mail", "queue", "auth"];

impl Sample {
    /// With so many nodes, services and tasks of each service.
    pub fn new(nodes: usize, services: usize, tasks_each: usize) -> Self {
        Self {
            model: Mutex::new(model(nodes, services, tasks_each)),
            asked: AtomicU64::new(0),
            changes: Mutex::default(),
        }
    }
}

#[async_trait]
impl Source for Sample {
    async fn model(&self) -> Model {
        let round = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut model = self.model.lock().unwrap();
        move_on(&mut model, round);
        model.clone()
    }

    async fn change(&self, change: Change) -> Result<String, Refusal> {
        let mut model = self.model.lock().unwrap();
        self.changes.lock().unwrap().push(change.clone());
        match change {
            Change::Publish { service, port } => {
                let service = find(&mut model.services, |it| it.id == service)?;
                let (published, target) =
                    port.split_once(':').ok_or_else(|| Refusal(format!("{port:?} is no port")))?;
                if service.ports.iter().any(|known| known.text.starts_with(published)) {
                    return Err(Refusal(format!("port {published} is published already")));
                }
                service.ports.push(Port {
                    text: format!("{published}:{target}/tcp"),
                    filter: format!("{published}/tcp"),
                });
                Ok(format!("Published {port}."))
            }
            Change::Unpublish { service, port } => {
                let service = find(&mut model.services, |it| it.id == service)?;
                service.ports.retain(|known| known.filter != port);
                Ok(format!("Closed {port}."))
            }
            Change::Weight { task, weight } => {
                find(&mut model.tasks, |it| it.id == task)?.weight = weight;
                Ok(format!("Weight {weight}."))
            }
            Change::Drain { task } => {
                find(&mut model.tasks, |it| it.id == task)?.state = "draining".to_owned();
                Ok("Draining.".to_owned())
            }
            Change::Availability { node, availability } => {
                find(&mut model.nodes, |it| it.id == node)?.availability = availability;
                Ok("Done.".to_owned())
            }
        }
    }
}

fn find<T>(all: &mut [T], is: impl Fn(&T) -> bool) -> Result<&mut T, Refusal> {
    all.iter_mut().find(|it| is(it)).ok_or_else(|| Refusal("there is no such thing".to_owned()))
}

fn wave(seed: usize, round: u64) -> f64 {
    let (seed, round) = (seed as f64, round as f64);
    1.0 + 0.6 * (round / 4.0 + seed).sin()
}

fn rates(seed: usize, round: u64, scale: f64) -> Rates {
    let wave = wave(seed, round) * scale;
    let drops = if seed.is_multiple_of(7) { wave / 2e5 } else { 0.0 };
    Rates {
        packets_in: wave / 700.0,
        bytes_in: wave,
        packets_out: wave / 500.0,
        bytes_out: wave * 1.7,
        flows: wave / 9e4,
        drops,
    }
}

fn move_on(model: &mut Model, round: u64) {
    for (seed, task) in model.tasks.iter_mut().enumerate() {
        task.rates = Some(rates(seed, round, 4e4 * (1.0 + f64::from(u32::try_from(seed % 9).unwrap()))));
        task.latency_ms = (!task.health.is_empty()).then(|| 0.4 * wave(seed, round));
    }
    let sum = |of: &dyn Fn(&Task) -> bool| {
        model.tasks.iter().filter(|task| of(task)).filter_map(|task| task.rates).reduce(Rates::plus)
    };
    // The large cluster needs no sums that are right.
    if model.tasks.len() < 1000 {
        for node in &mut model.nodes {
            node.rates = if node.status == "ready" {
                sum(&|task| task.node == node.name).or(Some(Rates::default()))
            } else {
                None
            };
        }
        for service in &mut model.services {
            service.rates = sum(&|task| task.service_id == service.id);
        }
        for network in &mut model.networks {
            network.rates = sum(&|task| task.networks.contains(&network.name));
        }
    } else {
        for (seed, node) in model.nodes.iter_mut().enumerate() {
            node.rates = Some(rates(seed, round, 1e6));
        }
        for (seed, service) in model.services.iter_mut().enumerate() {
            service.rates = Some(rates(seed, round, 3e6));
        }
    }
    for (seed, node) in model.nodes.iter_mut().enumerate() {
        node.latency_ms = (node.status == "ready").then(|| 0.3 * wave(seed, round));
    }
    for (seed, service) in model.services.iter_mut().enumerate() {
        service.latency_ms = (!service.check.is_empty()).then(|| 0.5 * wave(seed, round));
    }
    for (seed, talk) in model.talks.iter_mut().enumerate() {
        talk.bytes = Some(3e5 * wave(seed, round));
    }
    for drop in &mut model.drops {
        drop.total += 3;
        drop.rate = Some(3.0);
    }
    model.cluster.reporting = model.nodes.iter().filter(|node| node.rates.is_some()).count();
}

fn model(nodes: usize, services: usize, tasks_each: usize) -> Model {
    let node_name = |n: usize| format!("node-{n}");
    let service_name = |n: usize| match n / NAMES.len() {
        0 => NAMES[n].to_owned(),
        more => format!("{}-{more}", NAMES[n % NAMES.len()]),
    };
    let networks = ["prod", "staging", "ingress"];
    let mut model = Model {
        cluster: Cluster {
            id: "4f1e8yq0c2n7w5d3k9b6".into(),
            manager: node_name(1),
            leader: Some(node_name(1)),
            version: 42,
            meshd: "0.1.0".into(),
            reporting: 0,
        },
        ..Model::default()
    };
    for n in 1..=nodes {
        model.nodes.push(Node {
            id: format!("nodeid{n}"),
            name: node_name(n),
            role: if n <= 3 { "manager" } else { "worker" }.into(),
            status: if n == 5 { "down" } else { "ready" }.into(),
            availability: if n == 4 { "drain" } else { "active" }.into(),
            address: format!("192.168.{}.{}", n / 250, n % 250 + 1),
            tasks: 0,
            rates: None,
            latency_ms: None,
        });
    }
    for (n, name) in networks.iter().enumerate() {
        model.networks.push(Network {
            id: format!("netid{n}"),
            name: (*name).into(),
            vni: 4096 + u32::try_from(n).unwrap(),
            subnets: vec![format!("10.10.{n}.0/24")],
            traits: if *name == "ingress" { vec!["ingress".into()] } else { vec!["attachable".into()] },
            ..Network::default()
        });
    }
    for s in 0..services {
        let id = format!("serviceid{s}");
        let (name, network) = (service_name(s), networks[s % 2]);
        let ports = if s.is_multiple_of(3) {
            let published = 8080 + s;
            vec![Port { text: format!("{published}:80/tcp"), filter: format!("{published}/tcp") }]
        } else {
            vec![]
        };
        let checked = !s.is_multiple_of(4);
        for t in 0..tasks_each {
            let at = (s * tasks_each + t) % nodes;
            model.nodes[at].tasks += 1;
            let unhealthy = checked && s == 1 && t == 0;
            model.tasks.push(Task {
                id: format!("taskid{s}x{t}"),
                name: format!("{name}.{}", t + 1),
                service_id: id.clone(),
                service: name.clone(),
                node: node_name(at + 1),
                networks: vec![network.into()],
                addresses: vec![format!(
                    "10.10.{}.{}",
                    (s * tasks_each + t) / 250,
                    (s * tasks_each + t) % 250 + 2
                )],
                state: if s == 3 && t == 1 { "draining" } else { "ready" }.into(),
                health: match (checked, unhealthy) {
                    (false, _) => "",
                    (true, true) => "unhealthy",
                    (true, false) => "healthy",
                }
                .into(),
                note: if unhealthy { "connection refused".into() } else { String::new() },
                weight: 1,
                rates: None,
                latency_ms: None,
            });
        }
        let serving = if s == 1 { tasks_each.saturating_sub(1) } else { tasks_each };
        model.services.push(Service {
            id,
            name,
            networks: vec![network.into()],
            vips: vec![format!("10.10.{}.{}", s % 2, 200 + s % 50)],
            ports,
            mode: "vip".into(),
            check: if checked { "http:80/health every 5 s".into() } else { String::new() },
            tasks: tasks_each,
            serving,
            state: if s == 1 { "degraded" } else { "healthy" }.into(),
            rates: None,
            latency_ms: None,
        });
        model.networks[s % 2].tasks += tasks_each;
        model.networks[s % 2].services += 1;
    }
    for (from, to, port) in [
        (None, 0, "80/tcp"),
        (Some(0), 1, "8080/tcp"),
        (Some(1), 2, "5432/tcp"),
        (Some(1), 3, "6379/tcp"),
        (Some(0), 7, "443/tcp"),
        (Some(6), 5, "25/tcp"),
        (Some(1), 6, "5672/tcp"),
        (Some(7), 2, "5432/tcp"),
    ] {
        if to < services && from.is_none_or(|from| from < services) {
            for t in 0..tasks_each.min(3) {
                let end = |s: usize| End::Task(format!("taskid{s}x{t}"));
                let from = from.map_or(End::Outside, end);
                model.talks.push(Talk { from, to: end(to), port: port.into(), flows: 4, bytes: None });
            }
        }
    }
    model.drops = vec![
        Drops { reason: "no-backend".into(), total: 120, rate: None },
        Drops { reason: "forged-source".into(), total: 7, rate: None },
    ];
    if nodes >= 5 {
        model.problems.push(Problem {
            severity: Severity::Error,
            text: "node-5 is down".into(),
            link: "#/nodes?q=name:node-5".into(),
        });
    }
    if services > 1 {
        model.problems.push(Problem {
            severity: Severity::Warning,
            text: "api: 1 task is unhealthy: connection refused".into(),
            link: "#/service/serviceid1".into(),
        });
    }
    for number in 1..=9u64 {
        model.events.push(Event {
            time: 1_790_000_000_000 + number * 61_000,
            number,
            kind: ["service", "network", "node"][usize::try_from(number % 3).unwrap()].into(),
            action: if number % 4 == 0 { "update" } else { "create" }.into(),
            id: format!("eventid{number}"),
            name: NAMES[usize::try_from(number % 8).unwrap()].into(),
            detail: "ports=8080:80/tcp".into(),
        });
    }
    model
}
