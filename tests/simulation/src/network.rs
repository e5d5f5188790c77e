//! The wire between managers and agents: it delays, loses, reorders, repeats and cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use mesh_raft::{RaftNode, RpcKind, Transport, TransportError};
use mesh_types::NodeId;
use rand::{Rng, rngs::StdRng};
use tokio::time::sleep;

/// How messages fare.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Shortest way.
    pub delay: Duration,
    /// What may come on top.
    pub jitter: Duration,
    /// Share of messages that take ten times as long on top.
    pub late: f64,
    /// Share of messages whose connection breaks.
    pub lost: f64,
    /// Share of messages that come twice, where that does no harm by the protocol.
    pub repeated: f64,
}

/// The wire; clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Inner>>);

struct Inner {
    /// Who is there, and which start of it.
    up: BTreeMap<NodeId, (u64, RaftNode)>,
    /// Ways on which nothing comes through, from the first to the second.
    cut: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
    rng: StdRng,
}

/// What becomes of one message.
struct Fate {
    delay: Duration,
    lost: bool,
    repeated: bool,
    /// The connection is refused rather than silent.
    refused: bool,
}

impl Network {
    /// A wire with nobody on it.
    pub fn new(weather: Weather, rng: StdRng) -> Self {
        Self(Arc::new(Mutex::new(Inner { up: BTreeMap::new(), cut: BTreeSet::new(), weather, rng })))
    }

    /// Changes how messages fare.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// From now on messages to this node's id go to `node`, its start number `start`.
    pub fn plug(&self, start: u64, node: RaftNode) {
        self.lock().up.insert(node.node(), (start, node));
    }

    /// Nothing goes to or comes from this node any more.
    pub fn unplug(&self, node: NodeId) {
        self.lock().up.remove(&node);
    }

    /// Cuts the way from one to another; not the way back.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// All ways are open again.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    /// Whether a message from this start of a node arrives at another node, after its time on the way.
    pub async fn carry(&self, from: NodeId, start: u64, to: NodeId) -> bool {
        let fate = self.fate();
        sleep(fate.delay).await;
        !fate.lost && self.is_open(from, to) && self.is_up(from, start)
    }

    /// The node and which start of it if it is up and a message gets there, after its time on the way.
    pub async fn reach(&self, from: NodeId, to: NodeId) -> Option<(u64, RaftNode)> {
        let fate = self.fate();
        sleep(fate.delay).await;
        let inner = self.lock();
        let open = !fate.lost && !inner.cut.contains(&(from, to));
        inner.up.get(&to).filter(|_| open).cloned()
    }

    /// Whether the way from one to the other is open.
    pub fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.lock().cut.contains(&(from, to))
    }

    /// Whether this start of the node is the one that is up.
    pub fn is_up(&self, node: NodeId, start: u64) -> bool {
        self.lock().up.get(&node).is_some_and(|(up, _)| *up == start)
    }

    fn fate(&self) -> Fate {
        let inner = &mut *self.lock();
        let Weather { delay, jitter, late, lost, repeated } = inner.weather;
        let mut total = delay + jitter.mul_f64(inner.rng.random());
        if inner.rng.random_bool(late) {
            total += (delay + jitter) * 10;
        }
        Fate {
            delay: total,
            lost: inner.rng.random_bool(lost),
            repeated: inner.rng.random_bool(repeated),
            refused: inner.rng.random_bool(0.5),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wire as one start of a manager uses it.
pub struct Link {
    /// The wire.
    pub network: Network,
    /// Whose.
    pub own: NodeId,
    /// Which start.
    pub start: u64,
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
        let unreachable = || TransportError::Unreachable { node, addr, source: "simulated".into() };
        let failed = || TransportError::Failed { node, addr, source: "simulated".into() };
        let (there, back) = (self.network.fate(), self.network.fate());
        sleep(there.delay).await;
        let target = {
            let inner = self.network.lock();
            let mine = inner.up.get(&self.own).is_some_and(|(start, _)| *start == self.start);
            let open = mine && !there.lost && !inner.cut.contains(&(self.own, node));
            inner.up.get(&node).filter(|_| open).map(|(_, target)| target.clone())
        };
        let Some(target) = target else {
            if !there.refused {
                std::future::pending::<()>().await;
            }
            return Err(unreachable());
        };
        let once = matches!(kind, RpcKind::Propose | RpcKind::TransferLeader | RpcKind::Snapshot);
        if there.repeated && !once {
            let (target, message) = (target.clone(), message.clone());
            tokio::spawn(async move {
                sleep(back.delay * 3).await;
                let _ = target.handle(kind, &message).await;
            });
        }
        // Whoever has taken a message works on it even if nobody waits for the answer.
        let answer = tokio::spawn(async move { target.handle(kind, &message).await }).await;
        sleep(back.delay).await;
        let arrives = !back.lost && self.network.is_open(node, self.own) && {
            let inner = self.network.lock();
            inner.up.get(&self.own).is_some_and(|(start, _)| *start == self.start)
                && inner.up.contains_key(&node)
        };
        if !arrives {
            if !back.refused {
                std::future::pending::<()>().await;
            }
            return Err(failed());
        }
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(failed()),
        }
    }
}
