//! One cluster with the tasks that everything is measured on.
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
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_tests::{Cluster, NetNs, Node, Task, TaskSpec, TestNet, resolve, wait};

use crate::{
    load::nginx_words,
    path::Ports,
    peers,
    pinning::{self, Processors},
};

const NETWORK: &str = "bench";
const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// The services, with a task each, and what those answer.
pub const NEAR: &str = "near";
/// See [`NEAR`].
pub const FAR: &str = "far";
/// How long what was set up may take to answer.
pub const SETTLE: Duration = Duration::from_secs(10);

/// The cluster and its tasks.
pub struct World {
    // Dropped in this order: tasks before their daemons.
    /// The task that asks across the overlay.
    pub asker: Task,
    /// The task on the node that clients speak to.
    pub near: Task,
    /// The task on another.
    pub far: Task,
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

    /// Starts it all; `steered` gives each node the processor of its side for what it receives.
    pub fn start(processors: Processors, steered: bool) -> Result<Self> {
        let cluster = Cluster::start(3)?;
        let net = cluster.net();
        // The wire is to be a wire.
        peers::plain_bridges(net.hub())?;
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
        let [asker, near, far] =
            tasks(&cluster, processors.server).map_err(|error| cluster.explain(error))?;
        let world = Self { asker, near, far, cluster };
        world.publish(NEAR, Self::NEAR_PORTS, "")?;
        world.publish(FAR, Self::FAR_PORTS, "")?;
        Ok(world)
    }

    /// Publishes five ports of a service, with further `options` such as `,return=direct`, and waits until all nodes
    /// know them.
    pub fn publish(&self, service: &str, from: Ports, options: &str) -> Result<()> {
        for (from, to, protocol) in from.pairs(Ports::USUAL) {
            let port = format!("published={from},target={to},protocol={protocol}{options}");
            self.cluster[0].ctl(&["publish", &port, service])?;
        }
        self.cluster.wait_for_view()
    }

    /// The wire.
    pub fn net(&self) -> &TestNet {
        self.cluster.net()
    }

    /// The namespace of a node.
    pub fn namespace(&self, node: usize) -> Result<&NetNs> {
        self.cluster.net().nodes().get(node).context("no such node")
    }

    /// The command line of meshctl.
    pub fn meshctl(&self) -> Result<Command> {
        self.cluster[0].meshctl()
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
