//! What belongs to a flow follows it: fragments, ICMP errors, and words about its packets' size; in both families, through
//! VIPs and published ports. And what the host's own sockets may do.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Cluster, NetNs, Task, TaskSpec, Wire, output, run_on, wait};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt::Ipv6V6Only,
};

const SOON: Duration = Duration::from_secs(5);
const BOTH: Wire = Wire { v4: true, v6: true, mtu: 1500, second: false };
/// Published and behind it, a port that echoes datagrams.
const ECHO: (u16, u16) = (9000, 9001);
/// A port that nobody listens on.
const CLOSED: (u16, u16) = (9100, 9101);

fn create(cluster: &Cluster) -> Result<()> {
    let words =
        ["network", "create", "--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64", "--attachable", "prod"];
    cluster[0].ctl(&words)?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    for (published, target) in [ECHO, CLOSED] {
        for protocol in ["udp", "tcp"] {
            cluster[0].ctl(&["publish", &format!("{published}:{target}/{protocol}"), "web"])?;
        }
    }
    cluster.wait_for_view()
}

/// The service's task, which answers each datagram with itself.
fn serve(cluster: &Cluster, node: usize) -> Result<Task> {
    let spec = TaskSpec { name: "web1", network: "prod", service: Some("web"), ..TaskSpec::default() };
    let task = cluster[node].run_idle(&spec)?;
    let (socket, listener) = task.inside(|| {
        let any = Ipv6Addr::UNSPECIFIED;
        (UdpSocket::bind((any, ECHO.1)), TcpListener::bind((any, ECHO.1)))
    })?;
    let (socket, listener) = (socket.context("a socket")?, listener.context("a socket")?);
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        loop {
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 64];
            if let Ok(len) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..len]);
            }
        }
    });
    Ok(task)
}

/// Who speaks to whom.
struct Way {
    what: String,
    from: PathBuf,
    to: SocketAddr,
    /// The packets cross the underlay.
    crosses: bool,
}

/// Every way to the port in both families: `(published, target)`.
fn ways(cluster: &Cluster, asker: &Task, port: (u16, u16)) -> Result<Vec<Way>> {
    let net = cluster.net();
    let found = output(asker.command("getent")?.args(["ahosts", "web"]))?;
    let vips = found.lines().filter(|line| line.contains("STREAM"));
    let vips: Vec<IpAddr> = vips.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    ensure!(vips.len() == 2, "the service has {vips:?}");
    let mut all = Vec::new();
    for vip in vips {
        all.push(("a VIP", asker.namespace(), SocketAddr::new(vip, port.1), true));
    }
    for (node, elsewhere) in [(0, true), (1, false)] {
        let own = &net.nodes()[node];
        let v4 = net.wire().v4.then(|| IpAddr::V4(net.address(node)));
        for address in v4.into_iter().chain([net.address6(node).into()]) {
            let to = SocketAddr::new(address, port.0);
            all.push(("a published port", net.client().path(), to, elsewhere));
            all.push(("a published port of the own node", own.path(), to, elsewhere));
            if elsewhere {
                all.push(("a published port, asked by a task", asker.namespace(), to, true));
            }
        }
        for localhost in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            all.push(("localhost", own.path(), SocketAddr::new(localhost, port.0), elsewhere));
        }
    }
    let named = |(what, from, to, crosses): (&str, PathBuf, SocketAddr, bool)| Way {
        what: format!("{what} at {to} from {}", from.display()),
        from,
        to,
        crosses,
    };
    Ok(all.into_iter().map(named).collect())
}

/// A datagram socket that is connected.
fn connected(way: &Way) -> Result<UdpSocket> {
    let to = way.to;
    let make = move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to).map(|()| socket)
    };
    let socket = NetNs::run_at(&way.from, make)?.context("a socket")?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).context("a socket's timeout")?;
    Ok(socket)
}

fn echoed(socket: &UdpSocket, len: usize) -> Result<()> {
    let sent: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
    socket.send(&sent).context("sending")?;
    let mut buffer = [0; 65536];
    let got = socket.recv(&mut buffer).context("no answer")?;
    ensure!(buffer[..got] == sent, "{got} other bytes came back");
    Ok(())
}

fn fragments_follow(ways: &[Way]) -> Result<()> {
    for way in ways {
        let socket = connected(way)?;
        wait("an answer", SOON, || echoed(&socket, 8)).with_context(|| way.what.clone())?;
        for len in [4000, 1473, 20_000] {
            wait("an answer to fragments", SOON, || echoed(&socket, len))
                .with_context(|| format!("{len} bytes to {}", way.what))?;
        }
    }
    Ok(())
}

fn errors_follow(ways: &[Way]) -> Result<()> {
    for way in ways {
        let refused = || {
            let socket = connected(way)?;
            socket.send(b"anybody?").context("sending")?;
            match socket.recv(&mut [0; 8]) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
                other => bail!("{other:?} instead of a refusal"),
            }
        };
        wait("a refusal", SOON, refused).with_context(|| way.what.clone())?;
    }
    Ok(())
}

fn set(socket: &UdpSocket, (level, option): (i32, i32), value: i32) -> Result<()> {
    let size = size_of::<i32>() as u32;
    // SAFETY: the kernel reads one integer.
    let failed =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    ensure!(failed == 0, "setsockopt: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Whether routers may cut what a socket sends.
fn discover(socket: &UdpSocket, v4: bool, how: i32) -> Result<()> {
    let option = if v4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    set(socket, option, how)
}

/// Senders from outside, whose links carry more than the underlay, hear how much may be sent.
fn sizes_follow(cluster: &Cluster, ways: &[Way]) -> Result<()> {
    let client = cluster.net().client().path();
    let outside = |way: &&Way| way.crosses && way.from == client;
    for way in ways.iter().filter(outside) {
        let v4 = way.to.is_ipv4();
        let headers = if v4 { 28 } else { 48 };
        let mtu = if cluster.net().wire().v4 { 1450 } else { 1430 };
        let socket = connected(way)?;
        if v4 {
            // What may be cut arrives all the same.
            discover(&socket, v4, libc::IP_PMTUDISC_DONT)?;
            wait("what may be cut", SOON, || echoed(&socket, 1500 - headers))
                .with_context(|| way.what.clone())?;
        }
        discover(&socket, v4, libc::IP_PMTUDISC_DO)?;
        let learned = || match socket.send(&vec![1; 1500 - headers]) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(()),
            other => bail!("{other:?} instead of a word about the size"),
        };
        wait("a word about the size", SOON, learned).with_context(|| way.what.clone())?;
        // A pending error of the socket is told once more.
        let fits = || echoed(&socket, mtu - headers);
        wait("the largest that fits", SOON, fits).with_context(|| way.what.clone())?;
    }
    Ok(())
}

/// Fills checksums in by software wherever a link would leave them to others.
fn checksums_in_software(cluster: &Cluster) -> Result<()> {
    let words = ["-K", "eth0", "tx", "off"];
    for node in cluster.net().nodes() {
        output(node.command("ethtool")?.args(words))?;
    }
    output(cluster.net().client().command("ethtool")?.args(words)).map(drop)
}

fn sockets_of_the_host(cluster: &Cluster) -> Result<()> {
    let own = &cluster.net().nodes()[0];
    let at = |address: IpAddr| SocketAddr::new(address, ECHO.0);
    let (localhost, localhost6) = (at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into()));
    // Not connected, and told who answers.
    for (to, any) in [(localhost, IpAddr::from([0; 4])), (localhost6, Ipv6Addr::UNSPECIFIED.into())] {
        let socket = own.run(move || UdpSocket::bind((any, 0)))?.context("a socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).context("a socket's timeout")?;
        let ask = || {
            socket.send_to(b"who?", to).context("sending")?;
            let (_, from) = socket.recv_from(&mut [0; 8]).context("no answer")?;
            ensure!(from == to, "{from} answers in place of {to}");
            Ok(())
        };
        wait("an answer", SOON, ask).with_context(|| format!("a socket that is not connected, to {to}"))?;
    }
    // For IPv6 only.
    let stream = own.run(move || connect_from(localhost6, None))?.context("a socket for IPv6 only")?;
    ensure!(stream.peer_addr()? == localhost6, "connected to {}", stream.peer_addr()?);
    // Bound to a loopback address: as if nobody had published anything.
    for to in [localhost, localhost6] {
        let refused = own.run(move || connect_from(to, Some(to.ip())))?;
        let refused = refused.map(drop).map_err(|error| error.kind());
        ensure!(refused == Err(ErrorKind::ConnectionRefused), "bound to {}: {refused:?}", to.ip());
    }
    Ok(())
}

/// Connects from an address; an IPv6 socket is one for IPv6 only.
fn connect_from(to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if to.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    if let Some(from) = from {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

/// A port at one address of the first node, whose task is on the second.
fn one_address(cluster: &Cluster) -> Result<()> {
    let net = cluster.net();
    let here = net.address(0);
    let port = format!("published=9200,target={},protocol=tcp,address={here}", ECHO.1);
    cluster[0].ctl(&["publish", &port, "web"])?;
    for from in [net.client().path(), net.nodes()[0].path()] {
        let ask = || {
            let connect = move || TcpStream::connect_timeout(&(here, 9200).into(), Duration::from_secs(1));
            let mut stream = NetNs::run_at(&from, connect)?.context("connect")?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).context("a socket's timeout")?;
            stream.write_all(b"x").context("sending")?;
            stream.read_exact(&mut [0]).context("no answer")
        };
        wait("a port at one address", SOON, ask).with_context(|| from.display().to_string())?;
    }
    let elsewhere = net.address6(0);
    let refused = net.client().run(move || TcpStream::connect_timeout(&(elsewhere, 9200).into(), SOON))?;
    ensure!(refused.is_err(), "open at {elsewhere}, too");
    Ok(())
}

#[test]
fn fragments_errors_and_sizes_follow_their_flow() -> Result<()> {
    story(BOTH)
}

#[test]
fn fragments_errors_and_sizes_follow_their_flow_over_ipv6() -> Result<()> {
    story(Wire { v4: false, ..BOTH })
}

fn story(wire: Wire) -> Result<()> {
    run_on(wire, 2, |cluster| {
        create(cluster)?;
        let _web = serve(cluster, 1)?;
        let spec = TaskSpec { name: "asker", network: "prod", ..TaskSpec::default() };
        let asker = cluster[0].run_idle(&spec)?;
        let open = wait("the service's addresses", SOON, || ways(cluster, &asker, ECHO))?;
        let closed = ways(cluster, &asker, CLOSED)?;
        for software in [false, true] {
            if software {
                checksums_in_software(cluster)?;
            }
            let phase = || format!("checksums in software: {software}");
            fragments_follow(&open).with_context(phase)?;
            errors_follow(&closed).with_context(phase)?;
            sizes_follow(cluster, &open).with_context(phase)?;
        }
        sockets_of_the_host(cluster)?;
        if !wire.v4 {
            return Ok(());
        }
        let status = cluster[0].ctl(&["status"])?;
        ensure!(status.contains("general-sent"), "nothing was left to the VXLAN device to be cut: {status}");
        one_address(cluster)
    })
}
