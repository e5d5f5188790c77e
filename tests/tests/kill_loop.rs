//! Daemons killed with SIGKILL in a loop, under everything at once: streams and datagrams over the overlay and to a
//! published port, requests on kept connections and on new ones. Nothing is lost, and nothing stands still: also when a
//! daemon stays away for longer than nodes are given that are dead, when all are away, and when the next one has other
//! programs.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Datagrams, Load, NetNs, Node, Task, TaskSpec, Wrk, get, run, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
/// Longer than three lost packets cost.
const REQUEST: Duration = Duration::from_secs(8);
/// So many kills at least, and for so long at least.
const KILLS: usize = 10;
const LENGTH: Duration = Duration::from_secs(20);
/// Nodes are dead after three seconds of silence, if nothing else speaks for them.
const AWAY: Duration = Duration::from_secs(6);
/// iperf3's port.
const PORT: u16 = 5201;
const DATAGRAMS: u16 = 9001;
const PER_SECOND: u32 = 250;

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    let words = ["service", "create", "--network", "prod", "--publish", "9000:9001/udp", "datagrams"];
    cluster[0].ctl(&words)?;
    cluster.wait_for_view()
}

/// iperf3's client at its work; killed on drop.
struct Iperf(Option<Child>);

impl Iperf {
    /// Little enough that nobody starves for it.
    fn start(from: &Path, server: Ipv4Addr) -> Result<Self> {
        let mut command = NetNs::command_at(from, "iperf3")?;
        let (server, seconds) = (server.to_string(), LENGTH.as_secs().to_string());
        command.args([
            "--json",
            "--time",
            &seconds,
            "--bitrate",
            "50M",
            "--get-server-output",
            "--client",
            &server,
        ]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Ok(Self(Some(child.context("cannot run iperf3")?)))
    }

    /// Waits for its end; it never stood still for two seconds together.
    fn end(mut self) -> Result<()> {
        let output =
            self.0.take().context("ended before")?.wait_with_output().context("waiting for iperf3")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).with_context(|| format!("iperf3: {text}"))?;
        ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
        let intervals = report["server_output_json"]["intervals"].as_array();
        let intervals = intervals.with_context(|| format!("iperf3: nothing of the server: {report}"))?;
        let bytes: Vec<u64> = intervals.iter().filter_map(|i| i["sum"]["bytes"].as_u64()).collect();
        println!("iperf3: {} seconds, at least {:?} bytes in one", bytes.len(), bytes.iter().min());
        ensure!(bytes.len() as u64 + 1 >= LENGTH.as_secs(), "iperf3 ended early: {bytes:?}");
        ensure!(bytes.windows(2).all(|two| two != [0, 0]), "iperf3 stood still: {bytes:?}");
        Ok(())
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        if let Some(mut client) = self.0.take() {
            // It may have ended by itself.
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

/// Datagrams from a namespace to a task.
fn datagrams(from: &Path, to: &Task, port: u16, server: SocketAddr) -> Result<Datagrams> {
    let receiver = to.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?.context("a port")?;
    let connect = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server).map(|()| socket)
    };
    let sender = NetNs::run_at(from, connect)?.context("a socket")?;
    receiver.set_read_timeout(Some(Duration::from_millis(100))).context("a socket's timeout")?;
    wait("the first datagram", SOON, || {
        sender.send(b"hello").context("sending")?;
        receiver.recv(&mut [0; 8]).context("nothing came").map(drop)
    })?;
    Datagrams::start(receiver, sender, PER_SECOND)
}

/// Packets that this machine's processors had no room for, whatever they were for (the kernel's
/// `Documentation/networking/scaling.rst`: the second number of each processor's line).
fn dropped_by_the_machine() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").context("/proc/net/softnet_stat")?;
    let count = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    Ok(text.lines().filter_map(count).sum())
}

/// The pinned programs look like those of another object: the next daemon loads its own.
fn other_programs(node: &Node) -> Result<()> {
    let pins = node.pins();
    let pin =
        pins.iter().find(|pin| pin.split('/').nth(1).is_some_and(|folder| folder.starts_with("programs")));
    let pin = pin.with_context(|| format!("no pinned programs: {pins:?}"))?;
    let folder: Vec<&str> = pin.split('/').take(2).collect();
    let folder = node.bpf_folder().join(folder.join("/"));
    let mut other = folder.clone();
    other.set_file_name("programs-of-another-object");
    std::fs::rename(&folder, &other).with_context(|| format!("renaming {}", folder.display()))
}

/// Kills daemons, and lets them start again. The times of the kills.
fn kill_and_start(cluster: &Cluster) -> Result<Vec<Instant>> {
    let start = Instant::now();
    let mut kills = Vec::new();
    while kills.len() < KILLS || start.elapsed() < LENGTH {
        let turn = kills.len();
        let killed = match turn {
            8 => cluster.nodes(),
            _ => &cluster.nodes()[turn % 3..=turn % 3],
        };
        kills.push(Instant::now());
        println!("{turn} {:?}", start.elapsed());
        killed.iter().try_for_each(Node::kill)?;
        match turn {
            // The one with the tasks.
            4 => std::thread::sleep(AWAY),
            6 => other_programs(&killed[0])?,
            8 => std::thread::sleep(AWAY / 3),
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
        killed.iter().try_for_each(Node::start)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    println!("{} kills in {:?}", kills.len(), start.elapsed());
    Ok(kills)
}

/// How long after which kill something happened.
fn after(kills: &[Instant], happened: impl Iterator<Item = Instant>) -> String {
    let mut times: BTreeMap<Option<usize>, Vec<u128>> = BTreeMap::new();
    for at in happened {
        let kill = kills.iter().rposition(|kill| *kill <= at);
        let late = kill.map_or(0, |kill| (at - kills[kill]).as_millis());
        times.entry(kill).or_default().push(late);
    }
    let told = times.iter().map(|(kill, late)| {
        let (first, last) = (late.iter().min().unwrap_or(&0), late.iter().max().unwrap_or(&0));
        format!("{} {first} to {last} ms after kill {kill:?}", late.len())
    });
    told.collect::<Vec<_>>().join(", ")
}

#[test]
fn nothing_is_lost() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let of = |name, service| TaskSpec { name, network: "prod", service, ..TaskSpec::default() };
        let _web = cluster[1].run_nginx(&of("web1", Some("web")))?;
        let serve: [&std::ffi::OsStr; 3] = ["iperf3".as_ref(), "--server".as_ref(), "--json".as_ref()];
        let iperf = cluster[1].run_task(&of("iperf", None), &serve)?;
        let published = cluster[1].run_idle(&of("published", Some("datagrams")))?;
        let overlay = cluster[1].run_idle(&of("overlay", None))?;
        let observer = cluster[2].run_idle(&of("observer", None))?;
        let (client, inside) = (cluster.net().client().path(), observer.namespace());
        let servers: Vec<SocketAddr> = cluster.nodes().iter().map(|n| (n.address(), 8080).into()).collect();
        let vip = wait("the VIP", SOON, || observer.dig(&["web"])?.first().cloned().context("no address"))?;
        let vip: SocketAddr = format!("{vip}:80").parse().context("the VIP")?;
        for &server in &servers {
            wait("the published port", SOON, || NetNs::run_at(&client, || get(server, SOON))?)?;
        }
        wait("the VIP", SOON, || NetNs::run_at(&inside, || get(vip, SOON))?)?;
        let streamed = SocketAddr::from((iperf.address()?, PORT));
        let connect = || std::net::TcpStream::connect_timeout(&streamed, SOON).map(drop);
        wait("iperf3", SOON, || NetNs::run_at(&inside, connect)?.context("no iperf3"))?;

        let before = dropped_by_the_machine()?;
        let outside = SocketAddr::from((cluster[0].address(), 9000));
        let direct = SocketAddr::from((overlay.address()?, DATAGRAMS));
        let datagrams = [
            ("to a published port", datagrams(&client, &published, DATAGRAMS, outside)?),
            ("over the overlay", datagrams(&inside, &overlay, DATAGRAMS, direct)?),
        ];
        let stream = Iperf::start(&inside, iperf.address()?)?;
        let kept = Wrk::start(&cluster[0], "published", &client, &format!("http://{}/", servers[0]), 4)?;
        let loads = [
            ("published", Load::start(&client, servers, 75, REQUEST)?),
            ("VIP", Load::start(&inside, vec![vip], 25, REQUEST)?),
        ];
        let kills = kill_and_start(cluster)?;

        // All of it is told: what breaks first is seldom what tells why.
        let mut faults = Vec::new();
        match kept.end() {
            Ok(requests) => println!("{requests} requests on kept connections"),
            Err(error) => faults.push(format!("{error:#}")),
        }
        for (what, load) in loads {
            let outcome = load.end();
            println!("{what}: {} requests, {} failed", outcome.requests, outcome.failures.len());
            let when = after(&kills, outcome.failures.iter().map(|failure| failure.began));
            faults.extend(outcome.none_failed().err().map(|error| format!("{what}, {when}: {error:#}")));
        }
        faults.extend(stream.end().err().map(|error| format!("{error:#}")));
        for (what, flow) in datagrams {
            let (sent, lost) = flow.end()?;
            let by_the_machine = dropped_by_the_machine()? - before;
            println!(
                "{what}: {} of {sent} datagrams lost, {by_the_machine} packets by the machine",
                lost.len()
            );
            if lost.len() as u64 > by_the_machine {
                let when = after(&kills, lost.iter().copied());
                faults.push(format!("{what}: {} of {sent} datagrams lost, {when}", lost.len()));
            }
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        cluster.wait_for_members(3)
    })
}
