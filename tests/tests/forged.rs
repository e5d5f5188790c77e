//! SWARM's acceptance 9, on the wire: VXLAN packets that nobody honest sends, and tasks that lie about who they are. Each
//! is dropped and counted by its reason, and none reaches a task: neither by the fast path nor by the kernel's VXLAN device,
//! which whoever sends chooses, since the fast path leaves packets with outer options to it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use mesh_abi::{GATEWAY_MAC, INGRESS_VNI, QUESTION, QUESTION_LEN, RETURN_VNI, Steering, SteeringKind, Turn};
use mesh_tests::{Cluster, NetNs, Node, RawLink, Task, TaskSpec, output, run, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
/// Where the victim listens.
const PORT: u16 = 9001;
const VXLAN: u16 = 4789;
/// Of each forgery; one that comes through is one too many.
const COUNT: u64 = 5;
/// A VNI that no network has.
const NOBODYS: u32 = 0x00ab_cdef;

fn create(cluster: &Cluster) -> Result<()> {
    for (name, v4, v6) in [("prod", "10.10.3.0/24", "fd00:3::/64"), ("other", "10.10.4.0/24", "fd00:4::/64")]
    {
        cluster[0].ctl(&["network", "create", "--subnet", v4, "--subnet", v6, "--attachable", name])?;
    }
    cluster.wait_for_view()
}

fn idle(node: &Node, name: &str, network: &str) -> Result<Task> {
    node.run_idle(&TaskSpec { name, network, ..TaskSpec::default() })
}

fn vni(cluster: &Cluster, network: &str) -> Result<u32> {
    let networks = cluster[0].ctl_json(&["network", "ls"])?;
    let found = networks.as_array().into_iter().flatten().find(|n| n["name"] == network);
    let vni = found.and_then(|n| n["vni"].as_u64()).with_context(|| format!("no VNI: {networks}"))?;
    u32::try_from(vni).context("a VNI")
}

/// What a node counts as `name`, of its `drops` or `packets`.
fn counted(node: &Node, kind: &str, name: &str) -> Result<u64> {
    let status = node.ctl_json(&["status"])?;
    let counters = status["data_path"][kind].as_object();
    let counters = counters.with_context(|| format!("`status` counts no {kind}: {status}"))?;
    Ok(counters.get(name).and_then(Value::as_u64).unwrap_or(0))
}

/// `commit` makes packets that the node drops and counts for that reason.
fn is_counted(node: &Node, what: &str, reason: &str, commit: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = counted(node, "drops", reason)?;
    commit().with_context(|| what.to_owned())?;
    wait("the drops to be counted", SOON, || {
        let counted = counted(node, "drops", reason)? - before;
        ensure!(counted >= COUNT, "{counted} of {COUNT}, reason {reason}");
        Ok(())
    })
    .with_context(|| what.to_owned())
}

/// An Ethernet frame with a datagram for the victim's port, or another.
fn datagram(macs: ([u8; 6], [u8; 6]), from: Ipv4Addr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(macs.0, macs.1);
    match to.ip() {
        std::net::IpAddr::V4(v4) => {
            let ip = ethernet.ipv4(from.octets(), v4.octets(), 64);
            ip.udp(5000, to.port()).write(&mut frame, payload)?;
        }
        std::net::IpAddr::V6(v6) => {
            let from = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0xbad, u16::from(from.octets()[3]));
            let ip = ethernet.ipv6(from.octets(), v6.octets(), 64);
            ip.udp(5000, to.port()).write(&mut frame, payload)?;
        }
    }
    Ok(frame)
}

/// A frame in VXLAN (RFC 7348).
fn wrapped(vni: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&[0x08, 0, 0, 0, a, b, c, 0], frame].concat()
}

/// What takes the outer headers off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    FastPath,
    Device,
}

/// Sends VXLAN packets from a namespace to a node.
fn send(from: &NetNs, node: &Node, by: By, packet: &[u8]) -> Result<()> {
    let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("a socket")?;
    if by == By::Device {
        // Three options without a meaning and the end of the list (RFC 791, section 3.1).
        let options = [1u8, 1, 1, 0];
        let (level, option) = (libc::IPPROTO_IP, libc::IP_OPTIONS);
        // SAFETY: the kernel reads four bytes.
        let failed =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, options.as_ptr().cast(), 4) };
        ensure!(failed == 0, "IP_OPTIONS: {}", std::io::Error::last_os_error());
    }
    for _ in 0..COUNT {
        socket.send_to(packet, (node.address(), VXLAN)).context("sending")?;
    }
    Ok(())
}

/// Whether what is sent to the node's VXLAN port comes back.
fn is_answered(from: &NetNs, node: &Node, question: &[u8]) -> Result<bool> {
    let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("a socket")?;
    socket.set_read_timeout(Some(Duration::from_millis(300))).context("a socket's timeout")?;
    for _ in 0..COUNT {
        socket.send_to(question, (node.address(), VXLAN)).context("sending")?;
    }
    let mut buffer = [0; 64];
    Ok(socket.recv(&mut buffer).is_ok_and(|len| buffer[..len] == *question))
}

fn mac(task: &Task) -> Result<[u8; 6]> {
    let text = output(task.command("ip")?.args(["-br", "link", "show", "eth0"]))?;
    let word = text.split_whitespace().find(|word| word.matches(':').count() == 5).context("no address")?;
    let bytes: Vec<u8> = word.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{word} is no Ethernet address"))
}

/// The one that forgeries are for, with all that it was sent.
struct Victim {
    task: Task,
    address: Ipv4Addr,
    socket: UdpSocket,
}

impl Victim {
    fn attach(node: &Node) -> Result<Self> {
        let task = idle(node, "victim", "prod")?;
        let socket = task.inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))?.context("a socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).context("a socket's timeout")?;
        Ok(Self { address: task.address()?, task, socket })
    }

    /// What has come since the last call.
    fn heard(&self) -> Vec<String> {
        let mut buffer = [0; 2048];
        let next =
            || self.socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into());
        std::iter::from_fn(next).collect()
    }

    /// A packet that is as `packet` should be arrives, and nothing that came before it.
    fn hears_only(&self, what: &str, mut say: impl FnMut() -> Result<()>) -> Result<()> {
        wait("an honest packet to arrive", SOON, || {
            say()?;
            let heard = self.heard();
            ensure!(!heard.is_empty(), "nothing came");
            ensure!(heard.iter().all(|text| text == "honest"), "the victim heard {heard:?}");
            Ok(())
        })
        .with_context(|| what.to_owned())
    }
}

#[test]
fn forged_packets_are_dropped_and_counted() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let (target, net) = (&cluster[0], cluster.net());
        let victim = Victim::attach(target)?;
        let (friend, third) = (idle(&cluster[1], "friend", "prod")?, idle(&cluster[2], "third", "prod")?);
        // A network that the victim's node has no task on.
        let _elsewhere = idle(&cluster[1], "elsewhere", "other")?;
        let (from, foreign) = (friend.address()?, third.address()?);
        let (prod, other) = (vni(cluster, "prod")?, vni(cluster, "other")?);
        let ask = || {
            let socket =
                friend.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("a socket")?;
            socket.send_to(b"honest", (victim.address, PORT)).map(drop).context("sending")
        };
        victim.hears_only("the friend, before", ask)?;
        // As packets are on a wire: with every checksum in its place.
        for sender in [net.client(), &net.nodes()[1]] {
            output(sender.command("ethtool")?.args(["-K", "eth0", "tx", "off"]))?;
        }

        let macs = (mac(&friend)?, mac(&victim.task)?);
        let to = SocketAddr::from((victim.address, PORT));
        let said = |source: Ipv4Addr, text: &str| datagram(macs, source, to, text.as_bytes());
        // A peer can say what its own tasks can: so the forgeries fail for what is wrong with them.
        let honest = wrapped(prod, &said(from, "honest")?);
        for by in [By::FastPath, By::Device] {
            let before = counted(target, "packets", "general-received")?;
            let what = format!("a packet by hand, {by:?}");
            victim.hears_only(&what, || send(&net.nodes()[1], target, by, &honest))?;
            let device = counted(target, "packets", "general-received")? - before;
            ensure!((device > 0) == (by == By::Device), "{what}: {device} went by the device");
        }

        let by = |by: By, what: &str, reason: &str, packet: &[u8]| {
            let what = format!("{what}, {by:?}");
            is_counted(target, &what, reason, || send(&net.nodes()[1], target, by, packet))
        };
        let by_peer = |what: &str, reason: &str, packet: &[u8]| {
            by(By::FastPath, what, reason, packet)?;
            by(By::Device, what, reason, packet)
        };
        let stranger = wrapped(prod, &said(from, "by a stranger")?);
        for by in [By::FastPath, By::Device] {
            is_counted(target, &format!("a sender that is no node, {by:?}"), "unknown-sender", || {
                send(net.client(), target, by, &stranger)
            })?;
        }
        for (what, vni) in [("nobody's", NOBODYS), ("another network's", other)] {
            by_peer(what, "unknown-vni", &wrapped(vni, &said(from, "by a wrong VNI")?))?;
        }
        for source in
            [foreign, victim.address, Ipv4Addr::new(10, 10, 3, 250), net.address(1), net.client_address()]
        {
            let what = format!("the inner source {source}");
            by_peer(&what, "forged-source", &wrapped(prod, &said(source, "in another's name")?))?;
        }
        let six = SocketAddr::from((Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 9), PORT));
        let six = datagram(macs, from, six, b"in nobody's name")?;
        by_peer("an inner source of IPv6", "forged-source", &wrapped(prod, &six))?;
        let nowhere = datagram(macs, from, (Ipv4Addr::new(10, 10, 3, 250), PORT).into(), b"to nobody")?;
        by_peer("an inner destination that nobody has", "no-endpoint", &wrapped(prod, &nowhere))?;
        let astray = datagram(macs, from, (foreign, PORT).into(), b"to be sent on")?;
        by_peer("an inner destination elsewhere", "no-endpoint", &wrapped(prod, &astray))?;
        let mut unmarked = honest.clone();
        unmarked[0] = 0;
        // The device itself refuses such.
        by(By::FastPath, "no VNI", "malformed", &unmarked)?;
        by(By::FastPath, "less than a header", "malformed", &honest[..24])?;

        // What one node asks another is not answered to others, so nobody is sent more than he was.
        let question = [&QUESTION[..], &[7; QUESTION_LEN as usize - QUESTION.len()]].concat();
        is_counted(target, "a question of a stranger", "unknown-sender", || {
            ensure!(!is_answered(net.client(), target, &question)?, "a stranger was answered");
            Ok(())
        })?;
        wait("an answer for a peer", SOON, || {
            ensure!(is_answered(&net.nodes()[1], target, &question)?, "no answer");
            Ok(())
        })?;

        // Within each other: the inner one is never opened, neither for the node nor for the task.
        let nested = |to: Ipv4Addr| datagram(macs, from, (to, VXLAN).into(), &honest);
        by_peer("nested, to the node", "no-endpoint", &wrapped(prod, &nested(target.address())?))?;
        let socket =
            victim.task.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, VXLAN)))?.context("a socket")?;
        socket.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
        for by in [By::FastPath, By::Device] {
            send(&net.nodes()[1], target, by, &wrapped(prod, &nested(victim.address)?))?;
            for _ in 0..COUNT {
                let mut buffer = [0; 2048];
                let len = socket.recv(&mut buffer).with_context(|| format!("port 4789 of a task, {by:?}"))?;
                ensure!(buffer[..len] == honest, "a task's packet was changed");
            }
        }
        ensure!(victim.heard().is_empty(), "a nested packet was opened");

        // What the nodes steer by.
        let steered = |vni: [u8; 4], kind, macs: Option<[u8; 12]>| -> Result<Vec<u8>> {
            // A packet that is steered for the first time would be sent back.
            let turn = if vni == INGRESS_VNI { Turn::Refused } else { Turn::First };
            let steering = Steering { turn, ..Steering::to(u32::MAX, 1, kind) };
            let mut frame = said(net.client_address(), "steered by a forger")?;
            frame[..12].copy_from_slice(&macs.unwrap_or_else(|| steering.encode()));
            Ok(wrapped(u32::from_be_bytes(vni), &frame))
        };
        for kind in [SteeringKind::Published, SteeringKind::Vip, SteeringKind::Host, SteeringKind::Direct] {
            by_peer("to an endpoint that never was", "stale-endpoint", &steered(INGRESS_VNI, kind, None)?)?;
            by_peer("an answer to nothing", "unexpected-return", &steered(RETURN_VNI, kind, None)?)?;
        }
        for vni in [INGRESS_VNI, RETURN_VNI] {
            // A valid source address: else the device refuses it.
            by_peer("not steered", "malformed", &steered(vni, SteeringKind::Published, Some([6; 12]))?)?;
        }
        victim.hears_only("the friend, after", ask)
    })
}

#[test]
fn tasks_speak_for_nobody_else() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let liar = idle(&cluster[1], "liar", "prod")?;
        let neighbour = idle(&cluster[1], "neighbour", "prod")?;
        // On its own node and on another.
        for node in cluster.nodes() {
            let victim = Victim::attach(node)?;
            let (own, gateway) = (mac(&liar)?, GATEWAY_MAC);
            let to = SocketAddr::from((victim.address, PORT));
            let link = RawLink::open(&liar.namespace(), "eth0")?;
            let tell = |macs, source, text: &str| -> Result<()> {
                let frame = datagram(macs, source, to, text.as_bytes())?;
                (0..COUNT).try_for_each(|_| link.send(&frame)).context("sending")
            };
            let honest = || tell((own, gateway), liar.address()?, "honest");
            victim.hears_only("by hand, before", honest)?;
            let lies = |what: &str, macs, source| {
                is_counted(&cluster[1], what, "spoofed-source", || tell(macs, source, what))
            };
            for (what, source) in [
                ("its neighbour's address", neighbour.address()?),
                ("the victim's address", victim.address),
                ("the gateway's address", Ipv4Addr::new(10, 10, 3, 1)),
                ("an address of the other network", Ipv4Addr::new(10, 10, 4, 2)),
                ("the node's address", cluster[1].address()),
                ("an outside address", cluster.net().client_address()),
                ("localhost", Ipv4Addr::LOCALHOST),
            ] {
                lies(what, (own, gateway), source)?;
            }
            for (what, other) in [
                ("its neighbour's Ethernet address", mac(&neighbour)?),
                ("the gateway's Ethernet address", gateway),
            ] {
                lies(what, (other, gateway), liar.address()?)?;
            }
            let six = SocketAddr::from((Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 9), PORT));
            let six = datagram((own, gateway), liar.address()?, six, b"by IPv6")?;
            is_counted(&cluster[1], "an IPv6 address that is not its own", "spoofed-source", || {
                (0..COUNT).try_for_each(|_| link.send(&six)).context("sending")
            })?;
            victim.hears_only("by hand, after", honest)?;
        }
        Ok(())
    })
}
