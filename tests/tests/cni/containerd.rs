//! Debian's containerd on two nodes, with `ctr run --cni`.

use anyhow::{Context, Result, ensure};
use mesh_tests::{Busybox, Cluster, Containerd, Inventory, Node, get, run, wait};
use serde_json::json;

use crate::{SOON, answer, no_tasks, prepare, serving};

/// A chain of four; `ctr` gives no capabilities and no arguments.
fn configure(containerd: &Containerd, node: &Node) -> Result<()> {
    let list = json!({
        "cniVersion": "1.0.0", "name": "prod",
        "plugins": [
            {
                "type": "mesh-cni", "network": "prod", "service": "web", "publish": ["8080:80"],
                "socket": node.socket(),
            },
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "511"}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "ingressRate": 1_000_000_000, "ingressBurst": 100_000_000},
        ],
    });
    containerd.folders().write("/etc/cni/net.d/10-prod.conflist", &list.to_string())
}

#[test]
fn containers_of_two_nodes_are_one_service() -> Result<()> {
    run(2, |cluster| {
        prepare(cluster)?;
        let image = Busybox::make(&cluster.net().prefix().folder())?;
        let mut engines = Vec::new();
        for node in cluster.nodes() {
            let engine = Containerd::start(node, &image)?;
            configure(&engine, node)?;
            engines.push(engine);
        }
        // The first one opens the port, on the manager; it is the service's and stays.
        told(cluster, &engines)?;
        let before = Inventory::settled(cluster)?;
        told(cluster, &engines)?;
        wait("everything to be as before", SOON, || {
            for (node, before) in cluster.nodes().iter().zip(&before) {
                let difference = before.difference(&Inventory::of(node)?);
                ensure!(difference.is_empty(), "{}: {difference}", node.name());
            }
            Ok(())
        })
    })
}

fn told(cluster: &Cluster, engines: &[Containerd]) -> Result<()> {
    let mut running = Vec::new();
    for (engine, name) in engines.iter().zip(["c1", "c2"]) {
        let program = serving(name);
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        running.push(engine.run(name, &program)?);
        // The next node has to be told that the port is open.
        for node in cluster.nodes() {
            wait("a node to know of the port", SOON, || {
                let service = node.ctl(&["service", "inspect", "web"])?;
                ensure!(service.contains("8080"), "{}: {service}", node.name());
                Ok(())
            })?;
        }
    }
    let both = |from: &str, ask: &dyn Fn() -> Result<String>| {
        let mut seen = std::collections::BTreeSet::new();
        wait(&format!("answers of both containers, {from}"), SOON, || {
            seen.insert(ask()?);
            ensure!(seen.len() == 2, "only {seen:?}");
            Ok(())
        })
    };
    for node in cluster.nodes() {
        let server = (node.address(), 8080).into();
        both("from outside", &|| answer(server, cluster.net().client()))?;
    }
    // From one container the other, by the service's name and address.
    let vip = wait("the service's name in a container", SOON, || {
        let told = engines[0].exec("c1", &["nslookup", "-type=a", "web", "127.0.0.11"])?;
        let address = told.lines().rev().find_map(|line| line.strip_prefix("Address: "));
        address.with_context(|| told.clone())?.trim().parse::<std::net::IpAddr>().context("an address")
    })?;
    let inside = engines[0].namespace("c1")?;
    both("from a container", &|| {
        mesh_tests::NetNs::run_at(&inside, || get((vip, 80).into(), std::time::Duration::from_secs(2)))?
    })?;
    // What the plugins behind ours have done.
    let limit = engines[0].exec("c1", &["cat", "/proc/sys/net/core/somaxconn"])?;
    ensure!(limit.trim() == "511", "somaxconn is {limit}");
    for ((engine, name), mut process) in engines.iter().zip(["c1", "c2"]).zip(running) {
        engine.kill(name)?;
        // It ends when the network is gone.
        process.wait(SOON)?;
    }
    cluster.nodes().iter().try_for_each(no_tasks)
}
