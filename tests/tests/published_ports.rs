//! SWARM's acceptance 1 and 2: a published port is served by every node, on every address and on localhost, over TCP
//! and UDP; connections spread evenly over the tasks, and each task sees the client's own address.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Cluster, NetNs, Tally, TaskSpec, UdpEcho, Wire, connect_from, curl, get, get_on, run, run_on, wait,
};

const SOON: Duration = Duration::from_secs(5);

fn task(name: &str) -> TaskSpec<'_> {
    TaskSpec { name, network: "prod", service: Some("web"), ..TaskSpec::default() }
}

fn publish(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--subnet",
        "10.10.3.0/24",
        "--subnet",
        "fd00:3::/64",
        "--attachable",
        "prod",
    ])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    cluster[0].ctl(&["publish", "8080:80", "web"])?;
    cluster[0].ctl(&["publish", "9000:9001/udp", "web"])?;
    cluster.wait_for_view()
}

/// Asks from the network namespace at `from`, each time with a new socket.
fn ask(from: &std::path::Path, server: SocketAddr) -> Result<(String, IpAddr)> {
    let socket = NetNs::run_at(from, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("a socket")?;
    UdpEcho::ask(&socket, server, "hello")
}

#[test]
fn every_node_serves_a_published_port() -> Result<()> {
    run(3, |cluster| {
        publish(cluster)?;
        let web = cluster[1].run_nginx(&task("web1"))?;
        let _udp = web.task.serve_udp(9001)?;
        let client = cluster.net().client();
        let client_address = IpAddr::V4(cluster.net().client_address());
        for node in cluster.nodes() {
            let (name, address) = (node.name(), node.address());
            let url = format!("http://{address}:8080/");
            let body = wait("the port on every node", SOON, || curl(client.command("curl")?, &url))?;
            ensure!(body == format!("web1 {client_address}"), "{name} from outside: {body}");
            let answer = wait("UDP from outside", SOON, || ask(&client.path(), (address, 9000).into()))?;
            ensure!(answer == ("web1".to_owned(), client_address), "{name}, UDP from outside: {answer:?}");
        }
        for node in cluster.nodes() {
            let name = node.name();
            let inside = &cluster.net().nodes()[node.index()];
            let own = node.address().to_string();
            let other = cluster[(node.index() + 1) % 3].address().to_string();
            for host in ["localhost", "127.0.0.1", &own, &other] {
                let url = format!("http://{host}:8080/");
                let body = curl(node.command("curl")?, &url).with_context(|| format!("{name}: {url}"))?;
                ensure!(body.starts_with("web1 "), "{name}: {url}: {body}");
            }
            for host in [Ipv4Addr::LOCALHOST, node.address()] {
                let answer = ask(&inside.path(), (host, 9000).into());
                let (who, _) = answer.with_context(|| format!("{name}: UDP on {host}"))?;
                ensure!(who == "web1", "{name}: UDP on {host}: {who}");
            }
        }
        Ok(())
    })
}

#[test]
fn connections_spread_evenly_and_show_the_client() -> Result<()> {
    run(3, |cluster| {
        publish(cluster)?;
        let names = ["web1", "web2", "web3"];
        let mut tasks = Vec::new();
        for (node, name) in cluster.nodes().iter().zip(names) {
            tasks.push(node.run_nginx(&task(name))?);
        }
        let servers: Vec<SocketAddr> = cluster.nodes().iter().map(|n| (n.address(), 8080).into()).collect();
        let client = cluster.net().client();
        let all_there = || {
            for &server in &servers {
                let mut tally = Tally::default();
                for _ in 0..30 {
                    tally.count(&client.run(|| get(server, SOON))??);
                }
                ensure!(tally.0.len() == names.len(), "{server} knows {tally:?}");
            }
            Ok(())
        };
        wait("every node to know all tasks", SOON, all_there)?;
        // A line is written once its request is over, and it is over to the client before.
        let count = || tasks.iter().map(|task| task.clients().len()).sum::<usize>();
        let before = wait("the logs to come to rest", SOON, || {
            let before = count();
            std::thread::sleep(Duration::from_millis(300));
            ensure!(count() == before, "requests are still being logged");
            Ok(before)
        })?;
        let tally = client.run(|| -> Result<Tally> {
            let mut tally = Tally::default();
            for server in servers.iter().cycle().take(1000) {
                tally.count(&get(*server, SOON)?);
            }
            Ok(tally)
        })??;
        tally.spread_evenly(names.len(), 0.2)?;
        let address = cluster.net().client_address().to_string();
        for answer in tally.0.keys() {
            ensure!(answer.ends_with(&format!(" {address}")), "a task saw another client: {answer}");
        }
        let logged = wait("the logs", SOON, || {
            let logged: Vec<String> = tasks.iter().flat_map(mesh_tests::Nginx::clients).collect();
            ensure!(logged.len() == before + 1000, "{} requests in the logs, {before} before", logged.len());
            Ok(logged)
        })?;
        ensure!(logged.iter().all(|client| *client == address), "a log names another client: {logged:?}");
        Ok(())
    })
}

/// What one client may do with its ports: the same one through every node to the same task at once, and again soon.
#[test]
fn one_source_port_through_every_node() -> Result<()> {
    run(3, |cluster| {
        publish(cluster)?;
        let _web = cluster[1].run_nginx(&task("web1"))?;
        let servers: Vec<SocketAddrV4> =
            cluster.nodes().iter().map(|n| SocketAddrV4::new(n.address(), 8080)).collect();
        let address = cluster.net().client_address();
        let client = cluster.net().client();
        for &server in &servers {
            wait("the published port", SOON, || client.run(|| get(server.into(), SOON))?)?;
        }
        client.run(|| -> Result<()> {
            for round in 1..=3 {
                for port in 40_000..40_020 {
                    let what = || format!("round {round}, port {port}");
                    let source = SocketAddrV4::new(address, port);
                    let streams = servers.iter().map(|&server| connect_from(source, server, SOON));
                    for stream in streams.collect::<Result<Vec<_>>>().with_context(what)? {
                        let body = get_on(stream, SOON).with_context(what)?;
                        ensure!(body == format!("web1 {address}"), "{}: {body}", what());
                    }
                }
                // Longer than the task's kernel tells an old connection from a new one by its time stamps.
                std::thread::sleep(Duration::from_millis(1100));
            }
            Ok(())
        })?
    })
}

/// The same by IPv6, with all three connections there at a time.
#[test]
fn one_source_port_through_every_node_by_ipv6() -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 3, |cluster| {
        publish(cluster)?;
        let (net, address) = (cluster.net(), cluster.net().client_address6());
        let _web = cluster[1].attach_greeter(&task("web1"), 80)?;
        let servers = [0, 1, 2].map(|node| SocketAddr::from((net.address6(node), 8080)));
        let greeted = |source: u16, server: SocketAddr| -> Result<BufReader<_>> {
            let stream = connect_from(SocketAddr::from((address, source)), server, SOON)?;
            stream.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
            let (mut stream, mut greeting) = (BufReader::new(stream), String::new());
            stream.read_line(&mut greeting).with_context(|| format!("a greeting through {server}"))?;
            ensure!(greeting.trim() == format!("web1 {address}"), "through {server}: {greeting:?}");
            Ok(stream)
        };
        for server in servers {
            wait("the published port", SOON, || net.client().run(|| greeted(0, server))?)?;
        }
        net.client().run(|| -> Result<()> {
            for port in 40_000..40_020 {
                let streams = servers.iter().map(|&server| greeted(port, server));
                streams.collect::<Result<Vec<_>>>().with_context(|| format!("port {port}"))?;
            }
            Ok(())
        })?
    })
}
