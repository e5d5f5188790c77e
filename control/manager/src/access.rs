//! Who may call what: one table, and the layer through which every call passes.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use mesh_api::transport::PeerInfo;
use mesh_ca::PeerIdentity;
use mesh_store::State;
use mesh_types::{NodeId, Role};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

use crate::shared::Shared;

/// What a caller must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Anybody: the call itself proves more.
    Nothing,
    /// A node of the cluster.
    Member,
    /// A manager of the cluster.
    Manager,
    /// A manager of the cluster as Raft has it, which may be ahead of or behind the state that is known here.
    Peer,
}

/// Every method on the listener. A method that is not here is refused.
pub(crate) const METHODS: &[(&str, Needs)] = &[
    ("/mesh.v1.Join/Join", Needs::Nothing),
    ("/mesh.v1.Dispatcher/Session", Needs::Member),
    ("/mesh.v1.Dispatcher/Lease", Needs::Member),
    ("/mesh.v1.Dispatcher/RenewLeases", Needs::Member),
    ("/mesh.v1.Dispatcher/Report", Needs::Member),
    ("/mesh.v1.Dispatcher/ReportTest", Needs::Member),
    ("/mesh.v1.Dispatcher/ReportTraffic", Needs::Member),
    ("/mesh.v1.Dispatcher/ReportOrder", Needs::Member),
    ("/mesh.v1.Dispatcher/Leave", Needs::Member),
    ("/mesh.v1.Identity/Renew", Needs::Member),
    ("/mesh.v1.Identity/Confirm", Needs::Member),
    ("/mesh.v1.Raft/Call", Needs::Peer),
    ("/mesh.v1.Cluster/GetCluster", Needs::Manager),
    ("/mesh.v1.Cluster/UpdateCluster", Needs::Manager),
    ("/mesh.v1.Cluster/GetCa", Needs::Manager),
    ("/mesh.v1.Cluster/RotateCa", Needs::Manager),
    ("/mesh.v1.Cluster/GetUnlockKey", Needs::Manager),
    ("/mesh.v1.Cluster/RotateGossipKeys", Needs::Manager),
    ("/mesh.v1.Control/CreateNetwork", Needs::Manager),
    ("/mesh.v1.Control/RemoveNetwork", Needs::Manager),
    ("/mesh.v1.Control/CreateService", Needs::Manager),
    ("/mesh.v1.Control/RemoveService", Needs::Manager),
    ("/mesh.v1.Control/Publish", Needs::Manager),
    ("/mesh.v1.Control/Unpublish", Needs::Manager),
    ("/mesh.v1.Control/UpdateService", Needs::Manager),
    ("/mesh.v1.Control/UpdateNetwork", Needs::Manager),
    ("/mesh.v1.Control/Events", Needs::Manager),
    ("/mesh.v1.Control/GetJoinToken", Needs::Manager),
    ("/mesh.v1.Control/UpdateNode", Needs::Manager),
    ("/mesh.v1.Control/RemoveNode", Needs::Manager),
    ("/mesh.v1.Control/SetRole", Needs::Manager),
    ("/mesh.v1.Control/TestConnectivity", Needs::Manager),
    ("/mesh.v1.Control/WatchTraffic", Needs::Manager),
    ("/mesh.v1.Control/OrderTask", Needs::Manager),
    ("/mesh.v1.Control/Backup", Needs::Manager),
    ("/mesh.v1.Control/GetProgress", Needs::Manager),
];

/// The member that makes a call; put into the request's extensions by the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Which node.
    pub node: NodeId,
    /// The generation of the CA that its certificate was made in.
    pub generation: u64,
}

impl Caller {
    /// Who made this request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Caller>().copied();
        caller.ok_or_else(|| Status::internal("the call passed no access check"))
    }
}

/// Decides about one call.
pub(crate) fn check(shared: &Shared, path: &str, peer: Option<&PeerInfo>) -> Result<Option<Caller>, Status> {
    let Some((_, needs)) = METHODS.iter().find(|(method, _)| *method == path) else {
        return Err(Status::unimplemented(format!("no such method: {path}")));
    };
    if *needs == Needs::Nothing {
        return Ok(None);
    }
    let certs = peer.and_then(|peer| peer.certs.as_deref());
    let certs = certs
        .ok_or_else(|| Status::unauthenticated("a certificate of this cluster is needed; join first"))?;
    let peer = PeerIdentity::from_certs(certs).map_err(|e| Status::unauthenticated(e.to_string()))?;
    let state = shared.state();
    if *needs == Needs::Peer {
        check_raft(shared, &state, peer)?;
        return Ok(Some(Caller { node: peer.node, generation: peer.generation }));
    }
    if state.cluster() != Some(peer.cluster) {
        return Err(Status::unauthenticated(format!(
            "node {} is of another cluster: {}",
            peer.node, peer.cluster
        )));
    }
    let Some(node) = state.node(peer.node) else {
        return Err(Status::permission_denied(format!("node {} was removed from the cluster", peer.node)));
    };
    // A manager that was demoted keeps its old certificate for a while, so both must say it.
    let manager = peer.role == Role::Manager && node.role == Role::Manager;
    if *needs == Needs::Manager && !manager {
        let managers = shared.manager_list(&state).join(", ");
        return Err(Status::permission_denied(format!(
            "node {} is no manager; ask one: {managers}",
            node.name
        )));
    }
    Ok(Some(Caller { node: peer.node, generation: peer.generation }))
}

/// Decides about a message of Raft.
///
/// A manager that was away, or is new and knows nothing, is told of the other managers by just these messages: whom it
/// does not know, or knows as a worker, may have become a manager since, and its certificate says so. Whoever was taken
/// out as a manager and is no member any more is refused, whatever its certificate says.
fn check_raft(shared: &Shared, state: &State, peer: PeerIdentity) -> Result<(), Status> {
    if shared.place.cluster != peer.cluster {
        return Err(Status::unauthenticated(format!(
            "node {} is of another cluster: {}",
            peer.node, peer.cluster
        )));
    }
    // One that was demoted is a member until the others have agreed on that, whatever its certificate says.
    if shared.raft.managers().iter().any(|manager| manager.node == peer.node) {
        return Ok(());
    }
    if peer.role != Role::Manager || state.was_manager(peer.node) {
        return Err(Status::permission_denied(format!("node {} is no manager", peer.node)));
    }
    Ok(())
}

/// Puts [`check`] before every service of the listener.
#[derive(Clone)]
pub(crate) struct AccessLayer(pub Arc<Shared>);

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { shared: self.0.clone(), inner }
    }
}

/// A service behind [`check`].
#[derive(Clone)]
pub(crate) struct Access<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Access<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<PeerInfo>();
        match check(&self.shared, request.uri().path(), peer) {
            Ok(caller) => {
                caller.map(|caller| request.extensions_mut().insert(caller));
                Either::Right(self.inner.call(request))
            }
            Err(status) => {
                tracing::debug!(
                    method = request.uri().path(),
                    peer = peer.map(|p| p.addr.to_string()),
                    reason = status.message(),
                    "call refused"
                );
                Either::Left(ready(Ok(status.into_http())))
            }
        }
    }
}
