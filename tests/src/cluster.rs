//! A cluster: nodes with daemons, initialized and joined as a user would.

use std::{ops::Index, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    binaries::Binaries,
    leftovers::Prefix,
    node::Node,
    process::Lifetime,
    testnet::{TestNet, Wire},
    wait::wait,
};

/// How long members may take to see each other.
const MEET: Duration = Duration::from_secs(20);

/// Nodes that form one cluster; the first is its manager.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: daemons and their pins before the namespaces they live in.
    nodes: Vec<Node>,
    net: TestNet,
}

/// As [`run`], on another wire.
pub fn run_on(wire: Wire, count: u8, story: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let net = TestNet::on(Prefix::unique(), count, wire)?;
    let cluster = Cluster::daemons_on(net, Binaries::find()?, Lifetime::Owner)?;
    let told = cluster.form().and_then(|()| story(&cluster));
    told.map_err(|error| cluster.explain(error))
}

/// Runs `story` on a new cluster of `count` nodes; when it fails, the error ends with what the daemons logged last.
pub fn run(count: u8, story: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let cluster = Cluster::start(count)?;
    story(&cluster).map_err(|error| cluster.explain(error))
}

impl Cluster {
    /// Starts `count` nodes: `init` on the first, `join` on the rest.
    pub fn start(count: u8) -> Result<Self> {
        let cluster = Self::daemons(Prefix::unique(), count, Binaries::find()?, Lifetime::Owner)?;
        cluster.form().map_err(|error| cluster.explain(error))?;
        Ok(cluster)
    }

    /// Starts `count` daemons that are not a cluster yet.
    pub fn daemons(prefix: Prefix, count: u8, binaries: Binaries, lifetime: Lifetime) -> Result<Self> {
        Self::daemons_on(TestNet::create(prefix, count)?, binaries, lifetime)
    }

    /// As [`Cluster::daemons`], a daemon on each node of `net`.
    pub fn daemons_on(net: TestNet, binaries: Binaries, lifetime: Lifetime) -> Result<Self> {
        let mut cluster = Self { nodes: Vec::new(), net };
        for index in 0..cluster.net.nodes().len() {
            let node = Node::new(&cluster.net, index, binaries.clone(), lifetime)?;
            node.start().with_context(|| format!("node {}", node.name()))?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Makes the daemons one cluster and waits until all see all.
    pub fn form(&self) -> Result<()> {
        self.init()?;
        for index in 1..self.nodes.len() {
            self.join(index)?;
        }
        self.wait_for_members(self.nodes.len())
    }

    /// `init` on the first node.
    pub fn init(&self) -> Result<()> {
        let first = &self[0];
        first
            .ctl(&["init", "--name", &first.name(), "--advertise-addr", &first.underlay().to_string()])
            .map(drop)
    }

    /// `join` on a node, as a worker.
    pub fn join(&self, index: usize) -> Result<()> {
        let token = self.worker_token()?;
        let node = &self[index];
        let manager = std::net::SocketAddr::new(self[0].underlay(), 2377).to_string();
        let (name, address) = (node.name(), node.underlay().to_string());
        node.ctl(&["join", "--token", &token, "--name", &name, "--advertise-addr", &address, &manager])
            .map(drop)
    }

    /// The token with which workers join.
    pub fn worker_token(&self) -> Result<String> {
        let text = self[0].ctl(&["join-token", "worker"])?;
        let token =
            text.split(|c: char| c.is_whitespace() || c == '"').find(|word| word.starts_with("MESHTKN-"));
        Ok(token.with_context(|| format!("`join-token worker` names no token: {text}"))?.to_owned())
    }

    /// Waits until every daemon counts `count` living members.
    pub fn wait_for_members(&self, count: usize) -> Result<()> {
        for node in &self.nodes {
            let seen = || {
                let alive = alive(node)?;
                ensure!(alive == count, "{} sees {alive} of {count} nodes alive", node.name());
                Ok(())
            };
            wait("the nodes to see each other", MEET, seen)?;
        }
        Ok(())
    }

    /// Waits until every node knows what the manager has decided so far.
    pub fn wait_for_view(&self) -> Result<()> {
        let version = |node: &Node| -> Result<u64> {
            let status = node.ctl_json(&["status"])?;
            status["view_version"].as_u64().context("`status` has no view_version")
        };
        let wanted = version(&self[0])?;
        for node in &self.nodes {
            wait("the manager's decisions to arrive", MEET, || {
                let known = version(node)?;
                ensure!(known >= wanted, "{} knows version {known}, not {wanted}", node.name());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The wire.
    pub fn net(&self) -> &TestNet {
        &self.net
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// `error` with the ends of the daemons' logs.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let logs =
            self.nodes.iter().map(|node| format!("--- {}\n{}\n", node.log().display(), node.log_tail()));
        anyhow::anyhow!("{error:#}\n{}", logs.collect::<String>())
    }

    /// Leaves everything in place on drop.
    pub fn keep(&mut self) {
        self.nodes.iter_mut().for_each(Node::keep);
        self.net.keep();
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    /// The node at `index`.
    ///
    /// # Panics
    /// When there is none.
    fn index(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

/// How many members the node counts as living, itself included.
fn alive(node: &Node) -> Result<usize> {
    let nodes = node.ctl_json(&["node", "ls"])?;
    let nodes = nodes.as_array().context("`node ls` is no list")?;
    let ready = |node: &&serde_json::Value| {
        ["status", "state"]
            .iter()
            .filter_map(|key| node[key].as_str())
            .any(|state| state.eq_ignore_ascii_case("ready") || state.eq_ignore_ascii_case("alive"))
    };
    Ok(nodes.iter().filter(ready).count())
}
