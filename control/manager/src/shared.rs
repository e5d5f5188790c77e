//! What all services of a manager share.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use mesh_ca::IdentityCell;
use mesh_raft::{ProposeError, RaftNode};
use mesh_store::{Command, NodeChange, Response, State};
use mesh_types::{ClusterId, Endpoint, MANAGER_PORT, NodeId, Role, TaskId};
use tokio::sync::watch;
use tonic::Status;
use tracing::info;

use crate::{
    connectivity::Tests,
    events::Events,
    liveness::{Heard, NodeStatus},
    orders::Orders,
    reports::Reports,
    status::rejected,
    touch::Touch,
    watching::Watching,
};

/// What runs, as gossip tells it.
pub trait EndpointView: Send + Sync + 'static {
    /// The endpoints of all networks, on all nodes.
    fn endpoints(&self) -> Vec<Endpoint>;

    /// The tasks that are checked, each with one of its endpoints; the same value until something changes.
    fn checked(&self) -> Arc<Checked> {
        Arc::default()
    }

    /// What is heard of a node.
    fn heard(&self, node: NodeId) -> Heard {
        let _ = node;
        Heard::Nothing
    }
}

/// Tasks by id, each with one of its endpoints.
pub type Checked = BTreeMap<TaskId, Arc<Endpoint>>;

/// The services' common ground.
pub(crate) struct Shared {
    pub raft: RaftNode,
    pub state: watch::Receiver<Arc<State>>,
    pub endpoints: Arc<dyn EndpointView>,
    pub place: Place,
    pub reports: Arc<Reports>,
    pub touch: Touch,
    pub events: Arc<Events>,
    pub tests: Arc<Tests>,
    pub orders: Arc<Orders>,
    pub watching: Arc<Watching>,
    pub identity: Arc<IdentityCell>,
}

impl Shared {
    /// The state as far as it is known here.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// Has `command` decided and carried out.
    pub async fn propose(&self, command: Command) -> Result<Response, Status> {
        match mesh_trace::within("decide", self.raft.propose(command)).await {
            Ok(response) => Ok(response),
            Err(ProposeError::Rejected(rejection)) => Err(rejected(&rejection)),
            Err(error @ ProposeError::NotAgreed) => Err(Status::failed_precondition(error.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    /// Has the cluster follow a node that others reach at another address now. The node is the one that says so.
    pub async fn follow_advertise_addr(&self, node: NodeId, address: IpAddr) -> Result<(), Status> {
        let state = self.state();
        let Some(known) = state.node(node).map(|node| node.advertise_addr) else { return Ok(()) };
        if known == address {
            return Ok(());
        }
        let change = NodeChange { advertise_addr: Some(address), ..NodeChange::default() };
        self.propose(Command::UpdateNode { node, change }).await?;
        info!(%node, %known, %address, "address changed");
        Ok(())
    }

    /// Whether a node is there. This one is.
    pub fn status_of(&self, node: NodeId) -> NodeStatus {
        if node == self.place.node {
            return NodeStatus::Ready;
        }
        let in_session = self.reports.has_session(node);
        NodeStatus::of(self.endpoints.heard(node), in_session, self.raft.leader().is_some())
    }

    /// Where managers listen, as texts, this one first: whoever asks reaches it.
    pub fn manager_list(&self, state: &State) -> Vec<String> {
        self.place.manager_list(state)
    }
}

/// This manager among the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub advertise: SocketAddr,
}

impl Place {
    /// Where managers listen, this one first.
    pub fn managers(&self, state: &State) -> Vec<SocketAddr> {
        let others = state.nodes().filter(|node| node.role == Role::Manager && node.id != self.node);
        let others = others.map(|node| SocketAddr::new(node.advertise_addr, MANAGER_PORT));
        // Its own address may have changed since it started.
        let ip = state.node(self.node).map_or(self.advertise.ip(), |node| node.advertise_addr);
        std::iter::once(SocketAddr::new(ip, self.advertise.port())).chain(others).collect()
    }

    /// The same as texts.
    pub fn manager_list(&self, state: &State) -> Vec<String> {
        self.managers(state).iter().map(SocketAddr::to_string).collect()
    }
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// An answer of another kind than the command gives.
pub(crate) fn unexpected(response: &Response) -> Status {
    Status::internal(format!("unexpected answer of the state machine: {response:?}"))
}
