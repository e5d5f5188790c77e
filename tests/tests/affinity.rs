//! A client of a service with `--affinity client-ip,TIMEOUT` stays with its task while others come and go, is given another
//! one when that ends, and stays there; other clients have tasks of their own.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, Node, TaskSpec, Wire, connect_from, run_on, wait};

const SOON: Duration = Duration::from_secs(10);
/// Clients besides the one that is followed.
const OTHERS: u8 = 60;

fn greeter(node: &Node, name: &str) -> Result<Guest> {
    let spec = TaskSpec { name, network: "prod", service: Some("talk"), ..TaskSpec::default() };
    node.attach_greeter(&spec, 70)
}

/// Which task a client with that address meets at the first node.
fn meets(cluster: &Cluster, client: IpAddr) -> Result<String> {
    let net = cluster.net();
    let server: IpAddr = if client.is_ipv4() { net.address(0).into() } else { net.address6(0).into() };
    net.client().run(|| {
        let stream = connect_from(SocketAddr::new(client, 0), SocketAddr::new(server, 7070), SOON)?;
        stream.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting).context("a greeting")?;
        let (name, seen) = greeting.trim().split_once(' ').with_context(|| format!("{greeting:?}"))?;
        ensure!(seen == client.to_string(), "{client} is seen as {seen}");
        Ok(name.to_owned())
    })?
}

/// Whom it meets, each time.
fn stays(cluster: &Cluster, client: IpAddr) -> Result<String> {
    let met: BTreeSet<String> = (0..8).map(|_| meets(cluster, client)).collect::<Result<_>>()?;
    ensure!(met.len() == 1, "{client} meets {met:?}");
    met.into_iter().next().context("nobody")
}

#[test]
fn a_client_stays_with_its_task() -> Result<()> {
    story(|cluster| cluster.net().client_address().into(), |n| Ipv4Addr::new(192, 168, 77, 150 + n).into())
}

#[test]
fn a_client_of_ipv6_stays_with_its_task() -> Result<()> {
    let other = |n| Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x99, u16::from(n)).into();
    story(|cluster| cluster.net().client_address6().into(), other)
}

/// The client that is looked at, and the address of each of the others.
fn story(client: impl Fn(&Cluster) -> IpAddr, other: impl Fn(u8) -> IpAddr + Clone) -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 2, |cluster| {
        let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
        cluster[0].ctl(&[&["network", "create", "--attachable"], &subnets[..], &["prod"]].concat())?;
        let options = ["--publish", "7070:70", "--affinity", "client-ip,1h"];
        cluster[0].ctl(&[&["service", "create", "--network", "prod"], &options[..], &["talk"]].concat())?;
        cluster.wait_for_view()?;
        let (namespace, client) = (cluster.net().client(), client(cluster));
        let others = (0..OTHERS).map(other);
        for other in others.clone() {
            let more = if other.is_ipv4() { "/24 dev eth0" } else { "/64 dev eth0 nodad" };
            namespace.ip(&format!("addr add {other}{more}"))?;
        }
        let _first = greeter(&cluster[1], "first")?;
        wait("the first task", SOON, || stays(cluster, client))?;

        // With so many it would stay by chance in one case of eight, if the table alone decided.
        let mut tasks = Vec::new();
        for n in 0..7 {
            tasks.push(greeter(&cluster[n % 2], &format!("other{n}"))?);
        }
        // An address that has met nobody yet is given one by the table.
        let mut fresh = others;
        let mut met = BTreeSet::new();
        wait("other clients to meet others", 3 * SOON, || {
            let other = fresh.next().context("no further client")?;
            met.insert(meets(cluster, other)?);
            if met.len() == 1 {
                // The others are not known yet: no need to spend all clients on that.
                std::thread::sleep(Duration::from_millis(500));
            }
            ensure!(met.len() > 3, "they have met {met:?}");
            Ok(())
        })?;
        let name = stays(cluster, client)?;
        ensure!(name == "first", "the client was given to {name}");

        cluster[1].ctl(&["detach", "--force", "first"])?;
        let second = wait("another task", SOON, || {
            let name = stays(cluster, client)?;
            ensure!(name != "first", "still there");
            Ok(name)
        })?;
        // Those that are not the client's go, and new ones come.
        tasks.retain(|task| task.name() == second);
        let _more = [greeter(&cluster[0], "more0")?, greeter(&cluster[1], "more1")?];
        let name = stays(cluster, client).context("after others have gone and come")?;
        ensure!(name == second, "the client was given from {second} to {name}");
        Ok(())
    })
}
