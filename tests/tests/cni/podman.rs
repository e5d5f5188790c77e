//! Debian's Podman with CNI for its networks, on two nodes.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Busybox, Inventory, NetNs, Node, Podman, UdpEcho, get, run, wait};
use serde_json::{Value, json};

use crate::{SOON, answer, no_tasks, prepare, serving};

fn configure(podman: &Podman, node: &Node, network: &str) -> Result<()> {
    let all = json!({"portMappings": true, "ips": true, "mac": true, "aliases": true, "dns": true});
    let list = json!({
        "cniVersion": "1.0.0", "name": network,
        "plugins": [
            {"type": "mesh-cni", "network": network, "socket": node.socket(), "capabilities": all},
            {"type": "tuning"},
        ],
    });
    podman.folders().write(&format!("/etc/cni/net.d/{network}.conflist"), &list.to_string())
}

/// What `podman inspect` says of a container's place on a network.
fn place(podman: &Podman, container: &str, network: &str) -> Result<Value> {
    let text = podman.podman(&["inspect", container])?;
    let told: Value = serde_json::from_str(&text).context("what podman prints")?;
    Ok(told[0]["NetworkSettings"]["Networks"][network].clone())
}

#[test]
fn containers_have_what_podman_asks_for() -> Result<()> {
    run(2, |cluster| {
        prepare(cluster)?;
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.4.0/24", "--attachable", "back"])?;
        cluster.wait_for_view()?;
        let image = Busybox::make(&cluster.net().prefix().folder())?;
        let mut engines = Vec::new();
        for node in cluster.nodes() {
            let podman = Podman::on(node, &image)?;
            configure(&podman, node, "prod")?;
            configure(&podman, node, "back")?;
            engines.push(podman);
        }
        let before = Inventory::settled(cluster)?;
        let [here, there] = engines.as_slice() else { anyhow::bail!("two engines") };

        let program = serving("hello");
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        let mac = "02:11:22:33:44:55";
        let words = [
            "--network",
            "prod",
            "--ip",
            "10.10.3.50",
            "--mac-address",
            mac,
            "--network-alias",
            "www",
            "--publish",
            "8081:80",
            "--publish",
            "8053:53/udp",
        ];
        here.run("web1", &words, &program)?;
        let told = place(here, "web1", "prod")?;
        ensure!(told["IPAddress"] == "10.10.3.50" && told["MacAddress"] == mac, "{told}");
        ensure!(told["Gateway"] == "10.10.3.1", "{told}");
        let resolv_conf = here.exec("web1", &["cat", "/etc/resolv.conf"])?;
        ensure!(resolv_conf.contains("nameserver 127.0.0.11"), "{resolv_conf}");

        // The port is this node's alone, and the names are everybody's on the network.
        let client = cluster.net().client();
        ensure!(answer((cluster[0].address(), 8081).into(), client)? == "hello", "another answer");
        there.run("peer", &["--network", "prod"], &["sleep", "1000"])?;
        for name in ["web1", "www"] {
            wait("a name on the other node", SOON, || {
                let told = there.exec("peer", &["nslookup", "-type=a", name])?;
                ensure!(told.contains("10.10.3.50"), "{told}");
                Ok(())
            })?;
        }
        let pid = there.podman(&["inspect", "--format", "{{.State.Pid}}", "peer"])?;
        let inside = std::path::PathBuf::from(format!("/proc/{}/ns/net", pid.trim()));
        let ask = || NetNs::run_at(&inside, || get(([10, 10, 3, 50], 80).into(), Duration::from_secs(2)))?;
        ensure!(wait("the container on the other node", SOON, ask)? == "hello", "another answer");

        let pid = here.podman(&["inspect", "--format", "{{.State.Pid}}", "web1"])?;
        let container = std::path::PathBuf::from(format!("/proc/{}/ns/net", pid.trim()));
        let echo = UdpEcho::serve(NetNs::run_at(&container, || UdpSocket::bind("10.10.3.50:53"))??, "web1")?;
        let (who, _) = wait("a datagram to come back", SOON, || {
            let socket = client.run(|| UdpSocket::bind("0.0.0.0:0"))??;
            UdpEcho::ask(&socket, (cluster[0].address(), 8053).into(), "hello")
        })?;
        ensure!(who == "web1", "{who} answers");
        drop(echo);

        // A second network, while it runs.
        here.podman(&["network", "connect", "back", "web1"])?;
        let told = place(here, "web1", "back")?;
        ensure!(told["IPAddress"].as_str().is_some_and(|a| a.starts_with("10.10.4.")), "{told}");
        here.podman(&["network", "disconnect", "back", "web1"])?;
        ensure!(answer((cluster[0].address(), 8081).into(), client)? == "hello", "another answer");

        // Again with the same address, in whatever way it ended.
        here.podman(&["restart", "--time", "0", "web1"])?;
        ensure!(answer((cluster[0].address(), 8081).into(), client)? == "hello", "another answer");
        here.podman(&["kill", "web1"])?;
        wait("Podman to see the end", SOON, || here.podman(&["wait", "web1"]))?;
        no_tasks(&cluster[0])?;
        here.podman(&["start", "web1"])?;
        ensure!(answer((cluster[0].address(), 8081).into(), client)? == "hello", "another answer");

        here.podman(&["rm", "--force", "--time", "0", "web1"])?;

        // On two networks from the start: Podman gives the port to each of them, one opens it.
        here.run("web2", &["--network", "prod,back", "--publish", "8082:80"], &program)?;
        for (network, subnet) in [("prod", "10.10.3."), ("back", "10.10.4.")] {
            let told = place(here, "web2", network)?;
            ensure!(told["IPAddress"].as_str().is_some_and(|a| a.starts_with(subnet)), "{told}");
        }
        ensure!(answer((cluster[0].address(), 8082).into(), client)? == "hello", "another answer");
        here.podman(&["rm", "--force", "--time", "0", "web2"])?;
        no_tasks(&cluster[0])?;

        // What cannot be done is told in words.
        configure(here, &cluster[0], "nothing")?;
        let Err(error) = here.run("lost", &["--network", "nothing"], &["sleep", "1000"]) else {
            anyhow::bail!("a container runs on a network that is not there")
        };
        let told = format!("{error:#}");
        ensure!(
            told.contains("no such network: nothing") && told.contains("meshctl network create"),
            "{told}"
        );

        there.podman(&["rm", "--force", "--time", "0", "peer"])?;
        cluster.nodes().iter().try_for_each(no_tasks)?;
        wait("everything to be as before", SOON, || {
            for (node, before) in cluster.nodes().iter().zip(&before) {
                let difference = before.difference(&Inventory::of(node)?);
                ensure!(difference.is_empty(), "{}: {difference}", node.name());
            }
            Ok(())
        })
    })
}
