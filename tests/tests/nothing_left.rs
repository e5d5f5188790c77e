//! Rounds of create, attach, publish and remove leave links, routes, namespaces, pins and map entries as they were;
//! leaving the cluster leaves nothing.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Inventory, NetNs, Node, TaskSpec, get, run, wait};

const SOON: Duration = Duration::from_secs(5);
const ROUNDS: usize = 20;

fn inventories(cluster: &Cluster) -> Result<Vec<Inventory>> {
    cluster.nodes().iter().map(Inventory::of).collect()
}

fn round(cluster: &Cluster, round: usize) -> Result<()> {
    let (network, service) = (format!("net{round}"), format!("web{round}"));
    let subnet = format!("10.10.{round}.0/24");
    let create = ["network", "create", "--driver", "overlay", "--subnet", &subnet, "--attachable", &network];
    cluster[0].ctl(&create)?;
    cluster[0].ctl(&["service", "create", "--network", &network, &service])?;
    cluster[0].ctl(&["publish", "8080:80", &service])?;
    cluster.wait_for_view()?;
    // Tasks end in order, with a drain or without.
    let options = ["--drain-timeout", if round.is_multiple_of(4) { "1s" } else { "0s" }];
    let spec = TaskSpec { name: "web", network: &network, service: Some(&service), options: &options };
    let web = cluster[round % 3].run_nginx(&spec)?;
    let guest = NetNs::create(&cluster.net().prefix().namespace("guest"))?;
    let path = guest.path();
    let host = &cluster[(round + 1) % 3];
    host.ctl(&["attach", "--network", &network, "--name", "guest", path.to_str().context("the path")?])?;
    for node in cluster.nodes() {
        let server = SocketAddr::from((node.address(), 8080));
        let client = cluster.net().client();
        wait("the published port", SOON, || client.run(|| get(server, Duration::from_secs(1)))?)?;
    }
    let server = SocketAddr::from((web.task.address()?, 80));
    wait("the guest to reach the task", SOON, || guest.run(|| get(server, Duration::from_secs(1)))?)?;
    let refusal = cluster[0].refused(&["network", "rm", &network])?;
    ensure!(refusal.message.contains(&service), "a network in use: {refusal:?}");
    host.ctl(&["detach", "guest"])?;
    drop(web);
    cluster[0].ctl(&["unpublish", "8080", &service])?;
    cluster[0].ctl(&["service", "rm", &service])?;
    wait("the network to be free", SOON, || cluster[0].ctl(&["network", "rm", &network])).map(drop)
}

#[test]
fn rounds_leave_nothing() -> Result<()> {
    run(3, |cluster| {
        // The first round makes what lasts, such as the record of each peer.
        round(cluster, 0)?;
        let before = Inventory::settled(cluster)?;
        for number in 1..=ROUNDS {
            round(cluster, number).with_context(|| format!("round {number}"))?;
        }
        wait("everything to be as before", SOON, || {
            for ((node, before), after) in cluster.nodes().iter().zip(&before).zip(inventories(cluster)?) {
                let difference = before.difference(&after);
                ensure!(difference.is_empty(), "{}: {difference}", node.name());
            }
            Ok(())
        })
    })
}

#[test]
fn leaving_removes_all() -> Result<()> {
    run(2, |cluster| {
        round(cluster, 0)?;
        for index in [1, 0] {
            let node = &cluster[index];
            let words: &[&str] = if index == 0 { &["leave", "--force"] } else { &["leave"] };
            node.ctl(words)?;
            gone(node)?;
            node.stop()?;
            gone(node)?;
            node.start()?;
        }
        // Both are as new: they form a cluster again.
        cluster.form()
    })
}

fn gone(node: &Node) -> Result<()> {
    wait("nothing to be there", SOON, || {
        let mut links = node.links()?;
        links.sort();
        ensure!(links == ["eth0", "lo"], "{} has links {links:?}", node.name());
        ensure!(node.pins().is_empty(), "{} has pins {:?}", node.name(), node.pins());
        let tables = mesh_tests::output(node.command("nft")?.args(["list", "tables"]))?;
        ensure!(!tables.contains("meshd"), "{} has tables {tables}", node.name());
        let hooks =
            mesh_tests::output(node.command("tc")?.args(["filter", "show", "dev", "eth0", "ingress"]))?;
        ensure!(hooks.trim().is_empty(), "{} has filters {hooks}", node.name());
        Ok(())
    })
}
