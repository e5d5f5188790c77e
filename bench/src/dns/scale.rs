//! Memory and time with many names: those of one network with 100,000 tasks, in this process.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_agent::names::{follow, network_names};
use mesh_dns::{DnsServer, DnsThread, Forwarder, NetworkNames, Sockets, TaskView};
use mesh_tests::{NetNs, Prefix};
use mesh_types::{
    Endpoint, EndpointState, Generation, Health, LocalEndpointId, Mac, Network, NetworkId, NodeId, TaskId,
    Vni,
};
use tokio::sync::watch;

use super::{
    ask::{self, Dnsperf, Transport},
    subject::embedded,
};
use crate::{
    idle::{processor_time, resident},
    record::{Better, Figure, Record, Suite},
    stats::median,
};

const NAMES: u32 = 100_000;
/// Tasks that get another address, one after the other.
const CHANGES: usize = 101;

/// Measures.
pub fn run(prefix: &Prefix, length: Duration, record: &mut Record) -> Result<()> {
    let mut tell = |key: &str, title: &str, unit: &str, better: Better, value: f64| {
        let title = format!("{NAMES} names of one network: {title}");
        record.alone(Figure::new(Suite::Dns, format!("scale-{key}"), title, unit, better), value);
    };
    let network = Network {
        id: NetworkId::from_u128(1),
        name: "prod".parse()?,
        vni: Vni::new(4096)?,
        subnets: Vec::new(),
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: Default::default(),
        created_at: 0,
        ip_ranges: Vec::new(),
        aux_addresses: Default::default(),
        version: 0,
    };
    let endpoints = (0..NAMES).map(|number| endpoint(network.id, number)).collect::<Result<Vec<_>>>()?;
    let before = resident(std::process::id())?;
    let begin = Instant::now();
    let names = Arc::new(network_names(&network, [], &endpoints).names);
    let made = begin.elapsed();
    let held = resident(std::process::id())? - before;
    tell("made", "made in", "ms", Better::Lower, made.as_secs_f64() * 1e3);
    tell("memory", "memory, once for all tasks", "MiB", Better::Lower, held.max(0.0));
    tell("change", "a task gets another address", "us", Better::Lower, change(&names, &network, &endpoints)?);

    let task = NetNs::create(&prefix.namespace("names"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let thread = DnsThread::start()?;
    let sockets = Sockets::open(&mesh_netlink::NetNs::open_path(&task.path())?)?;
    let view = TaskView { networks: vec![names], forward: false, ..TaskView::default() };
    let (_keep, receiver) = watch::channel(Arc::new(view));
    let _server =
        DnsServer::start(&thread, sockets, receiver, Arc::new(Forwarder::to_servers([]).for_task()))?;

    let asked: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect();
    if let Some(perf) = Dnsperf::new(prefix, &asked, length)? {
        let used = processor_time(std::process::id())?;
        let queries = perf.run(&task.path(), embedded(), Transport::Udp)?;
        let used = processor_time(std::process::id())? - used;
        tell("rate", "asked for each in turn", "1000/s", Better::Higher, queries.per_second / 1e3);
        let each = used * 1e6 / queries.count.max(1.0);
        tell("cpu", "processor time of a query, the asker's tool not counted", "us", Better::Lower, each);
    }
    let alone = ask::seldom(&task.path(), embedded(), &asked, length)?;
    tell("alone", "one at a time, p50", "us", Better::Lower, alone.p50);
    Ok(())
}

/// Microseconds, at the median, until names have followed one endpoint, while those before are still asked for.
fn change(names: &Arc<NetworkNames>, network: &Network, endpoints: &[Endpoint]) -> Result<f64> {
    let mut names = Arc::clone(names);
    let mut took = Vec::new();
    for before in endpoints.iter().step_by(endpoints.len() / CHANGES).take(CHANGES) {
        let mut after = before.clone();
        after.addresses = vec![IpAddr::from(Ipv4Addr::from_bits(
            u32::from(Ipv4Addr::new(10, 128, 0, 0)) + before.local_id.0,
        ))];
        let changes = [(Some(Arc::new(before.clone())), Some(Arc::new(after)))];
        let begin = Instant::now();
        let mut followed = NetworkNames::clone(&names);
        ensure!(follow(&mut followed, network, |_| None, &changes), "{} cannot be followed", before.name);
        ensure!(followed != *names, "{} changed nothing", before.name);
        names = Arc::new(followed);
        took.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&took))
}

fn endpoint(network: NetworkId, number: u32) -> Result<Endpoint> {
    let [_, a, b, c] = number.to_be_bytes();
    Ok(Endpoint {
        network,
        node: NodeId::from_u128(1),
        task: TaskId::from_u128(number.into()),
        name: format!("name{number:06}").parse().context("a name")?,
        service: None,
        addresses: vec![IpAddr::from(Ipv4Addr::new(10, a, b, c))],
        mac: Mac([2, 0, 0, a, b, c]),
        local_id: LocalEndpointId(number),
        generation: Generation(1),
        aliases: Vec::new(),
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    })
}
