//! SWARM's acceptance 3: services on different overlays neither reach nor resolve each other, equal subnets on two
//! overlays work at once, `--internal` has no way out, and all else has.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Cluster, GATEWAY, GATEWAY6, Nginx, OUTSIDE, OUTSIDE6, StubDns, TaskSpec, Wire, get, run, run_on, wait,
};

const SOON: Duration = Duration::from_secs(5);
const A_WHILE: Duration = Duration::from_secs(1);

fn network(cluster: &Cluster, name: &str, subnet: &str, options: &[&str]) -> Result<()> {
    let words = ["network", "create", "--driver", "overlay", "--subnet", subnet];
    cluster[0].ctl(&[&words, options, &[name]].concat())?;
    cluster[0].ctl(&["service", "create", "--network", name, &format!("{name}-web")])?;
    cluster.wait_for_view()
}

fn nginx(cluster: &Cluster, node: usize, network: &str, name: &str) -> Result<Nginx> {
    let service = format!("{network}-web");
    cluster[node].run_nginx(&TaskSpec { name, network, service: Some(&service), ..TaskSpec::default() })
}

fn port_80(of: &Nginx) -> Result<SocketAddr> {
    Ok((of.task.address()?, 80).into())
}

fn reaches(from: &Nginx, to: SocketAddr, name: &str) -> Result<()> {
    let body = wait("one task to reach another", SOON, || from.task.inside(|| get(to, A_WHILE))?)?;
    ensure!(body.starts_with(&format!("{name} ")), "{} at {to} meets {body}", from.task.name());
    Ok(())
}

fn reaches_not(from: &Nginx, to: SocketAddr) -> Result<()> {
    let answer = from.task.inside(|| get(to, A_WHILE))?;
    ensure!(answer.is_err(), "{} at {to} meets {answer:?}", from.task.name());
    Ok(())
}

#[test]
fn networks_do_not_meet() -> Result<()> {
    run(3, |cluster| {
        network(cluster, "red", "10.10.3.0/24", &[])?;
        network(cluster, "blue", "10.10.3.0/24", &[])?;
        network(cluster, "green", "10.10.4.0/24", &[])?;
        let red = [nginx(cluster, 0, "red", "red1")?, nginx(cluster, 1, "red", "red2")?];
        let blue = [nginx(cluster, 0, "blue", "blue1")?, nginx(cluster, 1, "blue", "blue2")?];
        let green = [nginx(cluster, 0, "green", "green1")?, nginx(cluster, 2, "green", "green2")?];
        for (tasks, name) in [(&red, "red2"), (&blue, "blue2"), (&green, "green2")] {
            let [first, second] = tasks;
            reaches(first, port_80(second)?, name)?;
            reaches(second, port_80(first)?, first.task.name())?;
        }
        reaches_not(&red[0], port_80(&green[0])?)?;
        reaches_not(&red[0], port_80(&green[1])?)?;
        reaches_not(&green[1], port_80(&red[0])?)?;
        let outside = cluster.net().hub().run(|| UdpSocket::bind((GATEWAY, 53)))?.context("port 53")?;
        let _stub = StubDns::serve(outside, OUTSIDE)?;
        for (from, own, foreign) in [
            (&red[0], "red", ["blue", "green"]),
            (&blue[1], "blue", ["red", "green"]),
            (&green[0], "green", ["red", "blue"]),
        ] {
            for name in [format!("{own}-web"), format!("{own}1"), format!("tasks.{own}-web")] {
                wait("names of the own network", SOON, || {
                    let found = from.task.dig(&[&name])?;
                    ensure!(!found.is_empty(), "{} does not resolve {name}", from.task.name());
                    Ok(())
                })?;
            }
            for other in foreign {
                for name in [format!("{other}-web"), format!("{other}1"), format!("tasks.{other}-web")] {
                    // To this network it is a name like any other: somebody outside is asked, who knows all.
                    wait("an answer from outside", SOON, || {
                        let found = from.task.dig(&[&name])?;
                        ensure!(found == [OUTSIDE.to_string()], "{} finds {found:?}", from.task.name());
                        Ok(())
                    })
                    .with_context(|| name.clone())?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn internal_networks_have_no_way_out() -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 2, |cluster| {
        network(cluster, "open", "10.10.3.0/24", &["--subnet", "fd00:3::/64"])?;
        network(cluster, "closed", "10.10.4.0/24", &["--subnet", "fd00:4::/64", "--internal"])?;
        let open = nginx(cluster, 1, "open", "open1")?;
        let closed = [nginx(cluster, 0, "closed", "closed1")?, nginx(cluster, 1, "closed", "closed2")?];
        reaches(&closed[0], port_80(&closed[1])?, "closed2")?;
        let (net, any) = (cluster.net(), Ipv6Addr::UNSPECIFIED);
        let listener = net.hub().run(|| TcpListener::bind((any, 7000)))?.context("port 7000")?;
        let ways: [[IpAddr; 3]; 2] = [
            [OUTSIDE.into(), GATEWAY.into(), net.address(1).into()],
            [OUTSIDE6.into(), GATEWAY6.into(), net.address6(1).into()],
        ];
        for [outside, gateway, node] in ways {
            let connect = |to: IpAddr| move || TcpStream::connect_timeout(&(to, 7000).into(), A_WHILE);
            for to in [outside, gateway] {
                let stream = wait("the way out of an open network", SOON, || {
                    open.task.inside(connect(to))?.context("an open network has no way out")
                })?;
                let (_, seen) = listener.accept().context("accepting")?;
                ensure!(seen.ip().to_canonical() == node, "the world sees {seen}, not the task's node");
                drop(stream);
                for task in closed.iter().map(|nginx| &nginx.task) {
                    let reached = task.inside(connect(to))?;
                    ensure!(reached.is_err(), "an internal network has a way out to {to}");
                }
            }
        }
        Ok(())
    })
}
