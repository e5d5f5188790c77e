//! Who may call what: one table, and the layer through which every call passes.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use mesh_api::transport::PeerInfo;
use mesh_ca::PeerIdentity;
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
}

/// Every method on the listener. A method that is not here is refused.
pub(crate) const METHODS: &[(&str, Needs)] = &[
    ("/mesh.v1.Join/Join", Needs::Nothing),
    ("/mesh.v1.Dispatcher/Session", Needs::Member),
    ("/mesh.v1.Dispatcher/Lease", Needs::Member),
    ("/mesh.v1.Dispatcher/ReturnLease", Needs::Member),
    ("/mesh.v1.Dispatcher/Report", Needs::Member),
    ("/mesh.v1.Dispatcher/Leave", Needs::Member),
    ("/mesh.v1.Raft/Call", Needs::Manager),
    ("/mesh.v1.Control/CreateNetwork", Needs::Manager),
    ("/mesh.v1.Control/RemoveNetwork", Needs::Manager),
    ("/mesh.v1.Control/CreateService", Needs::Manager),
    ("/mesh.v1.Control/RemoveService", Needs::Manager),
    ("/mesh.v1.Control/Publish", Needs::Manager),
    ("/mesh.v1.Control/Unpublish", Needs::Manager),
    ("/mesh.v1.Control/UpdateService", Needs::Manager),
    ("/mesh.v1.Control/GetJoinToken", Needs::Manager),
    ("/mesh.v1.Control/UpdateNode", Needs::Manager),
    ("/mesh.v1.Control/RemoveNode", Needs::Manager),
];

/// The member that makes a call; put into the request's extensions by the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller(pub NodeId);

impl Caller {
    /// Who made this request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<NodeId, Status> {
        let caller = request.extensions().get::<Caller>();
        caller.map(|caller| caller.0).ok_or_else(|| Status::internal("the call passed no access check"))
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
    Ok(Some(Caller(peer.node)))
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
