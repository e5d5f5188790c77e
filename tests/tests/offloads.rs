//! What the kernel sends in one piece and segments late arrives as it was sent: datagrams of UDP GSO, as QUIC uses it,
//! with every boundary and every byte, and streams; between tasks, through a VIP and a published port, with segmentation
//! and checksums by the link or by the kernel, in both families and over both underlays.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Stream, Task, TaskSpec, Wire, output, run_on, wait};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

const SOON: Duration = Duration::from_secs(5);
const BOTH: Wire = Wire { v4: true, v6: true, mtu: 1500, second: false };
/// Nodes that talk over IPv6.
const SIX: Wire = Wire { v4: false, ..BOTH };
/// Segments in one call, and the length of the last: the largest that UDP sends at once, nearly.
const SEGMENTS: usize = 40;
const LAST: usize = 33;
const MEGABYTE: u64 = 1 << 20;

fn task<'a>(name: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service, ..TaskSpec::default() }
}

fn create(cluster: &Cluster) -> Result<()> {
    let words =
        ["network", "create", "--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64", "--attachable", "prod"];
    cluster[0].ctl(&words)?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    for protocol in ["tcp", "udp"] {
        let port = |rest: &str| format!("target=9001,protocol={protocol},{rest}");
        cluster[0].ctl(&["publish", &port("published=9000"), "web"])?;
        cluster[0].ctl(&["publish", &port("published=9100,return=direct"), "web"])?;
    }
    cluster.wait_for_view()
}

/// Who speaks to whom.
struct Way {
    what: String,
    /// The sender's namespace.
    from: std::path::PathBuf,
    to: SocketAddr,
}

/// Every way to port 9001 of the second node's task, in both families; to published ports in those of the wire.
fn ways(cluster: &Cluster, asker: &Task, server: &Task) -> Result<Vec<Way>> {
    let net = cluster.net();
    let mut all = Vec::new();
    let vips = asker.command("getent").and_then(|mut getent| output(getent.args(["ahosts", "web"])))?;
    let vips: Vec<IpAddr> = vips
        .lines()
        .filter(|line| line.contains("STREAM"))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    ensure!(vips.len() == 2, "the service has {vips:?}");
    for address in server.addresses()? {
        all.push(("a task", asker.namespace(), SocketAddr::new(address, 9001)));
    }
    for vip in vips {
        all.push(("a VIP", asker.namespace(), SocketAddr::new(vip, 9001)));
    }
    let nodes = |node| {
        let v4 = net.wire().v4.then(|| IpAddr::V4(net.address(node)));
        v4.into_iter().chain([IpAddr::V6(net.address6(node))])
    };
    for address in nodes(0) {
        all.push(("a port, task elsewhere", net.client().path(), SocketAddr::new(address, 9000)));
        all.push(("a port, direct return", net.client().path(), SocketAddr::new(address, 9100)));
        all.push(("a port, asked by a task", asker.namespace(), SocketAddr::new(address, 9000)));
    }
    for address in nodes(1) {
        all.push(("a port, task here", net.client().path(), SocketAddr::new(address, 9000)));
    }
    Ok(all.into_iter().map(|(what, from, to)| Way { what: format!("{what} at {to}"), from, to }).collect())
}

/// Datagram `number` of a burst of `size` each.
fn datagram(burst: u8, number: usize, size: usize) -> Vec<u8> {
    let len = if number == SEGMENTS { LAST } else { size };
    let start = [burst, number as u8];
    start.into_iter().chain((2..len).map(|at| (at * 7 + number * 31 + usize::from(burst)) as u8)).collect()
}

/// Sends a burst in one piece and looks at each datagram that comes.
fn burst(
    from: &UdpSocket,
    at: &UdpSocket,
    to: Option<SocketAddr>,
    (number, size): (u8, usize),
) -> Result<SocketAddr> {
    setsockopt(&from.as_fd(), UdpGsoSegment, &(size as i32)).context("UDP_SEGMENT")?;
    let wanted: Vec<Vec<u8>> = (0..=SEGMENTS).map(|i| datagram(number, i, size)).collect();
    let whole = wanted.concat();
    let sent = if let Some(to) = to { from.send_to(&whole, to) } else { from.send(&whole) };
    ensure!(sent.context("sending")? == whole.len(), "not all was sent");
    let mut buffer = [0; 65536];
    let mut last = None;
    let mut left: Vec<usize> = (0..=SEGMENTS).collect();
    while !left.is_empty() {
        let (len, sender) = at
            .recv_from(&mut buffer)
            .with_context(|| format!("{} of {} datagrams are missing", left.len(), SEGMENTS + 1))?;
        let place = left.iter().position(|i| wanted[*i] == buffer[..len]);
        let place = place.with_context(|| {
            format!("a datagram of {len} bytes that was not sent: {:02x?}", &buffer[..len.min(64)])
        })?;
        left.remove(place);
        ensure!(last.is_none_or(|known| known == sender), "from {sender} and {last:?}");
        last = Some(sender);
    }
    last.context("no datagram")
}

fn udp(from: &std::path::Path, to: SocketAddr) -> Result<UdpSocket> {
    let any = move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to).map(|()| socket)
    };
    let socket = NetNs::run_at(from, any)?.context("a socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).context("a socket's timeout")?;
    Ok(socket)
}

/// Bursts both ways. The first packet may have to find neighbours.
fn bursts(way: &Way, server: &UdpSocket) -> Result<()> {
    let client = udp(&way.from, way.to)?;
    for (number, size) in [(1, 1200), (2, 1375)] {
        let seen = burst(&client, server, None, (number, size))
            .with_context(|| format!("{size} to {}", way.what))?;
        burst(server, &client, Some(seen), (number, size))
            .with_context(|| format!("{size} back from {}", way.what))?;
    }
    Ok(())
}

fn streams(way: &Way, server: &Task) -> Result<()> {
    let listener =
        server.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 9001)))?.context("port 9001")?;
    let to = way.to;
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(2));
    let client = NetNs::run_at(&way.from, connect)?.with_context(|| way.what.clone())?;
    let stream = Stream::start(listener, client)?;
    stream.goes_on(2 * MEGABYTE, 2 * SOON).with_context(|| way.what.clone())
}

/// What is done by a link or not, on tasks' links and uplinks.
const OFFLOADS: [&[&str]; 6] = [
    &[],
    &["tx", "off"],
    &["rx", "off"],
    &["tx", "on", "rx", "on", "gso", "off", "tso", "off"],
    &["gso", "on", "tso", "on", "gro", "on"],
    &["tx-udp-segmentation", "off", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off"],
];

/// Sets it on both ends of each task's link, and on the uplinks' both ends.
fn set(cluster: &Cluster, tasks: &[&Task], words: &[&str]) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    for task in tasks {
        output(task.command("ethtool")?.args(["-K", "eth0"]).args(words))?;
    }
    for node in cluster.net().nodes() {
        let links = output(node.command("ip")?.args(["-brief", "link"]))?;
        let names = links.lines().filter_map(|line| line.split(['@', ' ']).next());
        for name in names.filter(|name| name.starts_with("msh") || *name == "eth0") {
            output(node.command("ethtool")?.args(["-K", name]).args(words))?;
        }
    }
    output(cluster.net().client().command("ethtool")?.args(["-K", "eth0"]).args(words)).map(drop)
}

fn story(wire: Wire, bursts_too: bool) -> Result<()> {
    run_on(wire, 2, |cluster| {
        create(cluster)?;
        let server = cluster[1].run_idle(&task("web1", Some("web")))?;
        let asker = cluster[0].run_idle(&task("asker", None))?;
        let socket =
            server.inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9001)))?.context("port 9001")?;
        socket.set_read_timeout(Some(Duration::from_secs(2))).context("a socket's timeout")?;
        let ways = wait("the service's addresses", SOON, || ways(cluster, &asker, &server))?;
        for way in &ways {
            let hello = || {
                let client = udp(&way.from, way.to)?;
                client.set_read_timeout(Some(Duration::from_millis(300))).context("a socket's timeout")?;
                socket.set_read_timeout(Some(Duration::from_millis(300))).context("a socket's timeout")?;
                client.send(b"hello").context("sending")?;
                let (_, seen) = socket.recv_from(&mut [0; 8]).context("nothing came")?;
                socket.send_to(b"hello", seen).context("answering")?;
                client.recv(&mut [0; 8]).context("no answer").map(drop)
            };
            wait(&way.what, SOON, hello)?;
            while socket.recv_from(&mut [0; 8]).is_ok() {}
        }
        socket.set_read_timeout(Some(Duration::from_secs(2))).context("a socket's timeout")?;
        let mut failed = Vec::new();
        for words in OFFLOADS {
            set(cluster, &[&server, &asker], words).with_context(|| format!("ethtool -K {words:?}"))?;
            for way in &ways {
                let done = if bursts_too { bursts(way, &socket) } else { streams(way, &server) };
                if let Err(error) = done {
                    failed.push(format!("ethtool -K {words:?}: {error:#}"));
                    ensure!(failed.len() < 4, "{}", failed.join("\n"));
                    while bursts_too && socket.recv_from(&mut [0; 8]).is_ok() {}
                }
            }
        }
        // Which ones fail says where to look.
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    })
}

#[test]
fn datagrams_sent_in_one_piece_arrive_as_they_were() -> Result<()> {
    story(BOTH, true)
}

#[test]
fn datagrams_sent_in_one_piece_arrive_as_they_were_over_ipv6() -> Result<()> {
    story(SIX, true)
}

#[test]
fn streams_arrive_as_they_were() -> Result<()> {
    story(BOTH, false)
}

#[test]
fn streams_arrive_as_they_were_over_ipv6() -> Result<()> {
    story(SIX, false)
}
