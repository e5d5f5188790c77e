//! Containers of Podman and containerd with addresses of both families.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Busybox, Cluster, CniPlugin, Containerd, Inventory, NetNs, Podman, Wire, get, run_on, wait,
};
use serde_json::{Value, json};

use crate::{SOON, answer, no_tasks};

const V4: &str = "10.10.3.50";
const V6: &str = "fd00:3::50";

fn on_both(story: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 2, |cluster| {
        let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
        cluster[0].ctl(&[&["network", "create"], &subnets[..], &["--attachable", "prod"]].concat())?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
        cluster.wait_for_view()?;
        story(cluster)
    })
}

/// Addresses of a node in both families, with a port.
fn servers(cluster: &Cluster, node: usize, port: u16) -> [SocketAddr; 2] {
    let net = cluster.net();
    [(net.address(node), port).into(), (net.address6(node), port).into()]
}

/// Busybox' httpd, which listens for both.
fn serving(text: &str) -> Vec<String> {
    let script = format!("echo {text} > /var/www/index.html; exec httpd -f -p [::]:80 -h /var/www");
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

#[test]
fn a_result_has_both() -> Result<()> {
    on_both(|cluster| {
        let node = &cluster[0];
        let container = NetNs::create(&cluster.net().prefix().namespace("c1"))?;
        let before = Inventory::settled(cluster)?.into_iter().next().context("a node")?;
        let runtime = json!({
            "capabilities": {"ips": true, "portMappings": true},
            "runtimeConfig": {
                "ips": [format!("{V4}/24"), format!("{V6}/64")],
                "portMappings": [
                    {"hostPort": 8081, "containerPort": 80},
                    {"hostPort": 8082, "containerPort": 80, "hostIP": "127.0.0.1"},
                    {"hostPort": 8082, "containerPort": 80, "hostIP": "::1"},
                ],
            },
        });
        let plugin = CniPlugin::mesh(node, "prod")?.with(runtime);
        let added = plugin.call("ADD", "c1", &container.path())?;
        let ips: Vec<&Value> = added["ips"].as_array().into_iter().flatten().collect();
        let expected = [("10.10.3.50/24", "10.10.3.1"), ("fd00:3::50/64", "fd00:3::1")];
        let told: Vec<_> = ips.iter().map(|ip| (ip["address"].as_str(), ip["gateway"].as_str())).collect();
        ensure!(told == expected.map(|(address, gateway)| (Some(address), Some(gateway))), "{added}");
        let ways: Vec<_> =
            added["routes"].as_array().into_iter().flatten().map(|r| r["dst"].as_str()).collect();
        ensure!(ways == [Some("0.0.0.0/0"), Some("::/0")], "{added}");
        ensure!(added["dns"]["nameservers"] == json!(["127.0.0.11"]), "{added}");
        plugin.with(json!({ "prevResult": added })).call("CHECK", "c1", &container.path())?;

        let listener = container.run(|| std::net::TcpListener::bind("[::]:80"))?.context("port 80")?;
        mesh_tests::Greeter::serve(listener, "c1");
        let inside = &cluster.net().nodes()[0];
        let client = cluster.net().client();
        let mut ways: Vec<_> = servers(cluster, 0, 8081).map(|server| (client, server)).to_vec();
        ways.push((inside, (Ipv4Addr::LOCALHOST, 8082).into()));
        ways.push((inside, (Ipv6Addr::LOCALHOST, 8082).into()));
        for (from, server) in ways {
            let talk = || Ok(from.run(|| mesh_tests::Talk::open(server, SOON))??.name);
            ensure!(wait("an answer", SOON, talk)? == "c1", "another one answers at {server}");
        }
        plugin.call("DEL", "c1", &container.path())?;
        no_tasks(node)?;
        wait("everything to be as before", SOON, || {
            let difference = before.difference(&Inventory::of(node)?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })
    })
}

#[test]
fn containers_of_podman_and_containerd() -> Result<()> {
    on_both(|cluster| {
        let image = Busybox::make(&cluster.net().prefix().folder())?;
        let (here, there) = (Podman::on(&cluster[0], &image)?, Containerd::start(&cluster[1], &image)?);
        let capabilities =
            json!({"portMappings": true, "ips": true, "mac": true, "aliases": true, "dns": true});
        let list = |node: &mesh_tests::Node, fields: Value| {
            let mut plugin = json!({"type": "mesh-cni", "network": "prod", "socket": node.socket()});
            if let (Some(plugin), Some(fields)) = (plugin.as_object_mut(), fields.as_object()) {
                plugin.extend(fields.clone());
            }
            json!({"cniVersion": "1.0.0", "name": "prod", "plugins": [plugin]}).to_string()
        };
        let file = "/etc/cni/net.d/10-prod.conflist";
        here.folders().write(file, &list(&cluster[0], json!({ "capabilities": capabilities })))?;
        // `ctr` says nothing of a container: what is wanted stands in the file.
        let fields = json!({"service": "web", "addresses": ["10.10.3.60", "fd00:3::60"]});
        there.folders().write(file, &list(&cluster[1], fields))?;
        cluster[0].ctl(&["publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;

        let program = serving("podman");
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        let words = [
            "--network",
            "prod",
            "--ip",
            V4,
            "--ip6",
            V6,
            "--publish",
            "8081:80",
            "--publish",
            "127.0.0.1:8082:80",
        ];
        here.run("p1", &words, &program)?;
        let told: Value =
            serde_json::from_str(&here.podman(&["inspect", "p1"])?).context("what podman prints")?;
        let place = &told[0]["NetworkSettings"]["Networks"]["prod"];
        ensure!(place["IPAddress"] == V4 && place["GlobalIPv6Address"] == V6, "{place}");
        let resolv_conf = here.exec("p1", &["cat", "/etc/resolv.conf"])?;
        ensure!(resolv_conf.contains("nameserver 127.0.0.11"), "{resolv_conf}");
        let program = serving("containerd");
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        let mut running = there.run("c1", &program)?;

        let client = cluster.net().client();
        for server in servers(cluster, 0, 8081) {
            ensure!(answer(server, client)? == "podman", "another one answers at {server}");
        }
        ensure!(
            answer(([127, 0, 0, 1], 8082).into(), &cluster.net().nodes()[0])? == "podman",
            "another answer"
        );
        for server in (0..2).flat_map(|node| servers(cluster, node, 8080)) {
            ensure!(answer(server, client)? == "containerd", "another one answers at {server}");
        }
        // Names and addresses, from the container on the other node.
        for (kind, address) in [("a", V4), ("aaaa", V6)] {
            wait("the name in both families", SOON, || {
                let told = there.exec("c1", &["nslookup", &format!("-type={kind}"), "p1", "127.0.0.11"])?;
                ensure!(told.contains(address), "{told}");
                Ok(())
            })?;
        }
        let inside: PathBuf = there.namespace("c1")?;
        for server in [format!("{V4}:80"), format!("[{V6}]:80")] {
            let server: SocketAddr = server.parse()?;
            let ask = || NetNs::run_at(&inside, || get(server, SOON))?;
            ensure!(
                wait("the container on the other node", SOON, ask)? == "podman",
                "another answer at {server}"
            );
        }
        there.kill("c1")?;
        running.wait(SOON)?;
        here.podman(&["rm", "--force", "--time", "0", "p1"])?;
        cluster.nodes().iter().try_for_each(no_tasks)
    })
}
