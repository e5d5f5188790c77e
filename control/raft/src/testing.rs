//! Managers in one process, for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use mesh_store::{Command, NEWEST_FORMAT, NodeChange, OLDEST_FORMAT, Secrets, Sensitive, State};
use mesh_types::{Availability, ClusterId, NetworkId, Node, NodeId, Role};
use openraft::{Config, SnapshotPolicy};
use tempfile::TempDir;

use crate::{Cipher, RaftNode, RaftOptions, RpcKind, Transport, TransportError};

/// Bounds a test that hangs; nothing waits for it to pass.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Whom messages can reach.
#[derive(Default)]
pub(crate) struct Hub {
    nodes: Mutex<BTreeMap<NodeId, RaftNode>>,
    cut: Mutex<BTreeSet<NodeId>>,
}

impl Hub {
    /// No messages from and to this node any more.
    pub(crate) fn cut(&self, node: NodeId) {
        self.cut.lock().unwrap().insert(node);
    }

    /// All is connected again.
    pub(crate) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

struct Link {
    hub: Arc<Hub>,
    own: NodeId,
}

#[async_trait]
impl Transport for Link {
    async fn call(
        &self,
        node: NodeId,
        addr: SocketAddr,
        kind: RpcKind,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let cut = || {
            let cut = self.hub.cut.lock().unwrap();
            cut.contains(&node) || cut.contains(&self.own)
        };
        let target = self.hub.nodes.lock().unwrap().get(&node).cloned();
        let Some(target) = target.filter(|_| !cut()) else {
            return Err(TransportError::Unreachable { node, addr, source: "cut off".into() });
        };
        let answer = target.handle(kind, &message).await;
        if cut() {
            return Err(TransportError::Failed { node, addr, source: "cut off".into() });
        }
        answer.map_err(|error| TransportError::Failed { node, addr, source: error.into() })
    }
}

pub(crate) fn id(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

pub(crate) fn addr(number: u128) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 20_000 + u16::try_from(number).unwrap()))
}

/// Quick elections, and snapshots after a few entries.
pub(crate) fn quick() -> Config {
    Config {
        heartbeat_interval: 50,
        election_timeout_min: 200,
        election_timeout_max: 400,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(50),
        max_in_snapshot_log_to_keep: 10,
        replication_lag_threshold: 60,
        purge_batch_size: 1,
        ..crate::node::config()
    }
}

/// Nothing happens by the clock.
pub(crate) fn frozen() -> Config {
    Config {
        heartbeat_interval: 600_000,
        election_timeout_min: 3_000_000,
        election_timeout_max: 4_000_000,
        ..crate::node::config()
    }
}

/// Starts manager `number` in `dir`.
pub(crate) async fn start(hub: &Arc<Hub>, number: u128, dir: &Path, config: Config) -> RaftNode {
    start_with(hub, number, dir, config, None).await
}

/// Starts manager `number` in `dir`, which a cipher encrypts.
pub(crate) async fn start_with(
    hub: &Arc<Hub>,
    number: u128,
    dir: &Path,
    config: Config,
    cipher: Option<Arc<dyn Cipher>>,
) -> RaftNode {
    let transport = Arc::new(Link { hub: hub.clone(), own: id(number) });
    let options = RaftOptions {
        dir: dir.to_owned(),
        node: id(number),
        advertise: addr(number),
        transport,
        cipher,
        newest_format: NEWEST_FORMAT,
    };
    start_as(hub, options, config).await
}

/// Starts a manager of the version before.
pub(crate) async fn start_older(hub: &Arc<Hub>, number: u128, dir: &Path, config: Config) -> RaftNode {
    let options = RaftOptions {
        dir: dir.to_owned(),
        node: id(number),
        advertise: addr(number),
        transport: Arc::new(Link { hub: hub.clone(), own: id(number) }),
        cipher: None,
        newest_format: OLDEST_FORMAT,
    };
    start_as(hub, options, config).await
}

async fn start_as(hub: &Arc<Hub>, options: RaftOptions, config: Config) -> RaftNode {
    let number = options.node;
    let node = RaftNode::open_with(options, config).await.unwrap();
    hub.nodes.lock().unwrap().insert(number, node.clone());
    node
}

/// A manager on its own that leads, with its folder.
pub(crate) async fn alone(config: Config) -> (TempDir, Arc<Hub>, RaftNode) {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Arc::default());
    let node = start(&hub, 1, dir.path(), config).await;
    node.initialize().await.unwrap();
    node.propose(init()).await.unwrap();
    (dir, hub, node)
}

/// Makes the cluster's state.
pub(crate) fn init() -> Command {
    let node = Node {
        id: id(1),
        name: "one".parse().unwrap(),
        role: Role::Manager,
        advertise_addr: addr(1).ip(),
        data_path_addr: addr(1).ip(),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    };
    Command::Init {
        cluster: ClusterId::from_u128(1),
        node,
        secrets: Box::new(Secrets {
            ca_cert_pem: String::new(),
            ca_key_pem: String::new(),
            worker_token: [1; 16],
            manager_token: [2; 16],
        }),
        gossip_key: Sensitive([3; 32]),
        pools: vec![],
        ingress: NetworkId::from_u128(1),
        ingress_subnets: vec![],
        ingress_ipv6: false,
        now: 0,
    }
}

/// Writes a number into the state.
pub(crate) fn label(number: usize) -> Command {
    let set_labels = BTreeMap::from([("number".to_owned(), number.to_string())]);
    Command::UpdateNode { node: id(1), change: NodeChange { set_labels, ..NodeChange::default() } }
}

/// The number written last.
pub(crate) fn number(state: &State) -> Option<usize> {
    state.node(id(1))?.labels.get("number")?.parse().ok()
}
