//! How much fails when something is lost, at 75 requests a second with a connection each: of a killed task what is in
//! flight, of a lost node what comes until the others know.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, Load, NetNs, Task, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(5);
const RATE: u32 = 75;
/// 100 ms are promised of a killed task, and 3 s of a lost node; the rest is for a busy machine.
const TASK: Duration = Duration::from_millis(1500);
const NODE: Duration = Duration::from_secs(6);

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster.wait_for_view()
}

fn spec<'a>(name: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service, ..TaskSpec::default() }
}

/// Loads from outside, through the first two nodes, and from a task, to the VIP.
fn loads(cluster: &Cluster, observer: &Task, at_most: Duration) -> Result<[(&'static str, Load); 2]> {
    let servers: Vec<SocketAddr> =
        cluster.nodes().iter().take(2).map(|n| (n.address(), 8080).into()).collect();
    let (client, inside) = (cluster.net().client().path(), observer.namespace());
    let vip = wait("the VIP", SOON, || observer.dig(&["web"])?.first().cloned().context("no address"))?;
    let vip: SocketAddr = format!("{vip}:80").parse().context("the VIP")?;
    for (from, server) in [(&client, servers[0]), (&client, servers[1]), (&inside, vip)] {
        wait("the service", SOON, || NetNs::run_at(from, || get(server, SOON))?)?;
    }
    Ok([
        ("published", Load::start(&client, servers, RATE, at_most)?),
        ("VIP", Load::start(&inside, vec![vip], RATE, at_most)?),
    ])
}

/// Ends the loads; what fails after `event` is begun within `at_most`.
fn judge(loads: [(&'static str, Load); 2], what: &str, event: Instant, at_most: Duration) -> Result<()> {
    for (load, outcome) in loads.map(|(name, load)| (name, load.end())) {
        let last = outcome.failing_after(event);
        let (failed, of) = (outcome.failures.len(), outcome.requests);
        println!("{what}, {load}: {failed} of {of} failed, the last begun {last:?} after");
        let why: Vec<&str> = outcome.failures.iter().rev().take(3).map(|f| f.why.as_str()).collect();
        ensure!(last <= at_most, "{what}, {load}: {failed} of {of}, the last begun {last:?} after: {why:?}");
        let early = outcome.failures.iter().filter(|f| f.began + 2 * SOON < event).count();
        ensure!(early == 0, "{what}, {load}: {early} failed long before");
    }
    Ok(())
}

#[test]
fn of_a_killed_task_only_what_is_in_flight() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let observer = cluster[2].run_idle(&spec("observer", None))?;
        let _stay: Vec<Guest> = (["stay1", "stay2"].iter().zip(cluster.nodes()))
            .map(|(name, node)| node.attach_nginx(&spec(name, Some("web"))))
            .collect::<Result<_>>()?;
        for (turn, node) in [1, 2, 0].into_iter().enumerate() {
            let name = format!("killed{turn}");
            let mut task = cluster[node].run_nginx(&spec(&name, Some("web")))?;
            std::thread::sleep(Duration::from_millis(700));
            let loads = loads(cluster, &observer, Duration::from_secs(3))?;
            std::thread::sleep(Duration::from_millis(700));
            let event = Instant::now();
            task.task.kill()?;
            std::thread::sleep(2 * TASK);
            judge(loads, &format!("a task of node {node}"), event, TASK)?;
        }
        Ok(())
    })
}

#[test]
fn of_a_lost_node_what_comes_until_the_others_know() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let observer = cluster[0].run_idle(&spec("observer", None))?;
        let _tasks: Vec<Guest> = (["web1", "web2", "web3"].iter().zip(cluster.nodes()))
            .map(|(name, node)| node.attach_nginx(&spec(name, Some("web"))))
            .collect::<Result<_>>()?;
        std::thread::sleep(Duration::from_secs(1));
        let loads = loads(cluster, &observer, Duration::from_secs(1))?;
        std::thread::sleep(Duration::from_secs(1));
        let event = Instant::now();
        cluster.net().cut(2)?;
        cluster[2].kill()?;
        std::thread::sleep(NODE + Duration::from_secs(1));
        judge(loads, "a node", event, NODE)
    })
}
