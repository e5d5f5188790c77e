//! SCTP by port alone: packets to a published port and to a VIP reach one task of the service as they were sent, and so do
//! the answers, checksums included; in both families. The kernel here speaks no SCTP: both ends are raw sockets.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Task, TaskSpec, Wire, output, run_on, wait};

const SOON: Duration = Duration::from_secs(10);
const PORT: u16 = 7070;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEADER: usize = 12;

/// A raw socket for SCTP, with what a datagram socket can do; what it receives begins with the IP header in IPv4 alone.
struct Raw {
    socket: UdpSocket,
    v4: bool,
}

/// What came: from whom, and the packet.
type Heard = (IpAddr, Vec<u8>);

impl Raw {
    fn open(namespace: &Path, v4: bool) -> Result<Self> {
        let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
        let open = move || {
            // SAFETY: plain system call.
            let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let socket = UdpSocket::from(NetNs::run_at(namespace, open)?.context("a raw socket")?);
        socket.set_read_timeout(Some(Duration::from_millis(300))).context("a socket's timeout")?;
        Ok(Self { socket, v4 })
    }

    fn send(&self, to: IpAddr, packet: &[u8]) -> Result<()> {
        let sent = self.socket.send_to(packet, SocketAddr::new(to, 0)).context("sending")?;
        ensure!(sent == packet.len(), "{sent} of {} bytes were sent", packet.len());
        Ok(())
    }

    /// The next packet; none when none comes.
    fn hear(&self) -> Option<Heard> {
        let mut buffer = [0; 2048];
        let (len, from) = self.socket.recv_from(&mut buffer).ok()?;
        let start = if self.v4 { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
        Some((from.ip(), buffer.get(start..len)?.to_vec()))
    }
}

/// The checksum of RFC 9260, appendix A: CRC32c, as its bytes stand in the packet.
fn crc32c(packet: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in packet {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
        }
    }
    (!crc).to_le_bytes()
}

/// A packet with one chunk (RFC 9260, section 3).
fn packet((from, to): (u16, u16), chunk: u8, content: &[u8]) -> Vec<u8> {
    let len = (content.len() + 4) as u16;
    let mut packet =
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8], &[chunk, 0], &len.to_be_bytes()].concat();
    packet.extend_from_slice(content);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let checksum = crc32c(&packet);
    packet[8..HEADER].copy_from_slice(&checksum);
    packet
}

fn is_whole(packet: &[u8]) -> bool {
    let mut zeroed = packet.to_vec();
    zeroed[8..HEADER].fill(0);
    crc32c(&zeroed) == packet[8..HEADER]
}

/// A task of the service, with its raw sockets.
struct Server {
    task: Task,
    four: Raw,
    six: Raw,
}

impl Server {
    fn start(cluster: &Cluster, node: usize, name: &str) -> Result<Self> {
        let spec = TaskSpec { name, network: "prod", service: Some("tel"), ..TaskSpec::default() };
        let task = cluster[node].run_idle(&spec)?;
        let raw = |v4| Raw::open(&task.namespace(), v4);
        Ok(Self { four: raw(true)?, six: raw(false)?, task })
    }

    fn raw(&self, v4: bool) -> &Raw {
        if v4 { &self.four } else { &self.six }
    }
}

/// What is sent arrives at one of the servers as it was; so does the answer. Which server it was.
fn exchange(client: &Raw, to: IpAddr, source: u16, servers: &[&Server]) -> Result<(usize, IpAddr)> {
    let content: Vec<u8> =
        source.to_be_bytes().iter().cycle().take(100 + usize::from(source % 7)).copied().collect();
    let asked = packet((source, PORT), INIT, &content);
    let (place, seen) = wait("a packet to arrive as it was sent", SOON, || {
        client.send(to, &asked)?;
        let heard = servers.iter().enumerate().find_map(|(place, server)| {
            std::iter::from_fn(|| server.raw(client.v4).hear())
                .find(|(_, packet)| *packet == asked)
                .map(|(from, _)| (place, from))
        });
        heard.context("nobody heard it")
    })?;
    let answer = packet((PORT, source), INIT_ACK, b"here I am");
    servers[place].raw(client.v4).send(seen, &answer)?;
    wait("the answer", SOON, || {
        let (from, packet) = client.hear().context("nothing came")?;
        ensure!(is_whole(&packet), "the checksum is wrong: {packet:02x?}");
        ensure!((from, &packet) == (to, &answer), "from {from}, not {to}: {packet:02x?}");
        Ok(())
    })?;
    Ok((place, seen))
}

#[test]
fn packets_and_checksums_arrive_as_they_were() -> Result<()> {
    run_on(Wire { v6: true, ..Wire::default() }, 2, |cluster| {
        let net = cluster.net();
        cluster[0].ctl(&[
            "network",
            "create",
            "--subnet",
            "10.10.3.0/24",
            "--ipv6",
            "--attachable",
            "prod",
        ])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "tel"])?;
        // A port that would have to be translated, which no difference to the checksum could tell.
        let refusal = cluster[0].refused(&["publish", "7071:7070/sctp", "tel"])?;
        ensure!(
            refusal.message.contains("checksum") && refusal.message.contains("7070:7070/sctp"),
            "{refusal:?}"
        );
        cluster[0].ctl(&["publish", "7070:7070/sctp", "tel"])?;
        // Numbers are shared between protocols.
        cluster[0].ctl(&["publish", "7070:80/tcp", "tel"])?;
        cluster.wait_for_view()?;
        let first = Server::start(cluster, 1, "first")?;
        let asker =
            cluster[0].run_idle(&TaskSpec { name: "asker", network: "prod", ..TaskSpec::default() })?;
        let vips = wait("the VIPs", SOON, || {
            let found = output(asker.command("getent")?.args(["ahosts", "tel"]))?;
            let lines = found.lines().filter(|line| line.contains("STREAM"));
            let vips: Vec<IpAddr> =
                lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
            ensure!(vips.len() == 2, "{vips:?}");
            Ok(vips)
        })?;
        let outside = net.client().path();
        let mut source = 40_000;
        let mut fresh = || {
            source += 1;
            source
        };
        let seen6: Ipv6Addr = net.client_address6();
        for v4 in [true, false] {
            let client = Raw::open(&outside, v4)?;
            let own: IpAddr = if v4 { net.client_address().into() } else { seen6.into() };
            for node in 0..2 {
                let to: IpAddr = if v4 { net.address(node).into() } else { net.address6(node).into() };
                let (_, seen) =
                    exchange(&client, to, fresh(), &[&first]).with_context(|| format!("to {to}"))?;
                ensure!(seen == own, "{to}: the task sees {seen}");
            }
            let client = Raw::open(&asker.namespace(), v4)?;
            let vip = *vips.iter().find(|vip| vip.is_ipv4() == v4).context("a VIP")?;
            let (_, seen) =
                exchange(&client, vip, fresh(), &[&first]).with_context(|| format!("to {vip}"))?;
            ensure!(asker.addresses()?.contains(&seen), "{vip}: the task sees {seen}");
        }

        // An association stays with its task when there are others, and new ones go to both.
        let client = Raw::open(&outside, true)?;
        let to: IpAddr = net.address(0).into();
        let kept = fresh();
        for _ in 0..3 {
            exchange(&client, to, kept, &[&first])?;
        }
        let second = Server::start(cluster, 0, "second")?;
        let both = [&first, &second];
        wait("new associations to reach the second task", 4 * SOON, || {
            let (place, _) = exchange(&client, to, fresh(), &both)?;
            ensure!(place == 1, "with the first one");
            Ok(())
        })?;
        for _ in 0..3 {
            let (place, _) = exchange(&client, to, kept, &both)?;
            ensure!(place == 0, "an association went over to {}", both[place].task.name());
        }
        Ok(())
    })
}
