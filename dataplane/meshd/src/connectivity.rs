//! Tests of connectivity: makes the task that a manager orders, and tries to reach those of the other nodes.
//!
//! The task is a helper process (`helper`) in a network namespace of its own: it serves, and tries the others when it is
//! told to. It ends with this daemon, when the order ends, and after the order's time in any case; the task ends with it.

mod helper;
mod probe;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mesh_agent::{Agent, AttachError, AttachSpec, LocalTask, NsRef, one_line};
use mesh_api::{parse_id, v1};
use mesh_types::{ClusterView, Endpoint, NetworkId, NodeId, Protocol, TaskDns};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UdpSocket},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use helper::of_process as helper_of_process;
use probe::{Outcome, Probe, Probes};

/// How long an order's network may take to be known here.
const NEWS: Duration = Duration::from_secs(5);
/// How long the others' tasks may take to be heard of.
const HEAR: Duration = Duration::from_secs(10);
/// How long the helper may take to try all.
const TRY: Duration = Duration::from_secs(30);
/// How long published ports may take to answer; until then it is tried again, for what the others were told of a new task may
/// be on its way to them.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a datagram may take to come back; then another one is sent.
const ECHO: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Carries out what the managers order until the agent stops.
pub async fn follow(agent: Agent) {
    let mut orders = agent.tests();
    let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
    let stop = agent.stopping();
    loop {
        let wanted = orders.borrow_and_update().clone();
        running.retain(|id, cancel| {
            let goes_on = wanted.iter().any(|order| order.id == *id);
            if !goes_on {
                cancel.cancel();
            }
            goes_on
        });
        for order in wanted {
            if running.contains_key(&order.id) || !order.nodes.contains(&agent.node().to_string()) {
                continue;
            }
            let cancel = stop.child_token();
            running.insert(order.id.clone(), cancel.clone());
            tokio::spawn(run(agent.clone(), order, cancel));
        }
        match stop.run_until_cancelled(orders.changed()).await {
            Some(Ok(())) => {}
            _ => return,
        }
    }
}

/// One test, until it is cancelled or its time is over.
async fn run(agent: Agent, order: v1::TestOrder, cancel: CancellationToken) {
    let time = Duration::from_secs(order.secs.into());
    info!(test = order.id, "test of connectivity begins");
    let work = async {
        let made = Made::new(&agent, &order).await;
        let mut made = match made {
            Ok(made) => made,
            Err(error) => {
                report(&agent, &order, "failed", format!("{error:#}"), Vec::new()).await;
                return;
            }
        };
        report(&agent, &order, "ready", String::new(), Vec::new()).await;
        match cancel.run_until_cancelled(made.test(&agent, &order)).await {
            Some(Ok(results)) => report(&agent, &order, "done", String::new(), results).await,
            Some(Err(error)) => report(&agent, &order, "failed", format!("{error:#}"), Vec::new()).await,
            None => {}
        }
        // The others try this node's task still.
        cancel.cancelled().await;
        made.end(&agent).await;
    };
    // The helper dies with what holds it, and the task with the helper.
    if timeout(time, work).await.is_err() {
        warn!(test = order.id, "test of connectivity was not ended in time");
    }
    info!(test = order.id, "test of connectivity ends");
}

async fn report(
    agent: &Agent,
    order: &v1::TestOrder,
    stage: &str,
    failure: String,
    results: Vec<v1::TestResult>,
) {
    let report = v1::TestReport {
        test_id: order.id.clone(),
        stage: stage.to_owned(),
        failure,
        results,
        ..Default::default()
    };
    // Once more if the manager has just gone.
    for _ in 0..2 {
        match agent.report_test(report.clone()).await {
            Ok(()) => return,
            Err(error) => debug!(test = order.id, error = one_line(&error), "report of a test"),
        }
    }
}

/// A helper that is a task.
struct Made {
    helper: Child,
    task: LocalTask,
    network: NetworkId,
}

impl Made {
    async fn new(agent: &Agent, order: &v1::TestOrder) -> Result<Self> {
        let network: NetworkId = parse_id("network_id", &order.network_id)?;
        let mut helper = Command::new("/proc/self/exe")
            .arg(helper::ARGUMENT)
            .arg(agent.node().to_string())
            .arg(order.secs.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the test's process")?;
        let pid = helper.id().context("the test's process ended at once")?;
        let mut ready = [0; 1];
        let stdout = helper.stdout.as_mut().context("the test's process has no output")?;
        let is_ready = timeout(NEWS, stdout.read_exact(&mut ready)).await;
        is_ready.context("the test's process does not start")?.context("the test's process ended at once")?;
        let until = Instant::now() + NEWS;
        let task = loop {
            let spec = AttachSpec {
                namespace: NsRef::Pid(pid),
                name: None,
                service: Some(order.service_id.clone()),
                networks: Vec::new(),
                addresses: Vec::new(),
                aliases: Vec::new(),
                weight: 1,
                drain_timeout_secs: Some(0),
                dns: TaskDns::default(),
                owner: None,
                interface: None,
                mac: None,
                host_ports: Vec::new(),
            };
            match agent.attach(spec).await {
                Ok(task) => break task,
                // The network may be on its way to this node.
                Err(AttachError::Lookup(_)) if Instant::now() < until => {
                    sleep(Duration::from_millis(50)).await
                }
                Err(error) => bail!("no test task could be made: {}", one_line(&error)),
            }
        };
        Ok(Self { helper, task, network })
    }

    /// Tries to reach the other nodes' tasks, and this node's own by its service.
    async fn test(&mut self, agent: &Agent, order: &v1::TestOrder) -> Result<Vec<v1::TestResult>> {
        let nodes: BTreeSet<NodeId> =
            order.nodes.iter().map(|id| parse_id("nodes", id)).collect::<Result<_, _>>()?;
        let until = Instant::now() + HEAR;
        let endpoints = loop {
            let heard = agent.heard_on(self.network, &nodes);
            if heard.len() >= nodes.len() || Instant::now() > until {
                break heard;
            }
            sleep(Duration::from_millis(50)).await;
        };
        let view = agent.view();
        let mtu = agent.status().await.map_or(0, |status| status.task_mtu);
        let probes = self.probes(agent.node(), &view, order, &endpoints, mtu)?;
        let service = view.service(&order.service_id)?;
        let ports = service.ports.iter().map(|port| (port.protocol, port.published)).collect::<Vec<_>>();
        let ports = published(places(&view, &nodes, agent.node(), &ports));
        let (tried, ports) = tokio::join!(timeout(TRY, self.ask(&probes)), ports);
        let tried = tried.context("the test's process did not answer in time")??;
        let missing = nodes.iter().filter(|node| !endpoints.iter().any(|e| e.node == **node));
        let missing = missing.map(|node| Outcome {
            to: node.to_string(),
            check: "heard".to_owned(),
            failure: "its test task is not heard of: gossip (7946), or the task was not made there"
                .to_owned(),
        });
        let all = missing.chain(tried).chain(ports);
        Ok(all.map(|o| v1::TestResult { to_node: o.to, check: o.check, failure: o.failure }).collect())
    }

    fn probes(
        &self,
        own: NodeId,
        view: &ClusterView,
        order: &v1::TestOrder,
        endpoints: &[Endpoint],
        mtu: u32,
    ) -> Result<Probes> {
        let mut probes = Vec::new();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.node != own) {
            let to = endpoint.node.to_string();
            let (name, addresses) = (endpoint.name.to_string(), endpoint.addresses.clone());
            probes.push(Probe::Name { to: to.clone(), check: "name".to_owned(), name, addresses });
            for &address in &endpoint.addresses {
                probes.push(Probe::Task { to: to.clone(), address, mtu });
            }
        }
        let service = view.service(&order.service_id)?;
        let vips: Vec<IpAddr> = service.networks.iter().flat_map(|on| on.vips.clone()).collect();
        for &address in &vips {
            probes.push(Probe::Vip { to: own.to_string(), address });
        }
        let name = service.name.to_string();
        probes.push(Probe::Name { to: own.to_string(), check: "service".to_owned(), name, addresses: vips });
        Ok(Probes { probes })
    }

    async fn ask(&mut self, probes: &Probes) -> Result<Vec<Outcome>> {
        let stdin = self.helper.stdin.as_mut().context("the test's process has no input")?;
        let mut line = serde_json::to_vec(probes)?;
        line.push(b'\n');
        stdin.write_all(&line).await.context("the test's process ended")?;
        let stdout = self.helper.stdout.as_mut().context("the test's process has no output")?;
        let mut answer = String::new();
        BufReader::new(stdout).read_line(&mut answer).await?;
        serde_json::from_str(&answer).context("the test's process ended")
    }

    async fn end(mut self, agent: &Agent) {
        if let Err(error) = agent.detach(&self.task.id.to_string()).await {
            debug!(%error, "detach a test's task");
        }
        if let Err(error) = self.helper.kill().await {
            debug!(%error, "end a test's process");
        }
    }
}

/// A published port at one address.
struct Place {
    node: NodeId,
    check: String,
    protocol: Protocol,
    there: SocketAddr,
}

/// Where the published ports are tried from this node's own network: at every node, and at localhost of both families.
fn places(
    view: &ClusterView,
    nodes: &BTreeSet<NodeId>,
    own: NodeId,
    ports: &[(Protocol, u16)],
) -> Vec<Place> {
    let known = nodes.iter().filter_map(|node| Some((*node, "port", view.nodes.get(node)?.advertise_addr)));
    let local = [
        (own, "localhost", IpAddr::from(Ipv4Addr::LOCALHOST)),
        (own, "localhost6", Ipv6Addr::LOCALHOST.into()),
    ];
    // A machine may be without IPv6, or without it on its loopback interface.
    let local = local.into_iter().filter(|(.., address)| std::net::UdpSocket::bind((*address, 0)).is_ok());
    let mut places = Vec::new();
    for (node, check, address) in known.chain(local) {
        for &(protocol, port) in ports {
            let suffix = if protocol == Protocol::Udp { "-udp" } else { "" };
            let there = SocketAddr::new(address, port);
            places.push(Place { node, check: format!("{check}{suffix}"), protocol, there });
        }
    }
    places
}

/// Tries all of them at once.
async fn published(places: Vec<Place>) -> Vec<Outcome> {
    futures::future::join_all(places.into_iter().map(try_place)).await
}

async fn try_place(Place { node, check, protocol, there }: Place) -> Outcome {
    let begun = Instant::now();
    let failure = loop {
        let answer = async {
            match protocol {
                Protocol::Udp => echoed(there).await,
                _ => greeting(there).await,
            }
        };
        let wait = if protocol == Protocol::Udp { ECHO } else { CONNECT };
        let failure = match timeout(wait, answer).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => format!("{there}: {error}"),
            Err(_) => format!("{there}: no answer within {} s", CONNECT.as_secs()),
        };
        if failure.is_empty() || begun.elapsed() >= CONNECT {
            break failure;
        }
        sleep(PAUSE).await;
    };
    Outcome { to: node.to_string(), check, failure }
}

async fn greeting(there: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(there).await?;
    let mut word = [0; probe::GREETING.len()];
    stream.read_exact(&mut word).await?;
    is_greeting(&word)
}

/// Whether a datagram comes back, from where it was sent to.
async fn echoed(there: SocketAddr) -> std::io::Result<()> {
    let any: IpAddr =
        if there.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(there).await?;
    socket.send(probe::GREETING).await?;
    let mut word = [0; probe::GREETING.len() + 1];
    let len = socket.recv(&mut word).await?;
    is_greeting(&word[..len])
}

fn is_greeting(word: &[u8]) -> std::io::Result<()> {
    match word == probe::GREETING {
        true => Ok(()),
        false => Err(std::io::Error::other("somebody else answers")),
    }
}
