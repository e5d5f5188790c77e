//! Fifty nodes as one cluster, and SWARM's acceptance 7 on it: what starts and ends is known everywhere, a third of the
//! nodes is cut off for half a minute and is right again by itself, every daemon is restarted in turn, and the key that
//! seals gossip is replaced under load.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, Load, NetNs, Node, Task, TaskSpec, get, resolve, run_many, wait};

const NODES: u8 = 50;
/// The nodes from here on are cut off from the others, not from each other.
const CUT: usize = 34;
const CUT_FOR: Duration = Duration::from_secs(30);
/// Daemons that are away at the same time.
const RESTARTED: usize = 5;
/// Fifty debug builds share two processors with whatever else runs.
const PATIENTLY: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(10);
/// Longer than three lost packets cost.
const REQUEST: Duration = Duration::from_secs(20);
/// Asked so often, each of four tasks has answered, but for once in many millions.
const ASKED: usize = 80;
/// Asked so often, a task that should not answer would have.
const ASKED_AT_LEAST: usize = 12;

fn port(node: &Node) -> SocketAddr {
    SocketAddr::new(node.underlay(), 8080)
}

/// Those that answer on the published port of a node, asked from `from`.
fn answering(from: &NetNs, server: SocketAddr, expected: &BTreeSet<&str>) -> Result<()> {
    let mut met = BTreeSet::new();
    for asked in 1..=ASKED {
        let answer = from.run(|| get(server, SOON))??;
        let name = answer.split(' ').next().unwrap_or_default().to_owned();
        ensure!(expected.contains(name.as_str()), "{server} leads to {name}, not to {expected:?}");
        met.insert(name);
        if met.len() == expected.len() && asked >= ASKED_AT_LEAST {
            return Ok(());
        }
    }
    anyhow::bail!("{server} leads only to {met:?} of {expected:?}")
}

/// Waits until the published port leads to exactly these tasks, on all of `nodes`.
fn known_on(cluster: &Cluster, nodes: &[Node], expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    for node in nodes {
        wait("a node to know what runs", PATIENTLY, || {
            answering(cluster.net().client(), port(node), &expected)
        })
        .with_context(|| node.name())?;
    }
    Ok(())
}

fn serve(node: &Node, name: &str) -> Result<Guest> {
    let spec = TaskSpec { name, network: "prod", service: Some("web"), ..TaskSpec::default() };
    node.attach_nginx(&spec).with_context(|| format!("{name} on {}", node.name()))
}

/// Ends a task at once.
fn end(node: &Node, guest: Guest) -> Result<()> {
    node.ctl(&["detach", "--force", guest.name()]).map(drop)
}

/// What the observer's name server says of a name.
fn addresses(observer: &Task, name: &str) -> Result<BTreeSet<Ipv4Addr>> {
    let server = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 11), 53));
    Ok(observer.inside(|| resolve(server, name, SOON))??.into_iter().collect())
}

/// Waits until every observer resolves every task, and reaches it by its name's address.
fn resolved_and_reached(observers: &[Task], tasks: &[&str]) -> Result<()> {
    for observer in observers {
        wait("names to resolve and tasks to be reached", PATIENTLY, || {
            let all = addresses(observer, "tasks.web.prod")?;
            ensure!(all.len() == tasks.len(), "tasks.web is {all:?}, {tasks:?} run");
            for task in tasks {
                let found = addresses(observer, &format!("{task}.prod"))?;
                let address = found.first().filter(|_| found.len() == 1);
                let address = *address.with_context(|| format!("{task} is {found:?}"))?;
                let answer = observer.inside(|| get(SocketAddr::from((address, 80)), SOON))??;
                ensure!(answer.starts_with(&format!("{task} ")), "{task} answers {answer}");
            }
            Ok(())
        })
        .with_context(|| observer.name().to_owned())?;
    }
    Ok(())
}

/// The megabytes that all daemons have for themselves, and the processor time that they have used.
fn used(cluster: &Cluster) -> Result<(u64, Duration)> {
    let (mut memory, mut time) = (0, Duration::ZERO);
    for node in cluster.nodes() {
        let file = |name: &str| -> Result<String> {
            let path = format!("/proc/{}/{name}", node.pid()?);
            std::fs::read_to_string(&path).with_context(|| path.clone())
        };
        let rollup = file("smaps_rollup")?;
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        let kilobytes = |line: &str| line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        memory += private.filter_map(kilobytes).sum::<u64>();
        let stat = file("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
        time += Duration::from_millis((ticks(11) + ticks(12)) * 10);
    }
    Ok((memory / 1024, time))
}

fn starts_and_ends_are_known_everywhere(cluster: &Cluster) -> Result<[Guest; 2]> {
    let (first, second) = (serve(&cluster[5], "web5")?, serve(&cluster[45], "web45")?);
    let third = serve(&cluster[20], "web20")?;
    let start = Instant::now();
    known_on(cluster, cluster.nodes(), &["web5", "web45", "web20"])?;
    println!("three tasks met on {NODES} nodes {:?} after the last was attached", start.elapsed());
    end(&cluster[20], third)?;
    let start = Instant::now();
    known_on(cluster, cluster.nodes(), &["web5", "web45"])?;
    println!("the end of one known on {NODES} nodes within {:?}", start.elapsed());
    Ok([first, second])
}

/// Both sides change meanwhile. Tells what runs afterwards.
fn a_third_is_cut_off(
    cluster: &Cluster,
    observers: &[Task],
    [first, second]: [Guest; 2],
) -> Result<Vec<Guest>> {
    let mut cut = CUT..cluster.nodes().len();
    cluster.net().strand(cut.clone())?;
    let start = Instant::now();
    known_on(cluster, &cluster.nodes()[..3], &["web5"])?;
    println!("three nodes do without the lost ones {:?} after the cut", start.elapsed());
    let alone = &cluster[CUT];
    let own = || answering(&cluster.net().nodes()[CUT], port(alone), &["web45"].into());
    wait("the other side to do without the rest", PATIENTLY, own)?;
    let late = serve(&cluster[7], "web7")?;
    // The node has had a task on the network: it has addresses of its own.
    let far = serve(&cluster[45], "far45")?;
    end(&cluster[5], first)?;
    sleep(CUT_FOR.saturating_sub(start.elapsed()));
    cut.try_for_each(|node| cluster.net().heal(node))?;
    let start = Instant::now();
    let now = ["web7", "web45", "far45"];
    known_on(cluster, cluster.nodes(), &now)?;
    println!("all {NODES} nodes know what runs on the others {:?} after healing", start.elapsed());
    resolved_and_reached(observers, &now)?;
    println!("every name resolves and every task is reached {:?} after healing", start.elapsed());
    cluster.wait_for_members(cluster.nodes().len())?;
    Ok(vec![second, late, far])
}

fn load(cluster: &Cluster) -> Result<Load> {
    let servers = cluster.nodes().iter().step_by(7).map(port).collect();
    Load::start(&cluster.net().client().path(), servers, 10, REQUEST)
}

fn every_daemon_is_restarted(cluster: &Cluster) -> Result<()> {
    let (load, start) = (load(cluster)?, Instant::now());
    for some in cluster.nodes().chunks(RESTARTED) {
        some.iter().try_for_each(Node::stop)?;
        cluster.start_daemons(some)?;
    }
    cluster.wait_for_members(cluster.nodes().len())?;
    let outcome = load.end();
    println!("{NODES} daemons restarted within {:?} under {} requests", start.elapsed(), outcome.requests);
    outcome.none_failed()
}

fn keys_are_replaced(cluster: &Cluster, runs: &[&str]) -> Result<()> {
    let keys = || -> Result<(u64, bool)> {
        let keys = cluster[0].ctl_json(&["cluster", "inspect"])?[0]["gossip_keys"].clone();
        let since = keys["since"].as_u64().with_context(|| format!("no time: {keys}"))?;
        Ok((since, keys["phase"] == "settled" && keys["urgent"] == false))
    };
    let (load, start, (before, _)) = (load(cluster)?, Instant::now(), keys()?);
    // It is told in seconds.
    sleep(Duration::from_millis(1100));
    cluster[0].ctl(&["cluster", "rotate-gossip-keys"])?;
    let mut turns = 0;
    loop {
        let (since, settled) = keys()?;
        if settled && since > before {
            break;
        }
        ensure!(start.elapsed() < PATIENTLY * 3, "the key has not been replaced");
        turns += 1;
        // Whatever key is the first: what starts is known, far from where it starts.
        let node = &cluster[turns * 11 % cluster.nodes().len()];
        let name = format!("turn{turns}");
        let task = serve(node, &name)?;
        let nodes = [cluster.nodes().len() - 1 - turns % 40, turns % 40];
        let all: Vec<&str> = runs.iter().copied().chain([name.as_str()]).collect();
        for index in nodes {
            known_on(cluster, &cluster.nodes()[index..=index], &all)?;
        }
        // Not at once: what it is just answering is to be answered.
        node.ctl(&["detach", task.name()])?;
    }
    println!("the gossip key replaced within {:?}, {turns} tasks came and went", start.elapsed());
    known_on(cluster, cluster.nodes(), runs)?;
    cluster.wait_for_members(cluster.nodes().len())?;
    load.end().none_failed()
}

#[test]
fn fifty_nodes() -> Result<()> {
    let start = Instant::now();
    run_many(NODES, |cluster| {
        println!("{NODES} nodes formed a cluster within {:?}", start.elapsed());
        cluster[0].ctl(&["network", "create", "--subnet", "10.20.0.0/20", "--attachable", "prod"])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let observe = |index: usize| {
            let name = format!("observer{index}");
            cluster[index].run_idle(&TaskSpec { name: &name, network: "prod", ..TaskSpec::default() })
        };
        let observers = [observe(0)?, observe(CUT + 3)?];
        let ran = starts_and_ends_are_known_everywhere(cluster)?;
        let (memory, before) = used(cluster)?;
        println!("{NODES} daemons have {memory} MB and have used {before:?} of processor");
        let _runs = a_third_is_cut_off(cluster, &observers, ran)?;
        println!("{:?} of processor since", used(cluster)?.1.saturating_sub(before));
        every_daemon_is_restarted(cluster)?;
        let runs = ["web7", "web45", "far45"];
        known_on(cluster, cluster.nodes(), &runs)?;
        resolved_and_reached(&observers, &runs)?;
        keys_are_replaced(cluster, &runs)?;
        println!("all within {:?}", start.elapsed());
        Ok(())
    })
}
