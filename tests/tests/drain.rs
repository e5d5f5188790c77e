//! SWARM's acceptance 6: every task of a service is replaced under load and no request fails, be it on a connection of
//! its own or on one that is kept. And a drain's bound: what has not ended by then is cut, wherever the client is.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, Load, NetNs, Talk, Task, TaskSpec, Wire, Wrk, get, run_on, wait};

const SOON: Duration = Duration::from_secs(5);
/// A request that takes longer has failed: a lost packet costs a second.
const REQUEST: Duration = Duration::from_secs(8);
const RATE: u32 = 75;

fn create(cluster: &Cluster) -> Result<()> {
    let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
    cluster[0].ctl(&[&["network", "create", "--attachable"], &subnets[..], &["prod"]].concat())?;
    let words = ["service", "create", "--network", "prod", "--publish", "8080:80", "--drain-timeout"];
    cluster[0].ctl(&[&words[..], &["20s", "web"]].concat())?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "7070:70", "talk"])?;
    cluster.wait_for_view()
}

fn spec<'a>(name: &'a str, service: &'a str) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service: Some(service), ..TaskSpec::default() }
}

fn observer(cluster: &Cluster, node: usize) -> Result<Task> {
    cluster[node].run_idle(&TaskSpec { name: "observer", network: "prod", ..TaskSpec::default() })
}

/// By `A` or `AAAA`.
fn vip(observer: &Task, service: &str, kind: &str, port: u16) -> Result<SocketAddr> {
    let found = wait("the VIP", SOON, || {
        observer.dig(&[service, kind])?.first().cloned().context("no address for the service")
    })?;
    Ok((found.parse::<IpAddr>().context("an address")?, port).into())
}

/// Waits until the service answers through `server`.
fn answers(from: &Path, server: SocketAddr) -> Result<()> {
    wait("the service", SOON, || NetNs::run_at(from, || get(server, SOON))?.map(drop))
}

#[test]
fn every_task_is_replaced_and_no_request_fails() -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 3, |cluster| {
        create(cluster)?;
        let observer = observer(cluster, 2)?;
        let mut tasks: Vec<Guest> = Vec::new();
        for (node, name) in cluster.nodes().iter().zip(["old1", "old2", "old3"]) {
            tasks.push(node.attach_nginx(&spec(name, "web"))?);
        }
        let servers: Vec<SocketAddr> =
            cluster.nodes().iter().map(|node| (node.address(), 8080).into()).collect();
        let (client, inside) = (cluster.net().client().path(), observer.namespace());
        let vip = vip(&observer, "web", "A", 80)?;
        for &server in &servers {
            answers(&client, server)?;
        }
        answers(&inside, vip)?;

        let loads = [
            ("published", Load::start(&client, servers, RATE, REQUEST)?),
            ("VIP", Load::start(&inside, vec![vip], RATE, REQUEST)?),
            (
                "host",
                Load::start(
                    &cluster.net().nodes()[0].path(),
                    vec![([127, 0, 0, 1], 8080).into()],
                    25,
                    REQUEST,
                )?,
            ),
        ];
        let url = format!("http://{}:8080/", cluster[0].address());
        let kept = [
            Wrk::start(&cluster[0], "published", &client, &url, 8)?,
            Wrk::start(&cluster[2], "vip", &inside, &format!("http://{vip}/"), 8)?,
        ];
        for (place, name) in ["new1", "new2", "new3"].into_iter().enumerate() {
            let node = &cluster[place];
            let new = node.attach_nginx(&spec(name, "web"))?;
            let mut old = std::mem::replace(&mut tasks[place], new);
            let start = Instant::now();
            node.ctl(&["task", "drain", "--wait", old.name()])?;
            println!("{} drained within {:?}", old.name(), start.elapsed());
            // Nothing is left that the others could lose.
            old.kill()?;
        }
        for load in kept {
            println!("{} requests on kept connections", load.end()?);
        }
        for (what, load) in loads {
            let outcome = load.end();
            println!("{what}: {} requests, {} failed", outcome.requests, outcome.failures.len());
            outcome.none_failed().context(what)?;
        }
        Ok(())
    })
}

/// A client that says something; what comes of a task that has ended is told within a second.
fn is_reset(mut talk: Talk, what: &str) -> Result<()> {
    let start = Instant::now();
    let said = talk.say("still there?");
    let took = start.elapsed();
    println!("{what}: {said:?} after {took:?}");
    let error = said.err().with_context(|| format!("{what}: goes on"))?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{what}: {error} after {took:?}");
    Ok(())
}

/// Connections that never end: from outside through another node and the own one, from a task to the VIP, from a node; by
/// both families.
fn talks(cluster: &Cluster, observer: &Task) -> Result<Vec<(&'static str, Talk)>> {
    let (net, client) = (cluster.net(), cluster.net().client());
    let mut talks = Vec::new();
    for (family, kind) in ["A", "AAAA"].into_iter().enumerate() {
        let published = |node: usize| {
            SocketAddr::from(([IpAddr::from(net.address(node)), net.address6(node).into()][family], 7070))
        };
        let localhost = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()][family];
        let from: [(&str, &NetNs, SocketAddr); 4] = [
            ("outside, through another node", client, published(0)),
            ("outside, through the task's node", client, published(1)),
            ("a socket of another node", &net.nodes()[0], (localhost, 7070).into()),
            ("a socket of the task's node", &net.nodes()[1], published(1)),
        ];
        for (what, namespace, server) in from {
            let open = || namespace.run(|| Talk::open(server, SOON))?;
            talks.push((what, wait("a connection", SOON, open).context(what)?));
        }
        let vip = vip(observer, "talk", kind, 70)?;
        talks.push(("a task", wait("a connection", SOON, || observer.inside(|| Talk::open(vip, SOON))?)?));
    }
    for (what, talk) in &mut talks {
        for word in ["one", "two"] {
            talk.say(word).with_context(|| what.to_owned())?;
        }
    }
    Ok(talks)
}

#[test]
fn a_connection_that_does_not_end_is_cut() -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 2, |cluster| {
        create(cluster)?;
        let observer = observer(cluster, 0)?;
        let old = cluster[1].attach_greeter(&spec("old", "talk"), 70)?;
        let mut held = talks(cluster, &observer)?;
        let _new = cluster[0].attach_greeter(&spec("new", "talk"), 70)?;
        let server = SocketAddr::from((cluster[1].address(), 7070));
        let open = || cluster.net().client().run(|| Talk::open(server, SOON))?;
        wait("the old task's node to know the new one", SOON, || {
            let talk = open()?;
            ensure!(talk.name == "new", "always {}", talk.name);
            Ok(())
        })?;

        cluster[1].ctl(&["task", "drain", "--timeout", "60s", "old"])?;
        for (what, talk) in &mut held {
            talk.say("while it drains").with_context(|| format!("{what}: cut too early"))?;
        }
        for _ in 0..8 {
            ensure!(open()?.name == "new", "a draining task was given a new connection");
        }
        let start = Instant::now();
        cluster[1].ctl(&["task", "drain", "--timeout", "1s", "--wait", "old"])?;
        ensure!(start.elapsed() < 6 * SOON, "the drain lasted {:?}", start.elapsed());
        for (what, talk) in held {
            is_reset(talk, what)?;
        }
        drop(old);
        Ok(())
    })
}
