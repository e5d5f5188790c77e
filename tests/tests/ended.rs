//! What is left of a task that is gone without a word: TCP connections with it are reset, and UDP clients are given
//! another one, both at their next packet and wherever the client is. (SWARM's acceptance 11.)

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, NetNs, Talk, Task, TaskSpec, UdpEcho, run, wait};

const SOON: Duration = Duration::from_secs(5);
/// A second is what is promised; the rest is for a busy machine.
const MARGIN: Duration = Duration::from_secs(7);
const SECOND: Duration = Duration::from_secs(1);

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    let publish = ["--publish", "7070:70", "--publish", "9000:9001/udp"];
    cluster[0].ctl(&[&["service", "create", "--network", "prod"], &publish[..], &["talk"]].concat())?;
    cluster.wait_for_view()
}

fn greeter(cluster: &Cluster, node: usize, name: &str) -> Result<(Guest, UdpEcho)> {
    let spec = TaskSpec { name, network: "prod", service: Some("talk"), ..TaskSpec::default() };
    let guest = cluster[node].attach_greeter(&spec, 70)?;
    let socket = guest.namespace().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9001)))?;
    Ok((guest, UdpEcho::serve(socket.context("port 9001")?, name)?))
}

/// A place from which a service is spoken to: what it is called, its namespace, the address there and the ports.
struct Place {
    what: &'static str,
    namespace: PathBuf,
    server: IpAddr,
    tcp: u16,
    udp: u16,
}

/// Outside, through another node and the task's; sockets of both nodes; a task, by the VIP.
fn places(cluster: &Cluster, observer: &Task) -> Result<Vec<Place>> {
    let vip = wait("the VIP", SOON, || observer.dig(&["talk"])?.first().cloned().context("no address"))?;
    let (nodes, client) = (cluster.net().nodes(), cluster.net().client());
    let published = |what, namespace: &NetNs, server: Ipv4Addr| Place {
        what,
        namespace: namespace.path(),
        server: server.into(),
        tcp: 7070,
        udp: 9000,
    };
    let vip = Place {
        what: "a task",
        namespace: observer.namespace(),
        server: vip.parse().context("an address")?,
        tcp: 70,
        udp: 9001,
    };
    Ok(vec![
        published("outside, through another node", client, cluster[0].address()),
        published("outside, through the task's node", client, cluster[1].address()),
        published("a socket of another node", &nodes[0], Ipv4Addr::LOCALHOST),
        published("a socket of the task's node", &nodes[1], cluster[1].address()),
        vip,
    ])
}

/// Connections that stay open with the task `name`, after a few words.
fn talks<'a>(places: &'a [Place], name: &str) -> Result<Vec<(&'a str, Talk)>> {
    let open = |place: &Place| {
        let server = SocketAddr::from((place.server, place.tcp));
        let talk = NetNs::run_at(&place.namespace, || Talk::open(server, SOON))??;
        ensure!(talk.name == name, "still with {}", talk.name);
        Ok(talk)
    };
    let mut talks = Vec::new();
    for place in places {
        let mut talk = wait("a connection", SOON, || open(place)).context(place.what)?;
        for word in ["one", "two"] {
            talk.say(word).context(place.what)?;
        }
        talks.push((place.what, talk));
    }
    Ok(talks)
}

fn are_reset(talks: Vec<(&str, Talk)>) -> Result<()> {
    for (what, mut talk) in talks {
        let start = Instant::now();
        let said = talk.say("still there?");
        let took = start.elapsed();
        println!("{what}: {said:?} after {took:?}");
        let error = said.err().with_context(|| format!("{what}: goes on"))?;
        ensure!(error.kind() == ErrorKind::ConnectionReset, "{what}: {error} after {took:?}");
        ensure!(took < SECOND + MARGIN, "{what}: reset after {took:?}");
    }
    Ok(())
}

#[test]
fn tcp_is_reset() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let spec = TaskSpec { name: "observer", network: "prod", ..TaskSpec::default() };
        let observer = cluster[0].run_idle(&spec)?;
        let places = places(cluster, &observer)?;
        // With another task to go to, and with none.
        for others in [true, false] {
            let _old = greeter(cluster, 1, "old")?;
            let held = talks(&places, "old")?;
            let _new = others.then(|| greeter(cluster, 0, "new")).transpose()?;
            cluster[1].ctl(&["detach", "--force", "old"])?;
            match others {
                true => talks(&places, "new").map(drop)?,
                false => nobody(&places)?,
            }
            are_reset(held).with_context(|| format!("with others: {others}"))?;
            if others {
                cluster[0].ctl(&["detach", "--force", "new"])?;
            }
        }
        Ok(())
    })
}

/// Waits until the service has no task.
fn nobody(places: &[Place]) -> Result<()> {
    wait("the task to be gone", SOON, || {
        for place in places {
            let server = SocketAddr::from((place.server, place.tcp));
            let opened = NetNs::run_at(&place.namespace, || Talk::open(server, Duration::from_millis(100)))?;
            ensure!(opened.is_err(), "{}: still there", place.what);
        }
        Ok(())
    })
}

/// Asks on one socket until `name` answers; how long that took.
fn asks_until(from: &Path, socket: &UdpSocket, server: SocketAddr, name: &str) -> Result<Duration> {
    let start = Instant::now();
    socket.set_read_timeout(Some(Duration::from_millis(50))).context("a socket's timeout")?;
    wait("an answer by the new task", SOON + MARGIN, || {
        socket.send_to(b"who", server).with_context(|| format!("{}: sending", from.display()))?;
        let mut buffer = [0; 200];
        let (size, _) = socket.recv_from(&mut buffer).context("no answer")?;
        let answer = String::from_utf8_lossy(&buffer[..size]).into_owned();
        ensure!(answer.split(' ').next() == Some(name), "answer {answer:?}");
        Ok(())
    })?;
    Ok(start.elapsed())
}

#[test]
fn udp_clients_go_on_with_another_task() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let spec = TaskSpec { name: "observer", network: "prod", ..TaskSpec::default() };
        let observer = cluster[0].run_idle(&spec)?;
        let places = places(cluster, &observer)?;
        let _old = greeter(cluster, 1, "old")?;
        talks(&places, "old")?;
        let mut clients = Vec::new();
        for place in &places {
            let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
            let socket = NetNs::run_at(&place.namespace, bind)?.context("a socket")?;
            let server = SocketAddr::from((place.server, place.udp));
            // More than once, so that the flow counts as established.
            for _ in 0..3 {
                asks_until(&place.namespace, &socket, server, "old").context(place.what)?;
            }
            clients.push((place, socket, server));
        }
        let _new = greeter(cluster, 0, "new")?;
        talks_with_either(&places)?;
        for (place, socket, server) in &clients {
            asks_until(&place.namespace, socket, *server, "old")
                .with_context(|| format!("{}: moved without need", place.what))?;
        }
        cluster[1].ctl(&["detach", "--force", "old"])?;
        for (place, socket, server) in &clients {
            let took = asks_until(&place.namespace, socket, *server, "new").context(place.what)?;
            println!("{}: the new task answers after {took:?}", place.what);
            ensure!(took < SECOND + MARGIN, "{}: the new task answers after {took:?}", place.what);
        }
        Ok(())
    })
}

/// Waits until the new task is known everywhere.
fn talks_with_either(places: &[Place]) -> Result<()> {
    for place in places {
        let server = SocketAddr::from((place.server, place.tcp));
        wait("the new task", SOON, || {
            let talk = NetNs::run_at(&place.namespace, || Talk::open(server, SOON))??;
            ensure!(talk.name == "new", "{}: always {}", place.what, talk.name);
            Ok(())
        })?;
    }
    Ok(())
}
