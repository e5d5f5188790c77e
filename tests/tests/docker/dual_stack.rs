//! Containers of Docker's with addresses of both families, by hand and by Compose.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Busybox, Cluster, Docker, NetNs, Wire, output, run_on, wait};

use super::{SLEEP, SOON, curl, kernel, nothing_is_left, wait_for_tasks};

/// Busybox' httpd listens on both families.
const WEB: &[&str] = &["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p [::]:80 -h /tmp"];

/// What people gave their containers while Docker's switching IPv6 off took ours along.
const IPV6_ON: [&str; 2] = ["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"];

const FILE: &str = r#"
services:
  web:
    image: IMAGE
    command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p [::]:80 -h /tmp']
    stop_grace_period: 1s
    labels: { mesh.service: shop, mesh.publish: "8080:80" }
    ports: ["9090:80", "127.0.0.1:9091:80"]
    networks: { front: { aliases: [counter] } }
networks:
  front:
    driver: mesh
    enable_ipv6: true
    driver_opts: { network: shop }
    ipam:
      driver: mesh
      options: { network: shop }
      config: [{ subnet: 10.20.3.0/24 }, { subnet: "fd00:20:3::/64" }]
"#;

fn engines(cluster: &Cluster) -> Result<Vec<Docker>> {
    let image = Busybox::make(&cluster.net().prefix().folder())?;
    cluster.nodes().iter().map(|node| Docker::start(node, &image)).collect()
}

/// What Docker shows as a container's addresses, IPv4 first.
fn shown(engine: &Docker, container: &str) -> Result<[String; 2]> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
    let told = engine.run(&["inspect", "--format", format, container])?;
    let (v4, v6) = told.split_once(' ').with_context(|| format!("{container} has {told:?}"))?;
    ensure!(!v6.is_empty(), "{container} has no IPv6 address: {told:?}");
    Ok([v4.to_owned(), v6.to_owned()])
}

/// Docker's addresses are those inside, and there is a way to elsewhere in both families.
fn has_both(engine: &Docker, container: &str) -> Result<[String; 2]> {
    let told = shown(engine, container)?;
    wait(&format!("both addresses of {container}"), SOON, || {
        let inside = engine.exec(container, &["ip", "addr", "show", "mesh0"])?;
        ensure!(
            told.iter().all(|address| inside.contains(&format!(" {address}/"))),
            "{told:?}, inside {inside}"
        );
        for family in ["-4", "-6"] {
            let routes = engine.exec(container, &["ip", family, "route"])?;
            ensure!(routes.contains("default via"), "{routes}");
        }
        Ok(())
    })?;
    Ok(told)
}

fn urls(cluster: &Cluster, node: usize, port: u16) -> [String; 2] {
    let net = cluster.net();
    [format!("http://{}:{port}/", net.address(node)), format!("http://[{}]:{port}/", net.address6(node))]
}

fn answers(from: &NetNs, url: &str, who: &str) -> Result<()> {
    wait(&format!("an answer at {url}"), SOON, || {
        let told = curl(from, url)?;
        ensure!(told == who, "{told} answers, not {who}");
        Ok(())
    })
}

/// The port of the routing mesh on both nodes, and the ports of the first one alone, in both families.
fn serves(cluster: &Cluster, who: &str) -> Result<()> {
    let client = cluster.net().client();
    for (node, port) in [(0, 8080), (1, 8080), (0, 9090)] {
        for url in urls(cluster, node, port) {
            answers(client, &url, who)?;
        }
    }
    answers(&cluster.net().nodes()[0], "http://[::1]:9091/", who)
}

fn wire() -> Wire {
    Wire { v6: true, ..Wire::default() }
}

#[test]
fn containers_have_both_families() -> Result<()> {
    run_on(wire(), 2, |cluster| {
        cluster[0].ctl(&[
            "network",
            "create",
            "--subnet",
            "10.10.3.0/24",
            "--subnet",
            "fd00:3::/64",
            "--attachable",
            "prod",
        ])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
        cluster.wait_for_view()?;
        let engines = engines(cluster)?;
        let (one, two) = (&engines[0], &engines[1]);
        let mesh = ["network", "create", "--driver", "mesh", "--opt", "network=prod"];
        let ours = ["--ipam-driver", "mesh", "--ipam-opt", "network=prod", "--ipv6"];
        // As `--subnet` tells Docker, and without: it asks for what there is.
        let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
        one.run(&[&mesh[..], &ours, &subnets, &["prod"]].concat())?;
        two.run(&[&mesh[..], &ours, &["prod"]].concat())?;
        let before = kernel(cluster)?;
        let words = ["--network", "prod", "--label", "mesh.service=web", "--label", "mesh.publish=8080:80"];
        let ports = ["--publish", "9090:80", "--publish", "[::1]:9091:80"];
        let fixed = ["--ip", "10.10.3.70", "--ip6", "fd00:3::70"];
        one.container("web1", &[&words[..], &ports, &fixed].concat(), WEB)?;
        two.container("client", &["--network", "prod"], SLEEP)?;
        two.container("switched", &[&["--network", "prod"], &IPV6_ON[..]].concat(), SLEEP)?;
        wait_for_tasks(&cluster[0], &["client", "switched", "web1"])?;
        for (engine, name) in [(one, "web1"), (two, "client"), (two, "switched")] {
            has_both(engine, name)?;
        }
        ensure!(shown(one, "web1")? == ["10.10.3.70", "fd00:3::70"], "{:?}", shown(one, "web1")?);

        let who = one.exec("web1", &["hostname"])?;
        serves(cluster, &who)?;
        // A container that runs joins it, and one that Docker stops and starts has it anew.
        two.container("late", &["--network", "none"], SLEEP)?;
        two.run(&["network", "disconnect", "none", "late"])?;
        two.run(&["network", "connect", "prod", "late"])?;
        has_both(two, "late")?;
        one.run(&["restart", "--time", "1", "web1"])?;
        has_both(one, "web1")?;
        serves(cluster, &who)?;
        // By name, from a container on the other node, in both families.
        let inside = two.namespace("client")?;
        for (kind, address) in [("a", "10.10.3.70"), ("aaaa", "fd00:3::70")] {
            wait("the name in both families", SOON, || {
                let told = two.exec("client", &["nslookup", &format!("-type={kind}"), "web1"])?;
                ensure!(told.contains(address), "{told}");
                Ok(())
            })?;
        }
        for url in ["http://10.10.3.70/", "http://[fd00:3::70]/"] {
            let ask = |path: &Path| -> Result<String> {
                Ok(output(NetNs::command_at(path, "curl")?.args(["-gsS", "--max-time", "3", url]))?
                    .trim()
                    .to_owned())
            };
            wait("the container of the other node", SOON, || {
                let told = ask(&inside)?;
                ensure!(told == who, "{told} answers at {url}");
                Ok(())
            })?;
        }
        one.run(&["rm", "--force", "web1"])?;
        two.run(&["rm", "--force", "client", "switched", "late"])?;
        cluster[0].ctl(&["unpublish", "8080", "web"])?;
        wait_for_tasks(&cluster[0], &[])?;
        nothing_is_left(cluster, &before)
    })
}

#[test]
fn a_project_brings_its_network_and_service() -> Result<()> {
    run_on(wire(), 1, |cluster| {
        let engines = engines(cluster)?;
        let (engine, node) = (&engines[0], &cluster[0]);
        let file = FILE.replace("IMAGE", Busybox::NAME);
        engine.write_project("own", &file)?;
        let path = engine.project("own").display().to_string();
        node.ctl(&["apply", "--compose", &path])?;
        let again = node.ctl(&["apply", "--compose", &path])?;
        ensure!(again.contains("nothing"), "the second time it changes something: {again}");
        cluster.wait_for_view()?;
        engine.compose("own", &["up", "-d"])?;
        wait_for_tasks(node, &["own_web_1"])?;
        let [v4, v6] = has_both(engine, "own_web_1")?;
        ensure!(v4.starts_with("10.20.3.") && v6.starts_with("fd00:20:3:"), "{v4} {v6}");
        let who = engine.exec("own_web_1", &["hostname"])?;
        let (client, own) = (cluster.net().client(), &cluster.net().nodes()[0]);
        for port in [8080, 9090] {
            for url in urls(cluster, 0, port) {
                answers(client, &url, &who)?;
            }
        }
        answers(own, "http://127.0.0.1:9091/", &who)?;
        ensure!(curl(client, &urls(cluster, 0, 9091)[0]).is_err(), "a port of localhost is open outside");
        engine.compose("own", &["down", "--timeout", "1"])?;
        wait_for_tasks(node, &[])
    })
}
