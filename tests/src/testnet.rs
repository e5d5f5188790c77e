//! The wire: node namespaces and an outside client on one bridge.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    leftovers::{Prefix, remove_folder, sweep},
    netns::NetNs,
    process::succeed,
};

/// The bridge's own address: the default gateway of nodes and client.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// An address beyond the gateway, standing for the rest of the world.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 100);
/// As [`GATEWAY`], on wires with IPv6.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// As [`OUTSIDE`], on wires with IPv6.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

/// Neighbours that all nodes may know together.
const NEIGHBOURS: u32 = 16_384;

/// What the wire carries, and how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// IPv4 addresses on every namespace.
    pub v4: bool,
    /// IPv6 addresses on every namespace; without `v4` the nodes talk over them.
    pub v6: bool,
    /// The MTU of every cable in bytes.
    pub mtu: u32,
    /// A second segment, with `eth1` of every node and of the client on it: 192.168.78.0/24.
    pub second: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self { v4: true, v6: false, mtu: 1500, second: false }
    }
}

/// Namespaces joined by a bridge: the underlay of a cluster.
///
/// Every run has the same addresses, since nothing but names is shared between runs.
#[derive(Debug)]
pub struct TestNet {
    prefix: Prefix,
    nodes: Vec<NetNs>,
    client: NetNs,
    // The last to go: the others' links end in it.
    hub: NetNs,
    wire: Wire,
    keep: bool,
}

impl TestNet {
    /// Makes namespaces for `count` nodes and a client, after removing what ended runs left.
    pub fn create(prefix: Prefix, count: u8) -> Result<Self> {
        Self::on(prefix, count, Wire::default())
    }

    /// As [`TestNet::create`], on another wire.
    pub fn on(prefix: Prefix, count: u8, wire: Wire) -> Result<Self> {
        prepare_machine(&prefix)?;
        let hub = NetNs::create(&prefix.namespace("hub"))?;
        hub.ip("link add br0 type bridge\nlink set br0 up")?;
        if wire.v4 {
            hub.ip(&format!("addr add {GATEWAY}/24 dev br0\naddr add {OUTSIDE}/32 dev lo"))?;
        }
        if wire.v6 {
            hub.ip(&format!("addr add {GATEWAY6}/64 dev br0 nodad\naddr add {OUTSIDE6}/128 dev lo nodad"))?;
        }
        if wire.second {
            hub.ip("link add br1 type bridge\nlink set br1 up")?;
        }
        let client = NetNs::create(&prefix.namespace("client"))?;
        let mut net = Self { prefix, nodes: Vec::new(), client, hub, wire, keep: false };
        net.plug(&net.client, "client", CLIENT, CLIENT6)?;
        for index in 0..count.into() {
            net.nodes.push(NetNs::create(&net.prefix.namespace(&role(index)))?);
            net.plug_node(index)?;
        }
        Ok(net)
    }

    /// Gives a node its cables, as they were when it was made.
    pub fn plug_node(&self, node: usize) -> Result<()> {
        self.plug(&self.nodes[node], &role(node), address(node), address6(node))
    }

    /// Takes a node's first cable away: its `eth0` is gone.
    pub fn unplug_node(&self, node: usize) -> Result<()> {
        self.hub.ip(&format!("link del {}", role(node)))
    }

    /// Gives another MTU to a node's first cable.
    pub fn set_mtu(&self, node: usize, mtu: u32) -> Result<()> {
        self.hub.ip(&format!("link set {} mtu {mtu}", role(node)))?;
        self.nodes[node].ip(&format!("link set eth0 mtu {mtu}"))
    }

    fn plug(&self, node: &NetNs, port: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
        let Wire { mtu, second, .. } = self.wire;
        self.cable(node, port, "br0", "eth0", mtu)?;
        if self.wire.v4 {
            node.ip(&format!("addr add {v4}/24 dev eth0\nroute add default via {GATEWAY}"))?;
        }
        if self.wire.v6 {
            node.ip(&format!("addr add {v6}/64 dev eth0 nodad\nroute add default via {GATEWAY6}"))?;
        }
        let there = || node.ip("link show eth1").is_ok();
        if second && !there() {
            let [a, b, _, d] = v4.octets();
            self.cable(node, &format!("{port}b"), "br1", "eth1", mtu)?;
            node.ip(&format!("addr add {}/24 dev eth1", Ipv4Addr::new(a, b, 78, d)))?;
        }
        Ok(())
    }

    fn cable(&self, node: &NetNs, port: &str, bridge: &str, name: &str, mtu: u32) -> Result<()> {
        let peer = node.name();
        self.hub.ip(&format!(
            "link add {port} mtu {mtu} type veth peer name {name} mtu {mtu} netns {peer}\nlink set {port} master {bridge} up"
        ))?;
        node.ip(&format!("link set {name} up"))
    }

    /// As [`TestNet::create`] over network cards, which are on one segment already: the first is the gateway's, the
    /// second the client's, each further one a node's. The namespaces' end gives them back.
    pub fn over_cards(prefix: Prefix, cards: &[String]) -> Result<Self> {
        let [gateway, outside, inside @ ..] = cards else {
            bail!("{} network cards are not enough", cards.len());
        };
        prepare_machine(&prefix)?;
        let hub = NetNs::create(&prefix.namespace("hub"))?;
        move_card(&hub, gateway, GATEWAY)?;
        hub.ip(&format!("addr add {OUTSIDE}/32 dev lo"))?;
        let client = NetNs::create(&prefix.namespace("client"))?;
        let wire = Wire::default();
        let mut net = Self { prefix, nodes: Vec::new(), client, hub, wire, keep: false };
        move_card(&net.client, outside, CLIENT)?;
        net.client.ip(&format!("route add default via {GATEWAY}"))?;
        for (index, card) in inside.iter().enumerate() {
            let node = NetNs::create(&net.prefix.namespace(&role(index)))?;
            move_card(&node, card, address(index))?;
            node.ip(&format!("route add default via {GATEWAY}"))?;
            net.nodes.push(node);
        }
        Ok(net)
    }

    /// Puts the IPv4 addresses of every namespace on a VLAN device (802.1Q) upon the link that holds them, such as
    /// `eth0.7`; the link itself keeps none. For kernels with such devices, before daemons run.
    pub fn tag(&self, vlan: u16) -> Result<()> {
        let segment = if self.hub.ip("link show br0").is_ok() { "br0" } else { "eth0" };
        tag(&self.hub, segment, vlan, GATEWAY)?;
        let nodes = self.nodes.iter().enumerate().map(|(index, node)| (node, address(index)));
        for (namespace, address) in nodes.chain([(&self.client, CLIENT)]) {
            tag(namespace, "eth0", vlan, address)?;
            namespace.ip(&format!("route add default via {GATEWAY}"))?;
        }
        Ok(())
    }

    /// What the names of this run begin with.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The namespaces of the nodes.
    pub fn nodes(&self) -> &[NetNs] {
        &self.nodes
    }

    /// The client's namespace.
    pub fn client(&self) -> &NetNs {
        &self.client
    }

    /// The client's address.
    pub fn client_address(&self) -> Ipv4Addr {
        CLIENT
    }

    /// The client's IPv6 address, on wires with IPv6.
    pub fn client_address6(&self) -> Ipv6Addr {
        CLIENT6
    }

    /// What the wire carries.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// The namespace of the bridge, which plays the rest of the world.
    pub fn hub(&self) -> &NetNs {
        &self.hub
    }

    /// The underlay address of a node.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        address(node)
    }

    /// The IPv6 address of a node, on wires with IPv6.
    pub fn address6(&self, node: usize) -> Ipv6Addr {
        address6(node)
    }

    /// The address by which a node talks to the others.
    pub fn underlay(&self, node: usize) -> IpAddr {
        if self.wire.v4 { address(node).into() } else { address6(node).into() }
    }

    /// Cuts a node off: its cable stays up, but leads nowhere. Not for cards, which have no bridge.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.hub.ip(&format!("link set {} nomaster", role(node)))
    }

    /// Moves nodes to a segment of their own, where they reach each other and nobody else.
    pub fn strand(&self, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
        if self.hub.ip("link show island").is_err() {
            self.hub.ip("link add island type bridge\nlink set island up")?;
        }
        nodes.into_iter().try_for_each(|node| self.hub.ip(&format!("link set {} master island", role(node))))
    }

    /// Joins a node that was cut off.
    pub fn heal(&self, node: usize) -> Result<()> {
        self.hub.ip(&format!("link set {} master br0", role(node)))
    }

    /// Leaves everything in place on drop; [`crate::remove_all`] removes it.
    pub fn keep(&mut self) {
        self.keep = true;
        self.hub.keep();
        self.client.keep();
        self.nodes.iter_mut().for_each(NetNs::keep);
    }
}

impl Drop for TestNet {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove_folder(&self.prefix.folder())
        {
            eprintln!("{error:#}");
        }
    }
}

pub(crate) fn role(node: usize) -> String {
    format!("n{}", node + 1)
}

fn address(node: usize) -> Ipv4Addr {
    // More than a hundred nodes would meet the client's address.
    Ipv4Addr::new(192, 168, 77, u8::try_from(11 + node).unwrap_or(u8::MAX))
}

fn address6(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::try_from(0x11 + node).unwrap_or(u16::MAX))
}

/// Moves the address from a link to a VLAN device upon it.
fn tag(namespace: &NetNs, link: &str, vlan: u16, address: Ipv4Addr) -> Result<()> {
    let tagged = format!("{link}.{vlan}");
    namespace.ip(&format!(
        "addr del {address}/24 dev {link}\nlink add link {link} name {tagged} type vlan id {vlan}\n\
         addr add {address}/24 dev {tagged}\nlink set {tagged} up"
    ))
}

/// Gives a network card to a namespace, as `eth0`.
fn move_card(namespace: &NetNs, card: &str, address: Ipv4Addr) -> Result<()> {
    let name = namespace.name();
    succeed(Command::new("ip").args(["link", "set", card, "down", "netns", name, "name", "eth0"]))?;
    namespace.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up"))
}

/// Mounts bpffs where it is expected, removes what ended runs left, and makes the run's folder; one process at a time.
fn prepare_machine(prefix: &Prefix) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root");
    }
    let lock = File::create("/run/meshd-tests.lock").context("cannot make /run/meshd-tests.lock")?;
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).context("/run/meshd-tests.lock")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let mounted = mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf"));
    if !mounted && Path::new("/sys/fs/bpf").exists() {
        succeed(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
    }
    make_room_for_neighbours()?;
    sweep()?;
    let records = prefix.folder().join("pids");
    std::fs::create_dir_all(&records).with_context(|| format!("cannot make {}", records.display()))
}

/// All namespaces share one limit of neighbours, 1,024 unless said: too few for fifty nodes that each know fifty.
fn make_room_for_neighbours() -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh3");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if text.trim().parse::<u32>().is_ok_and(|limit| limit < NEIGHBOURS) {
            std::fs::write(&path, NEIGHBOURS.to_string()).with_context(|| path.clone())?;
        }
    }
    Ok(())
}
