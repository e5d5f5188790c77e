//! How long `meshctl flows` takes where a node knows many.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use mesh_abi::{BackendValue, ChoiceValue, FlowKey, LAYOUT_VERSION, PUBLISHED, flow_state, v4_mapped};
use mesh_tests::{Cluster, Node, Task, TaskSpec, wait};
use nix::time::{ClockId, clock_gettime};

use crate::{
    idle::resident,
    record::{Better, Bound, Figure, Record, Suite, Target, Who},
    stats::median,
};

const NETWORK: &str = "bench";
/// Each has a task, and a published port from here on.
const SERVICES: u8 = 10;
const PORTS: u16 = 8000;
/// Addresses that flows come from, 198.51.100.0 and more.
const CLIENTS: u32 = 4000;
/// What a list with conditions may take.
const AIM: f64 = 2000.0;
const SOON: Duration = Duration::from_secs(60);
const TCP: u8 = 6;

/// Fills the table of a node, and asks for lists.
pub fn run(flows: u32, rounds: usize, record: &mut Record) -> Result<()> {
    let cluster = Cluster::start(1)?;
    let measured = measure(&cluster, flows, rounds, record);
    measured.map_err(|error| cluster.explain(error))
}

fn measure(cluster: &Cluster, flows: u32, rounds: usize, record: &mut Record) -> Result<()> {
    let node = &cluster[0];
    make_room(node, flows)?;
    let _tasks = tasks(cluster)?;
    fill(&node.bpf_folder().join(format!("v{LAYOUT_VERSION}")), flows)?;
    let one_client = client(7).map(|byte| byte.to_string()).join(".");
    let port = (PORTS + 3).to_string();
    let lists: [(&str, &str, &[&str]); 5] = [
        ("client", "of one client", &["flows", "--client", &one_client]),
        ("service", "of one service, a thousand shown", &["flows", "--service", "web3"]),
        (
            "conditions",
            "of a service, a state and a range of clients",
            &["flows", "--service", "web3", "--state", "established", "--client", "198.51.100.0/28"],
        ),
        ("port", "of a port that nobody speaks to, and a task", &["flows", "--port", "9", "--task", "task3"]),
        ("all", "all, as JSON", &["--format", "json", "flows", "--limit", "0"]),
    ];
    let some = lines(node, &["--format", "json", "flows", "--limit", "0", "--port", &port])?;
    let expected = flows.div_ceil(SERVICES.into()) as usize;
    ensure!(some.abs_diff(expected) <= 1, "of port {port} {some} flows are listed, not {expected}");
    for _ in 0..rounds {
        for (key, title, words) in lists {
            mesh_tests::interrupt::check()?;
            let begun = Instant::now();
            lines(node, words)?;
            let took = begun.elapsed().as_secs_f64() * 1000.0;
            let title = format!("a list out of {flows} flows: {title}");
            record
                .alone(Figure::new(Suite::Seeing, format!("flows-{key}"), title, "ms", Better::Lower), took);
        }
        let memory =
            Figure::new(Suite::Seeing, "flows-memory", "resident memory after it", "MiB", Better::Lower);
        record.figure(memory).add(Who::ours("meshd", "meshd"), resident(node.pid()?)?, None);
    }
    for (key, title, _) in lists.iter().filter(|(key, ..)| *key != "all") {
        let key = format!("flows-{key}");
        let Some(figure) = record.figures.iter().find(|figure| figure.key == key) else { continue };
        let Some(subject) = figure.subjects.first() else { continue };
        let target = Target {
            what: format!("a list out of {flows} flows: {title}"),
            of: "ms".to_owned(),
            bound: Bound::AtMost(AIM),
            measured: median(&subject.values),
        };
        record.targets.push(target);
    }
    Ok(())
}

/// Starts the daemon again with room for so many flows.
fn make_room(node: &Node, flows: u32) -> Result<()> {
    node.stop()?;
    let config = fs::read_to_string(node.config()).context("the node's configuration")?;
    let room = format!("{config}\n[limits]\nflows = {}\n", flows + flows / 8);
    fs::write(node.config(), room).context("the node's configuration")?;
    node.start()
}

fn tasks(cluster: &Cluster) -> Result<Vec<Task>> {
    let node = &cluster[0];
    node.ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", NETWORK])?;
    let names: Vec<[String; 2]> = (0..SERVICES).map(|n| [format!("web{n}"), format!("task{n}")]).collect();
    for (at, [service, _]) in (0..).zip(&names) {
        let port = format!("{}:80", PORTS + at);
        node.ctl(&["service", "create", "--network", NETWORK, "--publish", &port, service])?;
    }
    cluster.wait_for_view()?;
    let run = |[service, task]: &[String; 2]| {
        node.run_idle(&TaskSpec {
            name: task,
            network: NETWORK,
            service: Some(service),
            ..TaskSpec::default()
        })
    };
    names.iter().map(run).collect()
}

/// The address of the `n`th client.
fn client(n: u32) -> [u8; 4] {
    (u32::from_be_bytes([198, 51, 100, 0]) + n % CLIENTS).to_be_bytes()
}

/// Writes established connections to published ports, as if their packets came by now.
fn fill(maps: &Path, flows: u32) -> Result<()> {
    let open = |name: &str| {
        Map::from_map_data(MapData::from_pin(maps.join(name))?).with_context(|| format!("the map {name}"))
    };
    let tasks: HashMap<_, u32, BackendValue> = open("BACKENDS")?.try_into().context("BACKENDS")?;
    let ids = || {
        let ids = tasks.keys().collect::<Result<Vec<u32>, _>>().context("BACKENDS")?;
        ensure!(ids.len() >= usize::from(SERVICES), "{} backends", ids.len());
        Ok(ids)
    };
    let ids = wait("the tasks in the data path", SOON, ids)?;
    let mut kept: HashMap<_, FlowKey, ChoiceValue> =
        open("CHOICES_KEPT")?.try_into().context("CHOICES_KEPT")?;
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("the clock")?);
    for n in 0..flows {
        let service = n % u32::from(SERVICES);
        let key = FlowKey {
            source: v4_mapped(client(n / u32::from(SERVICES))),
            destination: v4_mapped([192, 168, 77, 11]),
            scope: PUBLISHED,
            source_port: ((n / u32::from(SERVICES) / CLIENTS + 1024) as u16).to_be_bytes(),
            destination_port: (PORTS + service as u16).to_be_bytes(),
            protocol: TCP,
            ..FlowKey::default()
        };
        let value = ChoiceValue {
            last_seen: now.as_nanos() as u64,
            backend: ids[service as usize],
            state: flow_state::ANSWERED | flow_state::CONFIRMED,
            ..ChoiceValue::default()
        };
        kept.insert(key, value, 0).with_context(|| format!("flow {n}"))?;
    }
    Ok(())
}

/// How many lines meshctl prints.
fn lines(node: &Node, words: &[&str]) -> Result<usize> {
    let mut meshctl = node.meshctl()?;
    let done = meshctl.args(words).stdin(Stdio::null()).output().context("cannot run meshctl")?;
    ensure!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(done.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count())
}
