//! A cluster: nodes with daemons, initialized and joined as a user would.

use std::{ops::Index, time::Duration};

use anyhow::{Context, Result, ensure};
use time::OffsetDateTime;

use crate::{
    binaries::Binaries,
    leftovers::Prefix,
    node::Node,
    process::Lifetime,
    testnet::{TestNet, Wire},
    threads::held,
    wait::wait,
};

/// How long members may take to see each other.
const MEET: Duration = Duration::from_secs(20);
/// Daemons that are started or joined at a time where there are many.
const AT_ONCE: usize = 5;

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

/// As [`run`], on so many nodes that they are started and joined several at a time.
pub fn run_many(count: u8, story: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let net = TestNet::create(Prefix::unique(), count)?;
    let cluster = Cluster::nodes_on(net, Binaries::find()?, Lifetime::Owner)?;
    let told = cluster.form_many().and_then(|()| story(&cluster));
    told.map_err(|error| cluster.explain(error))
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
        let cluster = Self::nodes_on(net, binaries, lifetime)?;
        for node in &cluster.nodes {
            node.start().with_context(|| format!("node {}", node.name()))?;
        }
        Ok(cluster)
    }

    /// The nodes of `net`, whose daemons do not run yet.
    pub(crate) fn nodes_on(net: TestNet, binaries: Binaries, lifetime: Lifetime) -> Result<Self> {
        let mut cluster = Self { nodes: Vec::new(), net };
        for index in 0..cluster.net.nodes().len() {
            cluster.nodes.push(Node::new(&cluster.net, index, binaries.clone(), lifetime)?);
        }
        Ok(cluster)
    }

    /// Starts the daemons of some nodes, a few at a time, and waits until they answer.
    pub fn start_daemons(&self, nodes: &[Node]) -> Result<()> {
        for some in nodes.chunks(AT_ONCE) {
            some.iter().try_for_each(Node::begin_start)?;
            for node in some {
                node.await_answer().with_context(|| format!("node {}", node.name()))?;
            }
        }
        Ok(())
    }

    /// Starts all daemons and makes them one cluster, several at a time.
    fn form_many(&self) -> Result<()> {
        self.start_daemons(&self.nodes)?;
        self.init()?;
        let token = self.worker_token()?;
        for some in self.nodes[1..].chunks(AT_ONCE) {
            // A manager among so many may be slow to answer.
            self.all_at_once(some, |node| {
                wait("a node to join", MEET, || self.join_with(node.index(), &token))
            })?;
            for node in some {
                // Loading the programs is most of the work: the next ones are not to begin upon it.
                let programmed = || {
                    ensure!(node.pins().iter().any(|pin| pin.starts_with("links/")), "{}", node.name());
                    Ok(())
                };
                wait("a node to load its programs", MEET * 3, programmed)?;
            }
        }
        self.wait_for_members(self.nodes.len())
    }

    /// Makes the daemons one cluster and waits until all see all.
    pub fn form(&self) -> Result<()> {
        self.init()?;
        if self.nodes.len() > 1 {
            let token = self.worker_token()?;
            // Each loads its programs before it answers, so that more at a time would all be late.
            for two in self.nodes[1..].chunks(2) {
                self.all_at_once(two, |node| self.join_with(node.index(), &token))?;
            }
        }
        self.wait_for_members(self.nodes.len())
    }

    fn all_at_once(&self, nodes: &[Node], work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
        let work = &work;
        std::thread::scope(|scope| {
            let working: Vec<_> = nodes.iter().map(|node| scope.spawn(move || work(node))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
            };
            working.into_iter().try_for_each(join)
        })
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
        self.join_with(index, &self.worker_token()?)
    }

    fn join_with(&self, index: usize, token: &str) -> Result<()> {
        let node = &self[index];
        let manager = std::net::SocketAddr::new(self[0].underlay(), 2377).to_string();
        let (name, address) = (node.name(), node.underlay().to_string());
        node.ctl(&["join", "--token", token, "--name", &name, "--advertise-addr", &address, &manager])
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
        let version = |node: &Node| -> Result<(Option<u64>, u64)> {
            let status = node.ctl_json(&["status"])?;
            let known = status["view_version"].as_u64().context("`status` has no view_version")?;
            Ok((status["decided_version"].as_u64(), known))
        };
        // One that is no manager any more tells what it knows.
        let (decided, known) = version(&self[0])?;
        let wanted = decided.unwrap_or(known);
        for node in &self.nodes {
            wait("the manager's decisions to arrive", MEET, || {
                let (_, known) = version(node)?;
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

    /// `error` after the ends of the daemons' logs, and with the time, which tells where in them it happened, and what the
    /// kernel holds up just now.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let now = OffsetDateTime::now_utc().time();
        let held: String =
            self.nodes.first().map(Node::processes).iter().flatten().map(|&p| held(p)).collect();
        let logs = self
            .nodes
            .iter()
            .map(|node| format!("--- {}\n{}\n{}", node.log().display(), node.log_tail(), last_state(node)));
        anyhow::anyhow!("{error:#}\n{}{held}--- at {now}: {error:#}", logs.collect::<String>())
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

/// What a node drops, and who is not alive to it, in a line; nothing for one whose daemon is away.
fn last_state(node: &Node) -> String {
    let Ok(status) = node.ctl_json(&["status"]) else { return "\n".to_owned() };
    let members = status["members"].as_array().into_iter().flatten();
    let gone: Vec<_> = members.filter(|member| member["state"] != "alive").collect();
    format!("drops {}, members not alive {gone:?}\n", status["data_path"]["drops"])
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
