//! Networks with both families: tasks have an address of each, reach each other, services, the world and nodes by both;
//! published ports are open for both, and the task sees the client's address. A network of IPv6 alone works as well.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, OUTSIDE, OUTSIDE6, Task, TaskSpec, Wire, curl, get, output, run_on, wait};

const SOON: Duration = Duration::from_secs(5);
const BOTH: Wire = Wire { v4: true, v6: true, mtu: 1500, second: false };

fn task<'a>(name: &'a str, network: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network, service, ..TaskSpec::default() }
}

fn create(cluster: &Cluster) -> Result<()> {
    let words =
        ["network", "create", "--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64", "--attachable", "prod"];
    cluster[0].ctl(&words)?;
    cluster[0].ctl(&["network", "create", "--subnet", "fd00:6::/64", "--attachable", "six"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster[0].ctl(&["service", "create", "--network", "six", "--publish", "8086:80", "web6"])?;
    cluster.wait_for_view()
}

/// A server's URL.
fn url(address: impl Into<IpAddr>, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(address.into(), port))
}

/// Serves `port` of a task whose nginx listens on IPv4 alone: passes IPv6 connections on, saying who asked.
fn serve6(task: &Task) -> Result<()> {
    let listener = task.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)))?;
    let listener = listener.with_context(|| format!("port 80 of {} for IPv6", task.name()))?;
    let name = task.name().to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let body = format!("{name} {}\n", from.ip().to_canonical());
            let mut request = [0; 1024];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    Ok(())
}

/// A task that answers on port 80 of both families with its name and the client's address.
fn web(cluster: &Cluster, node: usize, spec: &TaskSpec<'_>) -> Result<Task> {
    let task = cluster[node].run_idle(spec)?;
    serve6(&task)?;
    Ok(task)
}

fn address6(task: &Task) -> Result<Ipv6Addr> {
    let found =
        task.addresses()?.into_iter().find_map(|a| if let IpAddr::V6(a) = a { Some(a) } else { None });
    found.with_context(|| format!("task {} has no IPv6 address", task.name()))
}

fn expect(what: &str, expected: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    wait(what, SOON, || {
        let body = ask()?;
        ensure!(body == expected, "{body} instead of {expected}");
        Ok(())
    })
}

fn inside(task: &Task, url: &str) -> Result<String> {
    curl(task.command("curl")?, url)
}

fn ping(task: &Task, address: impl Into<IpAddr>) -> Result<()> {
    let address = address.into();
    let words = ["-c2", "-i0.2", "-W1", "-n", "-q", &address.to_string()];
    wait("a ping", SOON, || output(task.command("ping")?.args(words)).map(drop))
        .with_context(|| address.to_string())
}

fn between_tasks(asker: &Task, web: &Task) -> Result<()> {
    let (own4, own6) = (asker.address()?, address6(asker)?);
    let (at4, at6) = (web.address()?, address6(web)?);
    ping(asker, at4)?;
    ping(asker, at6)?;
    expect("the task over IPv4", &format!("{} {own4}", web.name()), || inside(asker, &url(at4, 80)))?;
    expect("the task over IPv6", &format!("{} {own6}", web.name()), || inside(asker, &url(at6, 80)))?;
    // The gateways answer, and names lead to both families.
    ping(asker, Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 1))?;
    let name = web.name();
    wait("the task's name", SOON, || {
        ensure!(asker.dig(&["A", name])? == [at4.to_string()], "{:?}", asker.dig(&["A", name])?);
        ensure!(asker.dig(&["AAAA", name])? == [at6.to_string()], "{:?}", asker.dig(&["AAAA", name])?);
        Ok(())
    })?;
    for (family, own) in [("-4", IpAddr::from(own4)), ("-6", own6.into())] {
        let ask = || {
            output(asker.command("curl")?.args(["-s", "-m3", family, "http://web/"]))
                .map(|b| b.trim().to_owned())
        };
        expect("the VIP", &format!("{name} {own}"), ask).with_context(|| format!("curl {family}"))?;
    }
    // Its own service, by the VIP: it speaks to itself as the gateway does.
    let ask =
        || output(web.command("curl")?.args(["-s", "-m3", "-6", "http://web/"])).map(|b| b.trim().to_owned());
    expect("its own service", &format!("{name} fd00:3::1"), ask)
}

fn from_outside(cluster: &Cluster, client: &NetNs, name: &str, port: u16, with_v4: bool) -> Result<()> {
    let net = cluster.net();
    for node in 0..net.nodes().len() {
        let ask6 = || curl(client.command("curl")?, &url(net.address6(node), port));
        let expected = format!("{name} {}", net.client_address6());
        expect("a published port over IPv6", &expected, ask6)
            .with_context(|| format!("node {node}, port {port}"))?;
        if with_v4 {
            let ask4 = || curl(client.command("curl")?, &url(net.address(node), port));
            expect("a published port over IPv4", &format!("{name} {}", net.client_address()), ask4)?;
        }
        if !with_v4 {
            continue;
        }
        // The node's own sockets: by its addresses and by localhost.
        let own = &net.nodes()[node];
        let by = |url: String| move || curl(own.command("curl")?, &url);
        for url in [url(net.address6(node), port), url(Ipv6Addr::LOCALHOST, port)] {
            let body =
                wait("the port from the node itself", SOON, by(url.clone())).with_context(|| url.clone())?;
            ensure!(body.starts_with(name), "{url}: {body}");
        }
    }
    Ok(())
}

fn to_the_world(cluster: &Cluster, asker: &Task) -> Result<()> {
    let hub = cluster.net().hub();
    for (outside, node) in [
        (IpAddr::from(OUTSIDE), IpAddr::from(cluster.net().address(0))),
        (OUTSIDE6.into(), cluster.net().address6(0).into()),
    ] {
        let server = hub.run(move || TcpListener::bind((outside, 9000)))?.context("port 9000")?;
        let connect = || {
            asker
                .inside(move || TcpStream::connect_timeout(&(outside, 9000).into(), SOON))?
                .context("connect")
        };
        wait("the way out", SOON, connect).with_context(|| outside.to_string())?;
        let (_, from) = server.accept().context("accept")?;
        ensure!(from.ip() == node, "the world sees {from}, not {node}");
        // A node's own port, of this node and of the other.
        for index in [0, 1] {
            let address: IpAddr = match outside {
                IpAddr::V4(_) => cluster.net().address(index).into(),
                IpAddr::V6(_) => cluster.net().address6(index).into(),
            };
            let listener = cluster.net().nodes()[index].run(move || TcpListener::bind((address, 9001)))?;
            let _listener = listener.context("port 9001")?;
            let to = SocketAddr::new(address, 9001);
            let reach = || asker.inside(move || TcpStream::connect_timeout(&to, SOON))?.context("connect");
            wait("a node's port", SOON, reach).with_context(|| to.to_string())?;
        }
    }
    Ok(())
}

#[test]
fn both_families_do_all_that_one_does() -> Result<()> {
    run_on(BOTH, 2, |cluster| {
        create(cluster)?;
        let web1 = web(cluster, 1, &task("web1", "prod", Some("web")))?;
        let asker = cluster[0].run_idle(&task("asker", "prod", None))?;
        between_tasks(&asker, &web1)?;
        from_outside(cluster, cluster.net().client(), "web1", 8080, true)?;
        to_the_world(cluster, &asker)?;
        // A task reaches a published port by the addresses of nodes.
        for node in [0, 1] {
            for address in [IpAddr::from(cluster.net().address(node)), cluster.net().address6(node).into()] {
                let ask = || inside(&asker, &url(address, 8080));
                let body =
                    wait("a published port from a task", SOON, ask).with_context(|| address.to_string())?;
                ensure!(body.starts_with("web1 "), "{address}: {body}");
            }
        }
        // UDP as well.
        let echo = web1.inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9)))?.context("port 9")?;
        let _echo = mesh_tests::UdpEcho::serve(echo, "web1")?;
        let server = SocketAddr::from((address6(&web1)?, 9));
        let ask = || -> Result<String> {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("a socket")?;
            Ok(mesh_tests::UdpEcho::ask(&socket, server, "hello")?.0)
        };
        expect("UDP over IPv6", "web1", || asker.inside(ask)?)?;

        // A static address of each family; ones that are taken are refused.
        let (four, six) = ("10.10.3.77", "fd00:3::77");
        let words = ["run", "--network", "prod", "--name", "fixed", "--ip", four, "--ip6", six];
        let options = ["--ip", four, "--ip6", six];
        let spec = TaskSpec { name: "fixed", network: "prod", service: None, options: &options };
        let fixed = cluster[1].run_idle(&spec)?;
        ensure!(fixed.addresses()? == [four.parse::<IpAddr>()?, six.parse()?], "{:?}", fixed.addresses()?);
        let refusal =
            cluster[0].refused(&[&words[..7], &["--ip", "10.10.3.78", "--ip6", six, "--", "true"]].concat());
        ensure!(refusal.is_ok_and(|r| r.message.contains(six)), "a taken address was given away");
        ping(&asker, six.parse::<Ipv6Addr>()?)?;

        // IPv6 alone.
        let web6 = web(cluster, 0, &task("web6", "six", Some("web6")))?;
        ensure!(web6.addresses()?.len() == 1, "{:?}", web6.addresses()?);
        from_outside(cluster, cluster.net().client(), "web6", 8086, false)?;
        let closed = cluster.net().client().run({
            let to = SocketAddr::from((cluster.net().address(0), 8086));
            move || get(to, Duration::from_secs(1))
        })?;
        ensure!(closed.is_err(), "a port of a network without IPv4 is open for IPv4: {closed:?}");
        Ok(())
    })
}

#[test]
fn tasks_of_both_families_survive_a_restart_and_leave_nothing() -> Result<()> {
    run_on(BOTH, 2, |cluster| {
        create(cluster)?;
        let before = [cluster[0].links()?, cluster[1].links()?];
        {
            let web1 = web(cluster, 1, &task("web1", "prod", Some("web")))?;
            let asker = cluster[0].run_idle(&task("asker", "prod", None))?;
            between_tasks(&asker, &web1)?;
            for node in cluster.nodes() {
                node.kill()?;
            }
            let own6 = address6(&asker)?;
            expect("the task with no daemon", &format!("web1 {own6}"), || {
                inside(&asker, &url(address6(&web1)?, 80))
            })?;
            for node in cluster.nodes() {
                node.start()?;
            }
            between_tasks(&asker, &web1)?;
        }
        for (node, before) in cluster.nodes().iter().zip(before) {
            wait("links and routes to be gone", SOON, || {
                ensure!(node.links()? == before, "{:?}", node.links()?);
                let routes = output(node.command("ip")?.args(["-6", "route", "show", "table", "all"]))?;
                ensure!(!routes.contains("fd6d:6573:6864::"), "{routes}");
                Ok(())
            })?;
        }
        Ok(())
    })
}
