//! A client of a service with `--affinity client-ip,TIMEOUT` stays with its task while others come and go, is given another
//! one when that ends, and stays there; other clients have tasks of their own.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Guest, Node, TaskSpec, connect_from, run, wait};

const SOON: Duration = Duration::from_secs(10);
/// Clients besides the one that is followed.
const OTHERS: u8 = 60;

fn greeter(node: &Node, name: &str) -> Result<Guest> {
    let spec = TaskSpec { name, network: "prod", service: Some("talk"), ..TaskSpec::default() };
    node.attach_greeter(&spec, 70)
}

/// Which task a client with that address meets at the first node.
fn meets(cluster: &Cluster, client: Ipv4Addr) -> Result<String> {
    let server = SocketAddrV4::new(cluster[0].address(), 7070);
    cluster.net().client().run(|| {
        let stream = connect_from(SocketAddrV4::new(client, 0), server, SOON)?;
        stream.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting).context("a greeting")?;
        let (name, seen) = greeting.trim().split_once(' ').with_context(|| format!("{greeting:?}"))?;
        ensure!(seen == client.to_string(), "{client} is seen as {seen}");
        Ok(name.to_owned())
    })?
}

/// Whom it meets, each time.
fn stays(cluster: &Cluster, client: Ipv4Addr) -> Result<String> {
    let met: BTreeSet<String> = (0..8).map(|_| meets(cluster, client)).collect::<Result<_>>()?;
    ensure!(met.len() == 1, "{client} meets {met:?}");
    met.into_iter().next().context("nobody")
}

#[test]
fn a_client_stays_with_its_task() -> Result<()> {
    run(2, |cluster| {
        cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
        let options = ["--publish", "7070:70", "--affinity", "client-ip,1h"];
        cluster[0].ctl(&[&["service", "create", "--network", "prod"], &options[..], &["talk"]].concat())?;
        cluster.wait_for_view()?;
        let (namespace, client) = (cluster.net().client(), cluster.net().client_address());
        let others = (0..OTHERS).map(|n| Ipv4Addr::new(192, 168, 77, 150 + n));
        for other in others.clone() {
            namespace.ip(&format!("addr add {other}/24 dev eth0"))?;
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
