//! Tests of connectivity: a task on each node, each of which tries to reach all others.
//!
//! An order lasts as long as the stream of whoever asked for it. Nodes hear of it in their sessions; those with a session at
//! another manager by that one, which is asked for the same test and told the order. The network and the service that are
//! made for it go when it ends, and name the time after which whoever leads removes them, should this manager not be able to.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::Stream;
use mesh_api::{
    transport,
    v1::{self, control_client::ControlClient, control_server::Control as _},
};
use mesh_store::{Command, State};
use mesh_types::{Availability, Lookup, Network, Node, Role};
use rand::Rng;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tracing::{debug, info, warn};

use crate::{
    control::Control,
    shared::{Shared, unix_now},
    status::invalid,
};

/// The answer to `Control.TestConnectivity`.
pub(crate) type TestReports = Pin<Box<dyn Stream<Item = Result<v1::TestReport, Status>> + Send>>;

/// On the networks made for tests: the second since 1970 after which nobody needs them.
const LABEL: &str = "meshd.connectivity-test-until";
/// How long a test may last, in seconds.
const SECS: std::ops::RangeInclusive<u32> = 10..=600;
const DEFAULT_SECS: u32 = 60;
/// Tests at a time.
const AT_ONCE: usize = 4;
/// Reports that wait to be read.
const WAITING: usize = 256;
/// How long tasks may take to end before their network is removed under them.
const END: Duration = Duration::from_secs(20);
/// Between two attempts to remove it.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the leader looks for what is left over.
const LOOK: Duration = Duration::from_secs(10);
/// How long another manager may take to take an order.
const RELAY: Duration = Duration::from_secs(5);
/// The discard port: nobody else's in a namespace of its own.
const TARGET: u32 = 9;

/// The tests that this manager tells its nodes of.
#[derive(Default)]
pub(crate) struct Tests {
    running: Mutex<BTreeMap<String, (v1::TestOrder, mpsc::Sender<v1::TestReport>)>>,
    told: watch::Sender<Arc<Vec<v1::TestOrder>>>,
}

impl Tests {
    /// The orders, as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<v1::TestOrder>>> {
        self.told.subscribe()
    }

    /// Passes on what a node says; what nobody waits for is dropped.
    pub fn report(&self, report: v1::TestReport) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, reports)) = running.get(&report.test_id)
            && reports.try_send(report).is_err()
        {
            debug!("a report of a test came when nobody read");
        }
    }

    fn begin(
        self: &Arc<Self>,
        order: v1::TestOrder,
        reports: mpsc::Sender<v1::TestReport>,
    ) -> Result<Running, Status> {
        let id = order.id.clone();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= AT_ONCE {
            return Err(Status::resource_exhausted(
                "so many tests of connectivity are under way; wait for their end",
            ));
        }
        running.insert(id.clone(), (order, reports));
        self.tell(&running);
        Ok(Running { tests: self.clone(), id })
    }

    fn tell(&self, running: &BTreeMap<String, (v1::TestOrder, mpsc::Sender<v1::TestReport>)>) {
        self.told.send_replace(Arc::new(running.values().map(|(order, _)| order.clone()).collect()));
    }
}

/// A test that this manager tells its nodes of; dropped, they hear that it has ended.
struct Running {
    tests: Arc<Tests>,
    id: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.tests.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.id);
        self.tests.tell(&running);
    }
}

/// What a test made, and has to be removed; dropped, that begins.
struct Made {
    control: Control,
    network: String,
    /// Dropped before: the nodes are to end their tasks first.
    running: Option<Running>,
    relays: JoinSet<()>,
}

impl Drop for Made {
    fn drop(&mut self) {
        drop(self.running.take());
        self.relays.abort_all();
        let (control, network) = (self.control.clone(), std::mem::take(&mut self.network));
        tokio::spawn(async move { remove(&control, &network, END).await });
    }
}

/// Begins a test.
pub(crate) async fn test(
    control: Control,
    request: v1::TestConnectivityRequest,
) -> Result<TestReports, Status> {
    let shared = control.0.clone();
    let (reports, stream) = mpsc::channel(WAITING);
    if let Some(order) = request.order {
        let (secs, nodes) = (order.secs.min(*SECS.end()), order.nodes.clone());
        let running = shared.tests.begin(order, reports)?;
        return Ok(until(stream, secs, &nodes, running));
    }
    let secs = match request.secs {
        0 => DEFAULT_SECS,
        secs if SECS.contains(&secs) => secs,
        secs => {
            return Err(invalid(
                "secs",
                format!("{secs} is not between {} and {}", SECS.start(), SECS.end()),
            ));
        }
    };
    let state = shared.state();
    let nodes = nodes(&state, &request.nodes)?;
    if nodes.is_empty() {
        return Err(Status::failed_precondition(
            "no node takes tasks; `meshctl node update --availability active NODE` lets one",
        ));
    }
    let id = format!("{:08x}", rand::rng().random::<u32>());
    let name = format!("mesh-test-{id}");
    let until_second = unix_now() + u64::from(secs) + END.as_secs();
    let network = v1::CreateNetworkRequest {
        name: name.clone(),
        ipv6: true,
        internal: true,
        labels: [(LABEL.to_owned(), until_second.to_string())].into(),
        ..Default::default()
    };
    let network = control.create_network(Request::new(network)).await?.into_inner();
    // From here on whatever is made goes when this is dropped.
    let mut made =
        Made { control: control.clone(), network: network.id.clone(), running: None, relays: JoinSet::new() };
    let service = v1::CreateServiceRequest {
        name,
        networks: vec![network.id.clone()],
        ports: [v1::Protocol::Tcp, v1::Protocol::Udp].map(port).into(),
        drain_timeout_secs: Some(0),
        ..Default::default()
    };
    let service = control.create_service(Request::new(service)).await?.into_inner();
    let tcp = service.ports.iter().find(|port| port.protocol() == v1::Protocol::Tcp);
    let order = v1::TestOrder {
        id,
        secs,
        network_id: network.id,
        service_id: service.id,
        published_port: tcp.map_or(0, |port| port.published),
        nodes,
    };
    info!(test = order.id, nodes = order.nodes.len(), "test of connectivity begins");
    let begun = v1::TestReport {
        test_id: order.id.clone(),
        node_id: shared.place.node.to_string(),
        stage: "begun".to_owned(),
        order: Some(order.clone()),
        ..Default::default()
    };
    let _ = reports.try_send(begun);
    for manager in state.nodes().filter(|node| node.role == Role::Manager && node.id != shared.place.node) {
        made.relays.spawn(relay(shared.clone(), manager.clone(), order.clone(), reports.clone()));
    }
    let nodes = order.nodes.clone();
    made.running = Some(shared.tests.begin(order, reports)?);
    Ok(until(stream, secs, &nodes, made))
}

/// A port of the test's service, whose number on the nodes the managers choose.
fn port(protocol: v1::Protocol) -> v1::Port {
    v1::Port {
        target: TARGET,
        protocol: protocol.into(),
        mode: v1::PublishMode::Ingress.into(),
        ..Default::default()
    }
}

/// What is reported until all of `nodes` have ended their part, or the time is over; what is `held` ends with it, or when the
/// reader goes.
fn until<T: Send + 'static>(
    stream: mpsc::Receiver<v1::TestReport>,
    secs: u32,
    nodes: &[String],
    held: T,
) -> TestReports {
    let end = Instant::now() + Duration::from_secs(secs.into());
    let left: BTreeSet<String> = nodes.iter().cloned().collect();
    Box::pin(futures::stream::unfold((stream, left, held), move |(mut stream, mut left, held)| async move {
        if left.is_empty() {
            return None;
        }
        let report = timeout_at(end, stream.recv()).await.ok()??;
        if matches!(report.stage.as_str(), "done" | "failed") {
            left.remove(&report.node_id);
        }
        Some((Ok(report), (stream, left, held)))
    }))
}

/// The ids of the nodes that are named, else of all that may have tasks.
fn nodes(state: &State, named: &[String]) -> Result<Vec<String>, Status> {
    let all: Vec<&Node> = state.nodes().collect();
    if named.is_empty() {
        let may = all.iter().filter(|node| node.availability == Availability::Active);
        return Ok(may.map(|node| node.id.to_string()).collect());
    }
    let mut nodes = Vec::new();
    for reference in named {
        let node = Node::find(all.iter().copied(), reference).map_err(|e| crate::status::unresolved(&e))?;
        if node.availability != Availability::Active {
            return Err(Status::failed_precondition(format!(
                "node {} takes no tasks; `meshctl node update --availability active {}` lets it",
                node.name, node.name
            )));
        }
        nodes.push(node.id.to_string());
    }
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

/// Has another manager tell its nodes, and passes on what they report.
async fn relay(
    shared: Arc<Shared>,
    manager: Node,
    order: v1::TestOrder,
    reports: mpsc::Sender<v1::TestReport>,
) {
    let address = std::net::SocketAddr::new(manager.advertise_addr, mesh_types::MANAGER_PORT);
    let asked = async {
        let tls =
            mesh_ca::client_config(shared.identity.clone()).map_err(|e| Status::internal(e.to_string()))?;
        let channel = transport::connect_watchful(address, mesh_ca::server_name(Role::Manager), tls).await;
        let channel = channel.map_err(|e| Status::unavailable(e.to_string()))?;
        let request = v1::TestConnectivityRequest { order: Some(order), ..Default::default() };
        ControlClient::new(channel).test_connectivity(request).await
    };
    let mut stream = match timeout(RELAY, asked).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(error)) => return warn!(manager = %manager.name, %error, "test of connectivity not told"),
        Err(_) => return warn!(manager = %manager.name, "test of connectivity not told: no answer in time"),
    };
    while let Ok(Some(report)) = stream.message().await {
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// Removes a test's services and its network, once the tasks have ended or had so long for it: a task's node would meet with
/// a network that has gone from under it.
async fn remove(control: &Control, network: &str, patience: Duration) {
    let shared = &control.0;
    let begun = Instant::now();
    loop {
        let state = shared.state();
        let Some(found) = state.networks().find(|found| found.id_text() == network) else { return };
        let used = shared.endpoints.endpoints().iter().any(|endpoint| endpoint.network == found.id);
        if used && begun.elapsed() < patience {
            sleep(PAUSE).await;
            continue;
        }
        let services: Vec<_> = state
            .services()
            .filter(|s| s.networks.iter().any(|on| on.network == found.id))
            .map(|s| s.id)
            .collect();
        for service in services {
            if let Err(error) = shared.propose(Command::RemoveService(service)).await {
                debug!(%error, "service of a test not removed yet");
            }
        }
        let reference = network.to_owned();
        let request = v1::RemoveRequest { reference, expected_version: None };
        match control.remove_network(Request::new(request)).await {
            Ok(_) => return,
            Err(error) if begun.elapsed() >= patience => {
                // The tasks there have ended by themselves by now, or their node is away.
                let removed = shared.propose(Command::RemoveNetwork(found.id)).await;
                return warn!(network, %error, removed = removed.is_ok(), "network of a test removed under its tasks");
            }
            Err(error) => debug!(%error, "network of a test not removed yet"),
        }
        sleep(PAUSE).await;
    }
}

/// Removes what tests left whose manager could not, on whoever leads, until `stop`.
pub(crate) async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
        if !shared.raft.is_leader() {
            continue;
        }
        for network in left_over(&shared.state(), now()) {
            info!(network, "removing what a test of connectivity left");
            // The label gives the tasks their time to end. What is still heard of them is of a node whose daemon is away.
            remove(&Control(shared.clone()), &network, Duration::ZERO).await;
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The networks of tests whose time is over.
fn left_over(state: &State, now: u64) -> Vec<String> {
    let over = |network: &Network| {
        let until = network.labels.get(LABEL).and_then(|until| until.parse::<u64>().ok());
        network.name.as_str().starts_with("mesh-test-") && until.is_some_and(|until| until < now)
    };
    state.networks().filter(|network| over(network)).map(Lookup::id_text).collect()
}
