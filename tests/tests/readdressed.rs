//! A node whose address changes, as by DHCP, is followed: a worker, one of three managers, the only manager.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Node, Task, TaskSpec, curl, run, wait};

const SOON: Duration = Duration::from_secs(60);
const GATEWAY: &str = "192.168.77.1";

/// Gives a node another address, `192.168.77.LAST`.
fn readdress(cluster: &Cluster, index: usize, from: &str, to: &str) -> Result<()> {
    cluster.net().nodes()[index].ip(&format!(
        "addr del {from}/24 dev eth0\naddr add {to}/24 dev eth0\nroute replace default via {GATEWAY}"
    ))
}

/// Waits until `node` knows `of` at this address, and hears it.
fn knows(node: &Node, of: &str, address: &str) -> Result<()> {
    wait("the address to be known", SOON, || {
        let listed = node.ctl_json(&["node", "ls"])?;
        let found = listed.as_array().context("`node ls` is no list")?.iter().find(|n| n["name"] == of);
        let found = found.with_context(|| format!("no {of}: {listed}"))?;
        ensure!(found["advertise_addr"] == address && found["status"] == "ready", "{}: {found}", node.name());
        Ok(())
    })
}

fn task<'a>(name: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service, options: &[] }
}

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster.wait_for_view()
}

/// A task is seen by all, and reached from all by the published port.
fn works(cluster: &Cluster, asker: &Task, web: &str) -> Result<()> {
    let url = "http://web/";
    wait("the service", SOON, || {
        let body = curl(asker.command("curl")?, url)?;
        ensure!(body.starts_with(web), "{body}");
        Ok(())
    })?;
    for node in cluster.nodes() {
        wait("all nodes to be ready", SOON, || {
            let listed = node.ctl_json(&["node", "ls"])?;
            let nodes = listed.as_array().context("`node ls` is no list")?;
            ensure!(nodes.iter().all(|n| n["status"] == "ready"), "{}: {listed}", node.name());
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_worker_and_the_only_manager_are_followed() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let web = cluster[2].run_nginx(&task("web1", Some("web")))?;
        let asker = cluster[1].run_idle(&task("asker", None))?;
        works(cluster, &asker, "web1")?;

        // Under a running daemon.
        readdress(cluster, 2, "192.168.77.13", "192.168.77.113")?;
        for node in cluster.nodes() {
            knows(node, "n3", "192.168.77.113")?;
        }
        works(cluster, &asker, "web1")?;
        // While none runs.
        cluster[2].kill()?;
        readdress(cluster, 2, "192.168.77.113", "192.168.77.213")?;
        cluster[2].start()?;
        for node in cluster.nodes() {
            knows(node, "n3", "192.168.77.213")?;
        }
        works(cluster, &asker, "web1")?;

        // The only manager, of whom the others hear by gossip.
        readdress(cluster, 0, "192.168.77.11", "192.168.77.111")?;
        for node in cluster.nodes() {
            knows(node, "n1", "192.168.77.111")?;
        }
        wait("changes", SOON, || cluster[0].ctl(&["network", "create", "later"]).map(drop))?;
        for node in cluster.nodes() {
            wait("the others to follow it", SOON, || {
                let networks = node.ctl(&["network", "ls"])?;
                ensure!(networks.contains("later"), "{}: {networks}", node.name());
                Ok(())
            })?;
        }
        works(cluster, &asker, "web1")?;
        cluster[0].stop()?;
        readdress(cluster, 0, "192.168.77.111", "192.168.77.211")?;
        cluster[0].start()?;
        for node in cluster.nodes() {
            knows(node, "n1", "192.168.77.211")?;
        }
        works(cluster, &asker, "web1")?;
        drop(web);
        Ok(())
    })
}

#[test]
fn managers_among_three_are_followed() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        for name in ["n2", "n3"] {
            cluster[0].ctl(&["node", "promote", name])?;
        }
        let voting = |node: &Node| {
            wait("three managers", SOON, || {
                let listed = node.ctl_json(&["node", "ls"])?;
                let nodes = listed.as_array().context("`node ls` is no list")?;
                let reachable = nodes
                    .iter()
                    .filter(|n| n["manager_status"] == "leader" || n["manager_status"] == "reachable");
                ensure!(reachable.count() == 3, "{listed}");
                Ok(())
            })
        };
        voting(&cluster[0])?;
        // Each of them in turn, so that the leader is among them: the last one while its daemon is away.
        for index in 0..3 {
            let (old, new) = (format!("192.168.77.{}", 11 + index), format!("192.168.77.{}", 111 + index));
            if index == 2 {
                cluster[index].stop()?;
            }
            readdress(cluster, index, &old, &new)?;
            if index == 2 {
                cluster[index].start()?;
            }
            for node in cluster.nodes() {
                knows(node, &format!("n{}", index + 1), &new)?;
            }
            for node in cluster.nodes() {
                voting(node)?;
            }
        }
        for (index, node) in cluster.nodes().iter().enumerate() {
            let name = format!("net{index}");
            wait("a change", SOON, || node.ctl(&["network", "create", &name]).map(drop))?;
        }
        Ok(())
    })
}
