//! The wire: node namespaces and an outside client on one bridge.

use std::{fs::File, net::Ipv4Addr, path::Path, process::Command};

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
    keep: bool,
}

impl TestNet {
    /// Makes namespaces for `count` nodes and a client, after removing what ended runs left.
    pub fn create(prefix: Prefix, count: u8) -> Result<Self> {
        prepare_machine(&prefix)?;
        let hub = NetNs::create(&prefix.namespace("hub"))?;
        hub.ip(&format!(
            "link add br0 type bridge\naddr add {GATEWAY}/24 dev br0\naddr add {OUTSIDE}/32 dev lo\nlink set br0 up"
        ))?;
        let client = NetNs::create(&prefix.namespace("client"))?;
        plug(&hub, &client, "client", CLIENT)?;
        let mut net = Self { prefix, nodes: Vec::new(), client, hub, keep: false };
        for index in 0..count {
            let role = role(index.into());
            let node = NetNs::create(&net.prefix.namespace(&role))?;
            plug(&net.hub, &node, &role, address(index.into()))?;
            net.nodes.push(node);
        }
        Ok(net)
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
        let mut net = Self { prefix, nodes: Vec::new(), client, hub, keep: false };
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

    /// The namespace of the bridge, which plays the rest of the world.
    pub fn hub(&self) -> &NetNs {
        &self.hub
    }

    /// The underlay address of a node.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        address(node)
    }

    /// Cuts a node off: its cable stays up, but leads nowhere. Not for cards, which have no bridge.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.hub.ip(&format!("link set {} nomaster", role(node)))
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

fn plug(hub: &NetNs, node: &NetNs, port: &str, address: Ipv4Addr) -> Result<()> {
    let peer = node.name();
    hub.ip(&format!("link add {port} type veth peer name eth0 netns {peer}\nlink set {port} master br0 up"))?;
    node.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}"))
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
    sweep()?;
    let records = prefix.folder().join("pids");
    std::fs::create_dir_all(&records).with_context(|| format!("cannot make {}", records.display()))
}
