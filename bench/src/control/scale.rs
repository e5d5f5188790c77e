//! What a large state costs: time to make it, memory, restart, and its snapshot.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_api::v1::EndpointMode;
use mesh_store::{Command, NewNetwork, NewService, Response, Secrets, Sensitive, State};
use mesh_tests::Cluster;
use mesh_types::{Availability, ClusterId, DEFAULT_DRAIN_SECS, NetworkId, Node, NodeId, Role, ServiceId};
use tokio::{runtime::Runtime, task::JoinSet};

use super::client::Client;
use crate::{
    idle::resident,
    record::{Better, Figure, Record, Suite},
};

/// Room for hundreds of thousands of addresses.
const SUBNET: &str = "10.64.0.0/12";
const NETWORK: &str = "scale";
/// Clients that make services at the same time.
const CLIENTS: usize = 64;
/// How often a full manager is started again, and a snapshot made and read.
const RESTARTS: usize = 3;
/// See [`RESTARTS`].
const SNAPSHOTS: usize = 5;
/// Longest time for a restarted manager to take a change.
const BACK: Duration = Duration::from_secs(60);

/// Makes `services` on a manager, changes one of them, and starts the manager again.
pub fn measure(runtime: &Runtime, services: usize, record: &mut Record) -> Result<()> {
    let mut tell = |key: &str, title: &str, unit: &str, better: Better, value: f64| {
        let (key, title) = (format!("services-{services}-{key}"), format!("{services} services: {title}"));
        record.alone(Figure::new(Suite::Control, key, title, unit, better), value);
    };
    let cluster = Cluster::start(1)?;
    let mut daemon = || {
        tell("empty", "meshd resident before", "MiB", Better::Lower, resident(cluster[0].pid()?)?);
        cluster[0].ctl(&["network", "create", "--driver", "overlay", "--subnet", SUBNET, NETWORK])?;
        let begin = Instant::now();
        runtime.block_on(create(&cluster, services))?;
        let rate = services as f64 / begin.elapsed().as_secs_f64();
        tell("made", "made", "1/s", Better::Higher, rate);
        tell("full", "meshd resident with them", "MiB", Better::Lower, resident(cluster[0].pid()?)?);
        for milliseconds in runtime.block_on(change(&cluster))? {
            tell("change", "one more change", "ms", Better::Lower, milliseconds);
        }
        for _ in 0..RESTARTS {
            cluster[0].stop()?;
            let begin = Instant::now();
            cluster[0].start()?;
            runtime.block_on(back(&cluster, begin))?;
            let seconds = begin.elapsed().as_secs_f64();
            tell("restart", "restart until the next change", "s", Better::Lower, seconds);
        }
        Ok::<_, anyhow::Error>(())
    };
    daemon().map_err(|error| cluster.explain(error))
}

/// Makes and reads the snapshot of a state of so many services, and addresses leased.
pub fn snapshot(services: usize, addresses: usize, record: &mut Record) -> Result<()> {
    let state = large(services, addresses)?;
    let what = format!("snapshot of {services} services, {addresses} addresses");
    let mut tell = |key: &str, title: &str, unit: &str, value: f64| {
        let key = format!("snapshot-{services}-{addresses}-{key}");
        let figure = Figure::new(Suite::Control, key, format!("{what}: {title}"), unit, Better::Lower);
        record.alone(figure, value);
    };
    for turn in 0..SNAPSHOTS {
        mesh_tests::interrupt::check()?;
        let begin = Instant::now();
        let bytes = state.encode();
        tell("made", "made", "ms", begin.elapsed().as_secs_f64() * 1e3);
        let begin = Instant::now();
        let read = State::decode(&bytes)?;
        tell("read", "read", "ms", begin.elapsed().as_secs_f64() * 1e3);
        ensure!(read == state, "a snapshot is read as another state");
        if turn == 0 {
            tell("size", "size", "MiB", bytes.len() as f64 / 1_048_576.0);
        }
    }
    Ok(())
}

async fn create(cluster: &Cluster, services: usize) -> Result<()> {
    let mut making = JoinSet::new();
    for first in 0..CLIENTS {
        let client = Client::connect(&cluster[0].socket()).await?;
        making.spawn(async move {
            for number in (first..services).step_by(CLIENTS) {
                client.create_service(&format!("s{number}"), NETWORK, EndpointMode::Vip).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    Ok(())
}

/// Milliseconds of one change among many, ten times.
async fn change(cluster: &Cluster) -> Result<Vec<f64>> {
    let client = Client::connect(&cluster[0].socket()).await?;
    let mut times = Vec::new();
    for turn in 0..10 {
        let start = Instant::now();
        client.label("s0", &turn.to_string()).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

async fn back(cluster: &Cluster, begin: Instant) -> Result<()> {
    let client = Client::connect(&cluster[0].socket()).await?;
    while let Err(error) = client.label("s0", "back").await {
        ensure!(begin.elapsed() < BACK, "no change {BACK:?} after a restart: {error:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A state in this process.
fn large(services: usize, addresses: usize) -> Result<State> {
    let mut state = State::default();
    let id = NodeId::from_u128(1);
    let node = Node {
        id,
        name: "n1".parse()?,
        role: Role::Manager,
        advertise_addr: IpAddr::from([192, 168, 0, 1]),
        data_path_addr: IpAddr::from([192, 168, 0, 1]),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    };
    state.apply(Command::Init {
        cluster: ClusterId::from_u128(1),
        node,
        secrets: Box::new(Secrets {
            ca_cert_pem: String::new(),
            ca_key_pem: String::new(),
            worker_token: [0; 16],
            manager_token: [0; 16],
        }),
        gossip_key: Sensitive([0; 32]),
        pools: vec![],
        ingress: NetworkId::from_u128(1),
        ingress_subnets: vec![],
        ingress_ipv6: false,
        now: 0,
    })?;
    let network = NetworkId::from_u128(2);
    state.apply(Command::CreateNetwork(NewNetwork {
        id: network,
        name: NETWORK.parse()?,
        subnets: vec![(SUBNET.parse()?, None)],
        ipv6: false,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        now: 0,
    }))?;
    for number in 0..services {
        state.apply(Command::CreateService(NewService {
            id: ServiceId::from_u128(number as u128),
            name: format!("s{number}").parse()?,
            networks: vec![(network, vec![])],
            endpoint_mode: mesh_types::EndpointMode::Vip,
            ports: vec![],
            affinity: None,
            prefer_local: false,
            drain_timeout_secs: DEFAULT_DRAIN_SECS,
            health: None,
            labels: BTreeMap::new(),
            now: 0,
        }))?;
    }
    let mut held = services;
    while held < addresses {
        let asked = Command::Lease { node: id, network, count: mesh_store::MAX_LEASE, family: None };
        match state.apply(asked)? {
            Response::Leased(leased) => held += leased.len().max(1),
            other => bail!("a lease is answered by {other:?}"),
        }
    }
    state.view().context("a state without a view")?;
    Ok(state)
}
