//! Much is under way when a task ends: what its clients send in large pieces, summed up and segmented by the links or by
//! the kernel, is answered with resets that every client's kernel takes; in both families, from every place.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Talk, Task, TaskSpec, Wire, output, run_on, wait};

const SOON: Duration = Duration::from_secs(10);
/// What a client of a task that is gone sends at once: many segments, of which the first is answered.
const MUCH: usize = 400_000;
const BOTH: Wire = Wire { v4: true, v6: true, mtu: 1500, second: false };

/// What is done by the links or by the kernel.
const OFFLOADS: [&[&str]; 3] =
    [&[], &["tx", "off"], &["tx", "on", "gso", "off", "tso", "off", "tx-udp_tnl-segmentation", "off"]];

fn set(cluster: &Cluster, observer: &Task, words: &[&str]) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    let net = cluster.net();
    for namespace in net.nodes().iter().chain([net.client()]) {
        output(namespace.command("ethtool")?.args(["-K", "eth0"]).args(words))?;
    }
    output(observer.command("ethtool")?.args(["-K", "eth0"]).args(words)).map(drop)
}

/// From where a service is spoken to, and how.
struct Way {
    from: PathBuf,
    to: SocketAddr,
}

fn ways(cluster: &Cluster, observer: &Task) -> Result<Vec<Way>> {
    let net = cluster.net();
    let found = output(observer.command("getent")?.args(["ahosts", "talk"]))?;
    let vips = found.lines().filter(|line| line.contains("STREAM"));
    let vips: Vec<IpAddr> = vips.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    ensure!(vips.len() == 2, "the service has {vips:?}");
    let mut ways: Vec<Way> = Vec::new();
    let mut add = |from: PathBuf, address: IpAddr, port| ways.push(Way { from, to: (address, port).into() });
    for vip in vips {
        add(observer.namespace(), vip, 70);
    }
    for node in 0..2 {
        for address in [IpAddr::V4(net.address(node)), net.address6(node).into()] {
            add(net.client().path(), address, 7070);
            add(observer.namespace(), address, 7070);
        }
        for localhost in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            add(net.nodes()[node].path(), localhost, 7070);
        }
    }
    Ok(ways)
}

#[test]
fn clients_with_much_under_way_are_reset() -> Result<()> {
    run_on(BOTH, 2, |cluster| {
        cluster[0].ctl(&[
            "network",
            "create",
            "--subnet",
            "10.10.3.0/24",
            "--ipv6",
            "--attachable",
            "prod",
        ])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "7070:70", "talk"])?;
        cluster.wait_for_view()?;
        let observer =
            cluster[0].run_idle(&TaskSpec { name: "observer", network: "prod", ..TaskSpec::default() })?;
        let ways = wait("the VIPs", SOON, || ways(cluster, &observer))?;
        let mut slowest = Duration::ZERO;
        for (turn, words) in OFFLOADS.into_iter().enumerate() {
            set(cluster, &observer, words)?;
            let name = format!("task{turn}");
            let spec =
                TaskSpec { name: &name, network: "prod", service: Some("talk"), ..TaskSpec::default() };
            let _task = cluster[1].attach_greeter(&spec, 70)?;
            let mut talks = Vec::new();
            for way in &ways {
                let what = || format!("{words:?}: {} from {}", way.to, way.from.display());
                let open = || -> Result<Talk> {
                    let talk = NetNs::run_at(&way.from, || Talk::open(way.to, SOON))??;
                    ensure!(talk.name == name, "still with {}", talk.name);
                    Ok(talk)
                };
                let mut talk = wait("a connection", 2 * SOON, open).with_context(what)?;
                // As large as what follows, so that the window is open.
                for len in [3, MUCH, 5] {
                    talk.say(&"a".repeat(len)).with_context(what)?;
                }
                talks.push((talk, what()));
            }
            cluster[1].ctl(&["detach", "--force", &name])?;
            for (mut talk, what) in talks {
                let start = Instant::now();
                let said = talk.say(&"b".repeat(MUCH));
                slowest = slowest.max(start.elapsed());
                let error = said.err().with_context(|| format!("{what}: goes on"))?;
                // A reset that comes between two pieces is told by the next one as a pipe that is broken.
                let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
                ensure!(reset, "{what}: {error} after {:?}", start.elapsed());
            }
        }
        println!("the slowest was reset after {slowest:?}");
        Ok(())
    })
}
