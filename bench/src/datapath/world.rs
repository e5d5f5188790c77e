//! One cluster with everything that is compared on it.
//!
//! ```text
//! client ─┐            processor of clients: client, n1
//! n1 asker┤ bridge     processor of servers: n2, n3
//! n2 near ┤            overlay: asker → near, n1 → n2
//! n3 far  ┘            published ports: client → n2, with the task there (near) or on n3 (far)
//! ```

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Node, Task, TaskSpec, get, output, resolve, wait};

use super::Group;
use crate::{
    load::{Server, nginx_words},
    path::{Path, Ports, Way},
    peers::{self, Haproxy, Route, VxlanBridge},
    pinning::{self, Processors},
};

const NETWORK: &str = "bench";
const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// What servers answer.
const NEAR: &str = "near";
const FAR: &str = "far";
const STRAIGHT: &str = "straight";
const BRIDGED: &str = "bridged";
/// How long what was set up may take to answer.
const SETTLE: Duration = Duration::from_secs(10);

/// The cluster, its tasks and its peers.
pub struct World {
    // Dropped in this order: what lives in namespaces before them, tasks before their daemons.
    _haproxy: Option<Haproxy>,
    _servers: Vec<Server>,
    _bridge: Option<VxlanBridge>,
    /// The task that asks across the overlay.
    pub asker: Task,
    /// The task on the node that clients speak to.
    pub near: Task,
    /// The task on another.
    pub far: Task,
    /// The ways that are compared end to end.
    pub paths: Vec<(Group, Vec<Path>)>,
    /// What a reader should know.
    pub notes: Vec<String>,
    cluster: Cluster,
}

impl World {
    /// The node of `asker`.
    pub const ASKER: usize = 0;
    /// The node of `near`, which clients speak to.
    pub const NEAR: usize = 1;
    /// The node of `far`.
    pub const FAR: usize = 2;

    /// Published ports that lead to `near`.
    pub const NEAR_PORTS: Ports = Ports::from(11000);
    /// Published ports that lead to `far`.
    pub const FAR_PORTS: Ports = Ports::from(12000);
    const DIRECT_PORTS: Ports = Ports::from(13000);
    const DNAT_PORTS: Ports = Ports::from(14000);
    const HAPROXY_PORTS: Ports = Ports::from(15000);
    const STRAIGHT_PORTS: Ports = Ports::from(16000);

    /// Starts it all; `steered` gives each node the processor of its side for what it receives.
    pub fn start(groups: &[Group], processors: Processors, steered: bool) -> Result<Self> {
        let cluster = Cluster::start(3)?;
        let net = cluster.net();
        if steered {
            let [asker, near, far] =
                [Self::ASKER, Self::NEAR, Self::FAR].map(|node| net.nodes()[node].path());
            for (node, processor) in [
                (net.client().path(), processors.client),
                (asker, processors.client),
                (near, processors.server),
                (far, processors.server),
            ] {
                pinning::receive_on(&node, processor)?;
            }
        }
        let tasks = tasks(&cluster, processors.server).map_err(|error| cluster.explain(error))?;
        let [asker, near, far] = tasks;
        let mut world = Self {
            _haproxy: None,
            _servers: Vec::new(),
            _bridge: None,
            asker,
            near,
            far,
            paths: Vec::new(),
            notes: Vec::new(),
            cluster,
        };
        world.set_up(groups, processors.server).map_err(|error| world.explain(error))?;
        Ok(world)
    }

    fn set_up(&mut self, groups: &[Group], processor: usize) -> Result<()> {
        self.publish(NEAR, Self::NEAR_PORTS, "")?;
        self.publish(FAR, Self::FAR_PORTS, "")?;
        if groups.contains(&Group::Overlay) || groups.contains(&Group::Published) {
            let ports = Self::STRAIGHT_PORTS;
            let near = self.namespace(Self::NEAR)?.path();
            let prefix = self.cluster.net().prefix();
            self._servers.push(Server::start(prefix, STRAIGHT, &near, ports.http, processor)?);
        }
        if groups.contains(&Group::Overlay) {
            let paths = self.overlay(processor).context("the overlay and its peers")?;
            self.paths.push((Group::Overlay, paths));
        }
        if groups.contains(&Group::Published) {
            let paths = self.published(processor).context("published ports and their peers")?;
            self.paths.push((Group::Published, paths));
        }
        self.cluster.wait_for_view()
    }

    fn overlay(&mut self, processor: usize) -> Result<Vec<Path>> {
        let net = self.cluster.net();
        let bridge = VxlanBridge::create(net, net.prefix())?;
        let (from, to) = (bridge.first.path(), bridge.second.path());
        let server = Server::start(net.prefix(), BRIDGED, &to, Ports::USUAL.http, processor)?;
        let node = |index| Ok::<_, anyhow::Error>(self.namespace(index)?.path());
        let straight = (net.address(Self::NEAR), Self::STRAIGHT_PORTS, STRAIGHT);
        let paths = vec![
            Path::plain(
                Way::Underlay,
                node(Self::ASKER)?,
                node(Self::NEAR)?,
                straight.0,
                straight.1,
                straight.2,
            ),
            Path::plain(
                Way::Overlay,
                self.asker.namespace(),
                self.near.namespace(),
                self.near.address()?,
                Ports::USUAL,
                NEAR,
            ),
            Path::plain(Way::Bridge, from, to, VxlanBridge::SECOND, Ports::USUAL, BRIDGED),
        ];
        self._servers.push(server);
        self._bridge = Some(bridge);
        Ok(paths)
    }

    fn published(&mut self, processor: usize) -> Result<Vec<Path>> {
        let direct = self.knows_direct_return()?;
        if !direct {
            self.notes.push("this meshctl knows no direct return, so that is not measured".to_owned());
        }
        let net = self.cluster.net();
        let (client, entry) = (net.client().path(), self.namespace(Self::NEAR)?);
        let address = net.address(Self::NEAR);
        let to_task = |way, task: &Task, dialled, server| Path {
            way,
            from: client.clone(),
            to: task.namespace(),
            address: address.into(),
            dialled,
            served: Ports::USUAL,
            udp: way != Way::Haproxy,
            server,
        };
        let mut paths = vec![
            Path::plain(Way::Straight, client.clone(), entry.path(), address, Self::STRAIGHT_PORTS, STRAIGHT),
            to_task(Way::Near, &self.near, Self::NEAR_PORTS, NEAR),
            to_task(Way::Far, &self.far, Self::FAR_PORTS, FAR),
        ];
        if direct {
            self.publish(FAR, Self::DIRECT_PORTS, ",return=direct")?;
            paths.push(to_task(Way::FarDirect, &self.far, Self::DIRECT_PORTS, FAR));
        }
        Route::create(net, Self::NEAR, Self::FAR, &self.far)?;
        let rules = net.prefix().folder().join("peer.nft");
        let ports = (Self::DNAT_PORTS, Ports::USUAL);
        peers::translate(entry, &rules, address, Route::TASK, ports)?;
        paths.push(to_task(Way::Dnat, &self.far, Self::DNAT_PORTS, FAR));
        let ports = (Self::HAPROXY_PORTS, Ports::USUAL);
        let haproxy = Haproxy::start(net.prefix(), entry, Route::TASK, ports, processor)?;
        paths.push(to_task(Way::Haproxy, &self.far, Self::HAPROXY_PORTS, FAR));
        self._haproxy = Some(haproxy);
        Ok(paths)
    }

    fn publish(&self, service: &str, from: Ports, options: &str) -> Result<()> {
        for (from, to, protocol) in from.pairs(Ports::USUAL) {
            let port = format!("published={from},target={to},protocol={protocol}{options}");
            self.cluster[0].ctl(&["publish", &port, service])?;
        }
        Ok(())
    }

    fn knows_direct_return(&self) -> Result<bool> {
        let help = output(self.cluster[0].meshctl()?.args(["publish", "--help"]))?;
        Ok(help.contains("return="))
    }

    /// Waits until each way leads where it should, so that nothing else is measured by mistake.
    pub fn check_paths(&self) -> Result<()> {
        for path in self.paths.iter().flat_map(|(_, paths)| paths) {
            let ask = || -> Result<()> {
                let said = NetNs::run_at(&path.from, || get(path.dial(|p| p.http), Duration::from_secs(1)))??;
                ensure!(said == path.server, "{said} answers, not {}", path.server);
                Ok(())
            };
            wait(path.way.title(), SETTLE, ask)?;
        }
        Ok(())
    }

    /// The nodes and their namespaces.
    pub fn nodes(&self) -> impl Iterator<Item = (&Node, PathBuf)> {
        self.cluster.nodes().iter().zip(self.cluster.net().nodes().iter().map(NetNs::path))
    }

    /// The address of the client outside.
    pub fn client(&self) -> Ipv4Addr {
        self.cluster.net().client_address()
    }

    /// The VIP of the service that `far` is of.
    pub fn vip(&self) -> Result<Ipv4Addr> {
        let name = format!("{FAR}.{NETWORK}");
        let ask = || self.asker.inside(|| resolve(DNS, &name, Duration::from_secs(1)))?;
        wait("the service's name", SETTLE, || Ok(*ask()?.first().context("no such name")?))
    }

    /// `error` with the ends of the daemons' logs.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        self.cluster.explain(error)
    }

    fn namespace(&self, node: usize) -> Result<&NetNs> {
        self.cluster.net().nodes().get(node).context("no such node")
    }
}

/// The network, its tasks and their services.
fn tasks(cluster: &Cluster, processor: usize) -> Result<[Task; 3]> {
    let subnet = ["--subnet", "10.10.3.0/24"];
    let create = [&["network", "create", "--driver", "overlay"][..], &subnet, &["--attachable", NETWORK]];
    cluster[0].ctl(&create.concat())?;
    for service in [NEAR, FAR] {
        cluster[0].ctl(&["service", "create", "--network", NETWORK, service])?;
    }
    cluster.wait_for_view()?;
    let spec = |name, service| TaskSpec { name, network: NETWORK, service, ..TaskSpec::default() };
    let asker = cluster[World::ASKER].run_idle(&spec("asker", None))?;
    let serving = |node: usize, name| -> Result<Task> {
        let folder = cluster.net().prefix().folder().join(format!("nginx-{name}"));
        let words = nginx_words(&folder, name, Ports::USUAL.http)?;
        let words: Vec<&OsStr> = words.iter().map(|word| word.as_os_str()).collect();
        let task = cluster[node].run_task(&spec(name, Some(name)), &words)?;
        pinning::pin_process(task.pid(), processor)?;
        Ok(task)
    };
    Ok([asker, serving(World::NEAR, NEAR)?, serving(World::FAR, FAR)?])
}
