//! A node that is given up: its tasks leave their services and keep what they are doing, no new ones are attached; and
//! it takes up again where it stopped. A drain goes on across a restart of the daemon.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(5);

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    let words =
        ["service", "create", "--network", "prod", "--publish", "8080:80", "--drain-timeout", "40s", "web"];
    cluster[0].ctl(&words)?;
    cluster.wait_for_view()
}

/// Who answers on a published port, over 30 connections.
fn answering(cluster: &Cluster, node: usize) -> Result<BTreeSet<String>> {
    let server = SocketAddr::from((cluster.net().address(node), 8080));
    let ask = move || (0..30).map(|_| get(server, Duration::from_secs(1))).collect::<Result<Vec<_>>>();
    let bodies = cluster.net().client().run(ask)??;
    Ok(bodies.iter().filter_map(|body| body.split(' ').next()).map(str::to_owned).collect())
}

fn expect(cluster: &Cluster, names: &[&str]) -> Result<()> {
    wait("the right tasks to answer", 2 * SOON, || {
        for node in [0, 1] {
            let found = answering(cluster, node)?;
            ensure!(found.iter().eq(names), "through node {node}: {found:?}");
        }
        Ok(())
    })
}

/// Ends a request that was begun; who answers it.
fn finish(mut stream: TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
    stream.write_all(b"Connection: close\r\n\r\n").context("the other half")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer to a request that was begun before the drain")?;
    let body = answer.split("\r\n\r\n").nth(1).context("no body")?;
    Ok(body.split(' ').next().unwrap_or_default().to_owned())
}

fn state(cluster: &Cluster, task: &str) -> Result<String> {
    let tasks = cluster[0].ctl_json(&["task", "ls"])?;
    let tasks = tasks.as_array().context("`task ls` is no list")?;
    let found =
        tasks.iter().find(|t| t["name"] == task).with_context(|| format!("no {task} in {tasks:?}"))?;
    Ok(found["state"].as_str().unwrap_or_default().to_lowercase())
}

/// Waits until the first node knows the task to be in that state.
fn is(cluster: &Cluster, task: &str, wanted: &str) -> Result<()> {
    wait("the task's state", 2 * SOON, || {
        let now = state(cluster, task)?;
        ensure!(now == wanted, "{task} is {now}");
        Ok(())
    })
}

#[test]
fn a_node_is_drained_and_comes_back() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let spec = |name: &'static str| TaskSpec {
            name,
            network: "prod",
            service: Some("web"),
            ..TaskSpec::default()
        };
        let _one = cluster[0].run_nginx(&spec("web1"))?;
        let _two = cluster[1].run_nginx(&spec("web2"))?;
        expect(cluster, &["web1", "web2"])?;
        // A connection to the second node's task that has only begun its request.
        let server = SocketAddr::from((cluster.net().address(0), 8080));
        let open = move || TcpStream::connect_timeout(&server, SOON);
        let mut held = Vec::new();
        for _ in 0..16 {
            let mut stream = cluster.net().client().run(open)?.context("connect")?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n").context("half a request")?;
            held.push(stream);
        }
        // The flows are established once both sides have spoken.
        std::thread::sleep(Duration::from_millis(300));

        cluster[0].ctl(&["node", "update", "n2", "--availability", "drain"])?;
        expect(cluster, &["web1"])?;
        is(cluster, "web2", "draining")?;
        let refusal = cluster[1].refused(&["run", "--network", "prod", "--name", "late", "--", "true"])?;
        ensure!(refusal.message.contains("drain"), "{refusal:?}");
        let mut served = BTreeSet::new();
        let idle = held.split_off(held.len() - 4);
        for stream in held {
            served.insert(finish(stream)?);
        }
        ensure!(served.contains("web2"), "no connection was with web2: {served:?}");
        // It goes on draining after a restart. What is idle meanwhile may be cut, if the machine is so slow that the others
        // count the node as dead.
        cluster[1].kill()?;
        cluster[1].start()?;
        expect(cluster, &["web1"])?;
        wait("the task to be known again", 2 * SOON, || {
            let now = state(cluster, "web2")?;
            ensure!(["draining", "drained"].contains(&now.as_str()), "{now}");
            Ok(())
        })?;
        drop(idle);
        wait("the end of the drain", 10 * SOON, || {
            let state = state(cluster, "web2")?;
            ensure!(state == "drained", "{state}");
            Ok(())
        })?;
        expect(cluster, &["web1"])?;

        cluster[0].ctl(&["node", "update", "n2", "--availability", "active"])?;
        expect(cluster, &["web1", "web2"])?;
        is(cluster, "web2", "ready")?;
        // A node that only takes no more tasks keeps what it has.
        cluster[0].ctl(&["node", "update", "n2", "--availability", "pause"])?;
        wait("an attach to be refused", SOON, || {
            cluster[1].refused(&["run", "--network", "prod", "--name", "late", "--", "true"]).map(drop)
        })?;
        expect(cluster, &["web1", "web2"])
    })
}
