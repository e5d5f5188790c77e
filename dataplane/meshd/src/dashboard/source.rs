//! The cluster as the dashboard shows it: what the managers decided, what gossip tells, and what nodes report while somebody looks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::StreamExt;
use mesh_api::v1::{self, control_server::Control as _};
use mesh_dashboard::{
    Change, Cluster, Event, Model, Network, Node, Port, Problem, Refusal, Service, Severity, Source, Task,
};
use mesh_manager::{Control, Manager, State, Traffic};
use mesh_types::{Endpoint, EndpointState, Health, NodeId, PortFilter, TaskId};
use tokio::task::JoinHandle;
use tonic::Request;

use super::{changes, rates::Passing};
use crate::daemon::Daemon;

/// Events that are kept.
const EVENTS: usize = 500;
/// Nodes are asked for so long after somebody looked last.
const LINGER: Duration = Duration::from_secs(10);
/// Tasks that a problem names.
const NAMED: usize = 3;

/// See the module.
pub struct ClusterSource {
    daemon: Weak<Daemon>,
    watch: Arc<Mutex<Watch>>,
    events: Arc<Mutex<VecDeque<Event>>>,
    following: Mutex<Option<JoinHandle<()>>>,
}

/// What nodes report, for as long as somebody looks.
#[derive(Default)]
struct Watch {
    looked: Option<Instant>,
    traffic: Option<Traffic>,
}

impl ClusterSource {
    /// Of this daemon's manager.
    pub fn new(daemon: Weak<Daemon>) -> Self {
        Self { daemon, watch: Arc::default(), events: Arc::default(), following: Mutex::default() }
    }

    /// What passes; the first question has nodes begin to report.
    fn passing(&self, manager: &Manager) -> Passing {
        let mut watch = lock(&self.watch);
        watch.looked = Some(Instant::now());
        if watch.traffic.is_none() {
            watch.traffic = Some(manager.traffic());
            tokio::spawn(end_watch(Arc::downgrade(&self.watch)));
        }
        watch.traffic.as_ref().map(|traffic| Passing::new(&traffic.reports())).unwrap_or_default()
    }

    fn events(&self, control: Control) -> Vec<Event> {
        let mut following = lock(&self.following);
        if following.as_ref().is_none_or(JoinHandle::is_finished) {
            lock(&self.events).clear();
            *following = Some(tokio::spawn(follow_events(control, Arc::downgrade(&self.events))));
        }
        lock(&self.events).iter().cloned().collect()
    }
}

impl Drop for ClusterSource {
    fn drop(&mut self) {
        if let Some(following) = lock(&self.following).take() {
            following.abort();
        }
    }
}

#[async_trait]
impl Source for ClusterSource {
    async fn model(&self) -> Model {
        let Some(daemon) = self.daemon.upgrade() else { return no_manager() };
        let Ok(member) = daemon.member().await else { return no_manager() };
        let Ok(manager) = member.manager() else {
            lock(&self.watch).traffic = None;
            return no_manager();
        };
        let state = manager.state().borrow().clone();
        let facts = Facts {
            own: member.membership.node,
            leader: manager.leader(),
            statuses: state.nodes().map(|node| (node.id, manager.status_of(node.id).as_str())).collect(),
            endpoints: member.agent.endpoints().0,
            passing: self.passing(manager),
            events: self.events(manager.control()),
        };
        model(&state, facts)
    }

    async fn change(&self, change: Change) -> Result<String, Refusal> {
        let gone = || Refusal("this node is no manager any more; run `meshctl dashboard` on one".to_owned());
        let daemon = self.daemon.upgrade().ok_or_else(gone)?;
        let (control, endpoints) = {
            let member = daemon.member().await.map_err(|_| gone())?;
            let control = member.manager().map_err(|_| gone())?.control();
            (control, member.agent.endpoints().0)
        };
        changes::make(&control, &endpoints, change).await
    }
}

fn lock<T>(held: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn end_watch(watch: Weak<Mutex<Watch>>) {
    loop {
        tokio::time::sleep(LINGER / 2).await;
        let Some(watch) = watch.upgrade() else { return };
        let mut watch = lock(&watch);
        if watch.looked.is_none_or(|looked| looked.elapsed() > LINGER) {
            watch.traffic = None;
            return;
        }
    }
}

async fn follow_events(control: Control, kept: Weak<Mutex<VecDeque<Event>>>) {
    let request = v1::EventsRequest { since_millis: Some(0) };
    let Ok(events) = control.events(Request::new(request)).await else { return };
    let mut events = events.into_inner();
    let mut number = 0;
    while let Some(Ok(event)) = events.next().await {
        let Some(kept) = kept.upgrade() else { return };
        number += 1;
        let detail = event.attributes.iter().collect::<BTreeMap<_, _>>();
        let detail = detail.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
        let mut kept = lock(&kept);
        if kept.len() >= EVENTS {
            kept.pop_front();
        }
        kept.push_back(Event {
            time: event.time_millis,
            number,
            kind: event.kind,
            action: event.action,
            id: event.id,
            name: event.name,
            detail,
        });
    }
}

fn no_manager() -> Model {
    let text = "this node is no manager any more; run `meshctl dashboard` on one".to_owned();
    let problem = Problem { severity: Severity::Error, text, link: String::new() };
    Model { problems: vec![problem], ..Model::default() }
}

/// What is known beside the decided state.
struct Facts {
    own: NodeId,
    leader: Option<NodeId>,
    statuses: HashMap<NodeId, &'static str>,
    endpoints: Vec<Endpoint>,
    passing: Passing,
    events: Vec<Event>,
}

fn model(state: &State, facts: Facts) -> Model {
    let Facts { own, leader, statuses, endpoints, passing, events } = facts;
    let name = |node: NodeId| state.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
    let tasks = tasks(state, &endpoints, &passing);
    let ids: HashMap<&str, &str> = tasks.iter().map(|task| (task.name.as_str(), task.id.as_str())).collect();
    let talks = passing.talks(|name| ids.get(name).map(|id| (*id).to_owned())).collect();
    let services = services(state, &tasks, &passing);
    let nodes = nodes(state, &statuses, &tasks, &passing);
    let networks = networks(state, &endpoints, &passing);
    let problems = problems(leader.is_some(), &nodes, &services, &tasks);
    let cluster = Cluster {
        id: state.cluster().map(|id| id.to_string()).unwrap_or_default(),
        manager: name(own),
        leader: leader.map(name),
        version: state.version(),
        meshd: env!("CARGO_PKG_VERSION").to_owned(),
        reporting: nodes.iter().filter(|node| node.rates.is_some()).count(),
    };
    Model { cluster, nodes, networks, services, talks, drops: passing.drops, problems, events, tasks }
}

fn tasks(state: &State, endpoints: &[Endpoint], passing: &Passing) -> Vec<Task> {
    let mut places: BTreeMap<TaskId, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        places.entry(endpoint.task).or_default().push(endpoint);
    }
    let task = |(id, mut places): (TaskId, Vec<&Endpoint>)| {
        // The ingress network is for published ports alone where there is another one.
        let ingress = |place: &Endpoint| state.networks().any(|n| n.id == place.network && n.ingress);
        places.sort_by_key(|place| (ingress(place), place.network));
        let first = *places.first()?;
        let mut task = Task {
            id: id.to_string(),
            name: first.name.to_string(),
            node: state.node(first.node).map_or_else(|| first.node.to_string(), |n| n.name.to_string()),
            state: state_word(first.state).to_owned(),
            health: health_word(first.health).to_owned(),
            note: first.health_note.as_ref().map(|note| note.as_str().to_owned()).unwrap_or_default(),
            weight: first.weight.into(),
            ..Task::default()
        };
        if let Some(service) = first.service {
            task.service_id = service.to_string();
            let known = state.service(service);
            task.service = known.map_or_else(|| service.to_string(), |service| service.name.to_string());
        }
        for place in &places {
            let network = state.networks().find(|network| network.id == place.network);
            task.networks.extend(network.map(|network| network.name.to_string()));
            task.addresses.extend(place.addresses.iter().map(ToString::to_string));
        }
        task.rates = passing.tasks.get(&task.id).copied();
        task.latency_ms = passing.checks.get(&task.id).copied();
        Some(task)
    };
    places.into_iter().filter_map(task).collect()
}

fn state_word(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Ready => "ready",
        EndpointState::Draining => "draining",
        EndpointState::Drained => "drained",
    }
}

fn health_word(health: Health) -> &'static str {
    match health {
        Health::None => "",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

fn serves(task: &Task) -> bool {
    task.state == "ready" && matches!(task.health.as_str(), "" | "healthy")
}

fn services(state: &State, tasks: &[Task], passing: &Passing) -> Vec<Service> {
    let mut by_service: HashMap<&str, Vec<&Task>> = HashMap::new();
    for task in tasks {
        by_service.entry(&task.service_id).or_default().push(task);
    }
    let service = |known: &mesh_types::Service| {
        let id = known.id.to_string();
        let own = by_service.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let serving = own.iter().filter(|task| serves(task)).count();
        let ready = own.iter().filter(|task| task.state == "ready").count();
        let word = match (own.len(), serving) {
            (0, _) => "empty",
            (_, 0) => "down",
            (_, serving) if serving < ready => "degraded",
            _ => "healthy",
        };
        let mut rates = own.iter().filter_map(|task| task.rates).reduce(mesh_dashboard::Rates::plus);
        if let (Some(rates), Some(refused)) = (rates.as_mut(), passing.refused.get(&id)) {
            rates.drops += refused;
        }
        let mut latencies: Vec<f64> = own.iter().filter_map(|task| task.latency_ms).collect();
        latencies.sort_by(f64::total_cmp);
        let network = |on: &mesh_types::ServiceNetwork| {
            state.networks().find(|network| network.id == on.network).map(|network| network.name.to_string())
        };
        let port =
            |port: &mesh_types::PortConfig| Port { text: port.to_string(), filter: just(port).to_string() };
        Service {
            name: known.name.to_string(),
            networks: known.networks.iter().filter_map(network).collect(),
            vips: known.networks.iter().flat_map(|on| &on.vips).map(ToString::to_string).collect(),
            ports: known.ports.iter().map(port).collect(),
            mode: known.endpoint_mode.to_string(),
            check: known.health.as_ref().map(ToString::to_string).unwrap_or_default(),
            tasks: own.len(),
            serving,
            state: word.to_owned(),
            rates,
            latency_ms: latencies.get(latencies.len() / 2).copied(),
            id,
        }
    };
    state.services().map(service).collect()
}

/// This port and no other.
fn just(port: &mesh_types::PortConfig) -> PortFilter {
    PortFilter {
        published: Some((port.published, port.published)),
        target: Some((port.target, port.target)),
        protocol: port.protocol,
        mode: Some(port.mode),
        at: Some(port.at),
        return_mode: Some(port.return_mode),
    }
}

fn nodes(
    state: &State,
    statuses: &HashMap<NodeId, &'static str>,
    tasks: &[Task],
    passing: &Passing,
) -> Vec<Node> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for task in tasks {
        *counts.entry(&task.node).or_default() += 1;
    }
    let node = |known: &mesh_types::Node| {
        let (id, name) = (known.id.to_string(), known.name.to_string());
        Node {
            role: known.role.to_string(),
            status: (*statuses.get(&known.id).unwrap_or(&"unknown")).to_owned(),
            availability: known.availability.to_string(),
            address: known.advertise_addr.to_string(),
            tasks: counts.get(name.as_str()).copied().unwrap_or(0),
            rates: passing.nodes.get(&id).copied(),
            latency_ms: passing.latencies.get(&id).copied(),
            id,
            name,
        }
    };
    state.nodes().map(node).collect()
}

fn networks(state: &State, endpoints: &[Endpoint], passing: &Passing) -> Vec<Network> {
    let mut tasks: HashMap<_, BTreeSet<TaskId>> = HashMap::new();
    for endpoint in endpoints {
        tasks.entry(endpoint.network).or_default().insert(endpoint.task);
    }
    let network = |known: &mesh_types::Network| {
        let id = known.id.to_string();
        let traits =
            [("ingress", known.ingress), ("attachable", known.attachable), ("internal", known.internal)];
        Network {
            name: known.name.to_string(),
            vni: known.vni.get(),
            subnets: known.subnets.iter().map(|subnet| subnet.net().to_string()).collect(),
            traits: traits.iter().filter(|(_, is)| *is).map(|(word, _)| (*word).to_owned()).collect(),
            tasks: tasks.get(&known.id).map_or(0, BTreeSet::len),
            services: state.services().filter(|s| s.networks.iter().any(|on| on.network == known.id)).count(),
            rates: passing.networks.get(&id).copied(),
            id,
        }
    };
    state.networks().map(network).collect()
}

fn problems(led: bool, nodes: &[Node], services: &[Service], tasks: &[Task]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tell = |severity, text, link| problems.push(Problem { severity, text, link });
    if !led {
        let text =
            "this manager knows of no leader: nothing can be changed, and what runs goes on".to_owned();
        tell(Severity::Error, text, String::new());
    }
    for node in nodes {
        let severity = match node.status.as_str() {
            "ready" => continue,
            "down" => Severity::Error,
            _ => Severity::Warning,
        };
        tell(severity, format!("node {} is {}", node.name, node.status), format!("#/nodes?q=id:{}", node.id));
    }
    for service in services {
        let sick: Vec<&Task> =
            tasks.iter().filter(|t| t.service_id == service.id && t.health == "unhealthy").collect();
        let severity = match service.state.as_str() {
            "down" => Severity::Error,
            "degraded" if !sick.is_empty() => Severity::Warning,
            _ => continue,
        };
        let named: Vec<String> =
            sick.iter().take(NAMED).map(|t| format!("{} ({})", t.name, t.note)).collect();
        let rest =
            if sick.len() > NAMED { format!(" and {} more", sick.len() - NAMED) } else { String::new() };
        let text = match sick.is_empty() {
            true => format!("service {} has no task that takes connections", service.name),
            false => format!(
                "service {}: {} of {} tasks take connections; unhealthy: {}{rest}",
                service.name,
                service.serving,
                service.tasks,
                named.join(", ")
            ),
        };
        tell(severity, text, format!("#/service/{}", service.id));
    }
    problems
}
