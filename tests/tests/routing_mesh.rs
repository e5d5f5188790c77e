//! What a published port can be asked for, and what holds for all of them: the client's address of both families on every
//! node, one client at one task, the own tasks first, shares by weight, ports of a
//! range; and replies that go straight to the client.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Greeter, Guest, Node, Talk, Tally, TaskSpec, Wire, output, run_on, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
const QUICK: Duration = Duration::from_millis(500);

fn wire() -> Wire {
    Wire { v6: true, ..Wire::default() }
}

fn create(cluster: &Cluster, services: &[(&str, &[&str])]) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--ipv6", "--attachable", "prod"])?;
    for (name, options) in services {
        cluster[0].ctl(&[&["service", "create", "--network", "prod"], *options, &[name]].concat())?;
    }
    cluster.wait_for_view()
}

/// A task of a service that greets on port 70, on a node.
fn greeter(node: &Node, name: &str, service: &str, options: &[&str]) -> Result<Guest> {
    node.attach_greeter(&TaskSpec { name, network: "prod", service: Some(service), options }, 70)
}

/// Opens a connection from outside.
fn open(cluster: &Cluster, server: SocketAddr, at_most: Duration) -> Result<Talk> {
    cluster.net().client().run(|| Talk::open(server, at_most))?
}

fn v4(cluster: &Cluster, node: usize, port: u16) -> SocketAddr {
    (cluster.net().address(node), port).into()
}

/// Who answers that many connections.
fn tally(cluster: &Cluster, server: SocketAddr, count: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..count {
        tally.count(&open(cluster, server, SOON)?.name);
    }
    Ok(tally)
}

/// Waits until exactly these tasks answer.
fn expect(cluster: &Cluster, server: SocketAddr, names: &[&str]) -> Result<()> {
    wait("the right tasks", 2 * SOON, || {
        let tally = tally(cluster, server, 24)?;
        ensure!(tally.0.keys().eq(names), "{server}: {tally:?}, not {names:?}");
        Ok(())
    })
}

#[test]
fn every_node_shows_the_client_of_both_families() -> Result<()> {
    run_on(wire(), 3, |cluster| {
        create(cluster, &[("talk", &["--publish", "7070:70", "--publish", "8000-8004:70-74"])])?;
        let guest = greeter(&cluster[1], "one", "talk", &[])?;
        for port in 71..=74 {
            let bind = move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
            Greeter::serve(guest.namespace().run(bind)?.context("a port")?, &format!("port{port}"));
        }
        let net = cluster.net();
        let client: [IpAddr; 2] = [net.client_address().into(), net.client_address6().into()];
        for node in 0..3 {
            let servers: [IpAddr; 2] = [net.address(node).into(), net.address6(node).into()];
            for (server, client) in servers.into_iter().zip(client) {
                let server = SocketAddr::from((server, 7070));
                let talk = wait("the port", SOON, || open(cluster, server, QUICK))
                    .with_context(|| format!("{server}"))?;
                ensure!(talk.client == client, "{server}: a task sees {}", talk.client);
            }
            // A range keeps its order.
            for port in 1..=4 {
                let talk = open(cluster, v4(cluster, node, 8000 + port), SOON)?;
                ensure!(talk.name == format!("port{}", 70 + port), "{port}: {}", talk.name);
            }
        }
        Ok(())
    })
}

#[test]
fn shares_are_as_asked_for() -> Result<()> {
    run_on(wire(), 2, |cluster| {
        create(
            cluster,
            &[
                ("sticky", &["--publish", "7001:70", "--affinity", "client-ip"]),
                ("near", &["--publish", "7002:70", "--prefer-local"]),
                ("weighted", &["--publish", "7003:70"]),
            ],
        )?;
        let mut tasks = Vec::new();
        for (place, node) in cluster.nodes().iter().enumerate() {
            for service in ["sticky", "near"] {
                tasks.push(greeter(node, &format!("{service}{place}"), service, &[])?);
            }
            let weight = ["1", "4"][place];
            tasks.push(greeter(node, &format!("weighted{place}"), "weighted", &["--weight", weight])?);
        }

        // One client is always with one task, through every node.
        wait("one task alone", 2 * SOON, || {
            let (first, second) =
                (tally(cluster, v4(cluster, 0, 7001), 24)?, tally(cluster, v4(cluster, 1, 7001), 24)?);
            ensure!(first.0.len() == 1 && first == second, "one client: {first:?} and {second:?}");
            Ok(())
        })?;

        expect(cluster, v4(cluster, 0, 7002), &["near0"])?;
        expect(cluster, v4(cluster, 1, 7002), &["near1"])?;
        cluster[1].ctl(&["detach", "--force", "near1"])?;
        expect(cluster, v4(cluster, 1, 7002), &["near0"])?;

        let weighted = |heavy: &str, light: &str| -> Result<()> {
            for node in 0..2 {
                let server = v4(cluster, node, 7003);
                let share = wait("shares by weight", 2 * SOON, || {
                    let tally = tally(cluster, server, 400)?;
                    let of = |name: &str| tally.0.get(name).copied().unwrap_or(0) as f64;
                    let share = of(heavy) / (of(heavy) + of(light));
                    // 0.8, and five times what chance makes of it.
                    ensure!((0.7..=0.9).contains(&share), "{heavy} has {share} of {tally:?}");
                    Ok(share)
                })?;
                println!(
                    "through node {node}: {share:.3} of the connections go to {heavy}, which has 4 of 5"
                );
            }
            Ok(())
        };
        weighted("weighted1", "weighted0")?;
        cluster[0].ctl(&["task", "update", "--weight", "16", "weighted0"])?;
        weighted("weighted0", "weighted1")
    })
}

/// Packets that a node's uplink sent.
fn sent(cluster: &Cluster, node: usize) -> Result<u64> {
    let mut command = cluster[node].command("ip")?;
    let text = output(command.args(["-json", "-s", "link", "show", "dev", "eth0"]))?;
    let links: Value = serde_json::from_str(&text).context("what ip prints")?;
    links[0]["stats64"]["tx"]["bytes"].as_u64().context("no counter")
}

/// Bytes that come back from a published port on the first node, whose task is on the second.
fn download(cluster: &Cluster, port: u16) -> Result<u64> {
    const BYTES: usize = 4 << 20;
    let server = v4(cluster, 0, port);
    let before = sent(cluster, 0)?;
    let read = move || -> Result<usize> {
        let mut stream = TcpStream::connect_timeout(&server, SOON).context("connect")?;
        stream.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes).context("reading")?;
        Ok(bytes.len())
    };
    wait("the port", SOON, || {
        let size = cluster.net().client().run(read)??;
        ensure!(size == BYTES, "{size} of {BYTES} bytes");
        Ok(())
    })?;
    Ok(sent(cluster, 0)? - before)
}

#[test]
fn direct_replies_do_not_pass_the_node_that_was_spoken_to() -> Result<()> {
    run_on(wire(), 2, |cluster| {
        let direct = ["--publish", "7001:70", "--publish", "published=7002,target=70,return=direct"];
        create(cluster, &[("bulk", &direct)])?;
        let spec = TaskSpec { name: "bulk1", network: "prod", service: Some("bulk"), ..TaskSpec::default() };
        let _guest = cluster[1].attach_guest(&spec, |namespace| {
            let listener = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 70)))?;
            let listener = listener.context("port 70")?;
            std::thread::spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = std::io::Write::write_all(&mut stream, &vec![7; 4 << 20]);
                }
            });
            Ok(None)
        })?;
        let through = download(cluster, 7001)?;
        let direct = download(cluster, 7002)?;
        println!("4 MiB down: the node in between sends {through} bytes, with direct replies {direct}");
        ensure!(through > 4 << 20, "replies went straight without being asked to: {through} bytes");
        ensure!(direct < 2 << 20, "replies came through: {direct} bytes");
        Ok(())
    })
}
