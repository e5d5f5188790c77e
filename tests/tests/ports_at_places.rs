//! Where a published port is open: on nodes with a task only, at one address, on one interface; and that tasks reach it by
//! every node's address, their own service's and their own node's too. VIPs answer pings.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Cluster, Greeter, Guest, NetNs, Node, Talk, TaskSpec, UdpEcho, Wire, output, run_on, succeed, wait,
};

const SOON: Duration = Duration::from_secs(10);
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

/// A task of a service that greets on port 70.
fn greeter(node: &Node, name: &str, service: &str) -> Result<Guest> {
    node.attach_greeter(
        &TaskSpec { name, network: "prod", service: Some(service), ..TaskSpec::default() },
        70,
    )
}

/// Waits until the task `name` answers at `server`, three times in a row.
fn is_at(from: &Path, server: SocketAddr, name: &str) -> Result<()> {
    wait("the right task", 2 * SOON, || {
        for _ in 0..3 {
            let talk = NetNs::run_at(from, || Talk::open(server, SOON))??;
            ensure!(talk.name == name, "{server}: {}, not {name}", talk.name);
        }
        Ok(())
    })
    .with_context(|| format!("{server} from {}", from.display()))
}

/// Waits until nobody answers at `server`.
fn is_closed(from: &Path, server: SocketAddr) -> Result<()> {
    wait("a port to be closed", SOON, || {
        let opened = NetNs::run_at(from, || Talk::open(server, QUICK))?;
        ensure!(opened.is_err(), "{server} is open: {opened:?}");
        Ok(())
    })
}

#[test]
fn ports_are_where_they_were_asked_for() -> Result<()> {
    run_on(wire(), 2, |cluster| {
        let net = cluster.net();
        let (at, at6) = (format!("{}:7002:70", net.address(0)), format!("[{}]:7002:70", net.address6(1)));
        create(
            cluster,
            &[
                ("host", &["--publish", "published=7001,target=70,mode=host"]),
                ("one", &["--publish", &at, "--publish", &at6]),
                ("other", &["--publish", "eth0:7003:70"]),
                ("inner", &["--publish", "127.0.0.1:7004:70", "--publish", "[::1]:7004:70"]),
            ],
        )?;
        let _tasks = [
            greeter(&cluster[1], "host1", "host")?,
            greeter(&cluster[1], "one1", "one")?,
            greeter(&cluster[1], "other1", "other")?,
            greeter(&cluster[1], "inner1", "inner")?,
        ];
        let client = net.client().path();
        let v4 = |node: usize, port: u16| SocketAddr::from((net.address(node), port));
        let v6 = |node: usize, port: u16| SocketAddr::from((net.address6(node), port));

        // With a task on a node, and without.
        is_at(&client, v4(1, 7001), "host1")?;
        is_at(&client, v6(1, 7001), "host1")?;
        is_closed(&client, v4(0, 7001))?;
        let second = greeter(&cluster[0], "host0", "host")?;
        is_at(&client, v4(0, 7001), "host0")?;
        is_at(&client, v4(1, 7001), "host1")?;
        is_at(&net.nodes()[0].path(), (Ipv4Addr::LOCALHOST, 7001).into(), "host0")?;
        drop(second);
        is_closed(&client, v4(0, 7001))?;

        // At one address of each node, whose task is on the other one and on the same.
        is_at(&client, v4(0, 7002), "one1")?;
        is_at(&client, v6(1, 7002), "one1")?;
        is_closed(&client, v6(0, 7002))?;
        is_closed(&client, v4(1, 7002))?;
        // Another address of the node is the host's own.
        net.nodes()[0].ip("addr add 192.168.77.211/24 dev eth0")?;
        let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 168, 77, 211), 7002));
        is_closed(&client, elsewhere)?;
        let bind = move || TcpListener::bind(elsewhere);
        let host = net.nodes()[0].run(bind)?.context("a port of the host's own")?;
        Greeter::serve(host, "the-host");
        is_at(&client, elsewhere, "the-host")?;
        is_at(&client, v4(0, 7002), "one1").context("beside the host's own")?;

        // On an interface: all its addresses, those that come later too.
        for node in 0..2 {
            is_at(&client, v4(node, 7003), "other1")?;
            is_at(&client, v6(node, 7003), "other1")?;
        }
        is_at(&client, (elsewhere.ip(), 7003).into(), "other1")?;

        // At localhost of every node, and nowhere else: not even for who sends packets to a node that are for its loopback.
        for node in 0..2 {
            let inside = net.nodes()[node].path();
            is_at(&inside, (Ipv4Addr::LOCALHOST, 7004).into(), "inner1")?;
            is_at(&inside, (Ipv6Addr::LOCALHOST, 7004).into(), "inner1")?;
            is_closed(&inside, v4(node, 7004))?;
            is_closed(&client, v4(node, 7004))?;
            is_closed(&client, v6(node, 7004))?;
        }
        Ok(())
    })
}

/// Who answers a datagram at `server`.
fn echoes(from: &Path, server: SocketAddr) -> Result<String> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = NetNs::run_at(from, move || UdpSocket::bind((any, 0)))?.context("a socket")?;
    UdpEcho::ask(&socket, server, "hello").map(|(name, _)| name)
}

#[test]
fn tasks_reach_ports_of_their_own_service_and_node() -> Result<()> {
    run_on(wire(), 2, |cluster| {
        let net = cluster.net();
        create(cluster, &[("talk", &["--publish", "7070:70", "--publish", "9000:9001/udp"])])?;
        let served = greeter(&cluster[0], "served", "talk")?;
        let any = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9001));
        let _echo = UdpEcho::serve(served.namespace().run(any)?.context("port 9001")?, "served")?;
        let idle = |node: usize, name| {
            cluster[node].run_idle(&TaskSpec { name, network: "prod", ..TaskSpec::default() })
        };
        let (neighbour, stranger) = (idle(0, "neighbour")?, idle(1, "stranger")?);
        let found = wait("the VIPs", SOON, || {
            let found = output(neighbour.command("getent")?.args(["ahosts", "talk"]))?;
            let lines = found.lines().filter(|line| line.contains("STREAM"));
            let vips: Vec<IpAddr> =
                lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
            ensure!(vips.len() == 2, "{vips:?}");
            Ok(vips)
        })?;
        for (who, namespace) in [
            ("the service's own task", served.path()),
            ("a task beside it", neighbour.namespace()),
            ("a task of the other node", stranger.namespace()),
        ] {
            let mut ways: Vec<(IpAddr, u16, u16)> = found.iter().map(|vip| (*vip, 70, 9001)).collect();
            for node in 0..2 {
                ways.push((net.address(node).into(), 7070, 9000));
                ways.push((net.address6(node).into(), 7070, 9000));
            }
            for (address, tcp, udp) in ways {
                let what = || format!("{who}, by {address}");
                is_at(&namespace, (address, tcp).into(), "served").with_context(what)?;
                wait("a datagram's answer", SOON, || {
                    let name = echoes(&namespace, (address, udp).into())?;
                    ensure!(name == "served", "{name} answers");
                    Ok(())
                })
                .with_context(what)?;
            }
            // The data path answers for what is nobody's address.
            for address in &found {
                wait("a VIP to answer", SOON, || {
                    let mut ping = NetNs::command_at(&namespace, "ping")?;
                    succeed(ping.args(["-c1", "-W1", "-n", "-q", &address.to_string()]))
                })
                .with_context(|| format!("{who} pings {address}"))?;
            }
        }
        Ok(())
    })
}
