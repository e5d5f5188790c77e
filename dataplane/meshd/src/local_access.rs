//! Who may call what on the unix socket: one table, and the layer through which every call passes.
//!
//! Whoever may open the socket is root or in its group. The group works with networks, services and tasks; what gives out
//! the cluster's secrets, or changes who belongs to it, is for root.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
    transport::server::UdsConnectInfo,
};
use tower::{Layer, Service};

/// What a caller must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Anybody who may open the socket.
    Group,
    /// The superuser, or the user that meshd runs as.
    Root,
}

/// Every method on the socket. A method that is not here is refused.
const METHODS: &[(&str, Needs)] = &[
    ("/mesh.v1.Local/Init", Needs::Root),
    ("/mesh.v1.Local/JoinCluster", Needs::Root),
    ("/mesh.v1.Local/LeaveCluster", Needs::Root),
    ("/mesh.v1.Local/RestoreCluster", Needs::Root),
    ("/mesh.v1.Local/Unlock", Needs::Root),
    ("/mesh.v1.Local/OpenDashboard", Needs::Root),
    ("/mesh.v1.Local/Status", Needs::Group),
    ("/mesh.v1.Local/DumpGossip", Needs::Group),
    ("/mesh.v1.Local/GetSnapshot", Needs::Group),
    ("/mesh.v1.Local/GetView", Needs::Group),
    ("/mesh.v1.Local/ListTasks", Needs::Group),
    ("/mesh.v1.Local/Attach", Needs::Group),
    ("/mesh.v1.Local/Detach", Needs::Group),
    ("/mesh.v1.Local/GetTask", Needs::Group),
    ("/mesh.v1.Local/UpdateTask", Needs::Group),
    ("/mesh.v1.Local/DrainTask", Needs::Group),
    ("/mesh.v1.Local/ConnectNetwork", Needs::Group),
    ("/mesh.v1.Local/DisconnectNetwork", Needs::Group),
    ("/mesh.v1.Local/ExplainName", Needs::Group),
    ("/mesh.v1.Local/Reserve", Needs::Group),
    ("/mesh.v1.Local/Release", Needs::Group),
    ("/mesh.v1.Local/SetAliases", Needs::Group),
    ("/mesh.v1.Local/Reach", Needs::Group),
    ("/mesh.v1.Local/Ping", Needs::Group),
    ("/mesh.v1.Local/ChangeLog", Needs::Group),
    ("/mesh.v1.Local/ListFlows", Needs::Group),
    ("/mesh.v1.Local/Trace", Needs::Group),
    // Packets are what tasks say to each other.
    ("/mesh.v1.Local/Watch", Needs::Root),
    ("/mesh.v1.Control/GetJoinToken", Needs::Root),
    ("/mesh.v1.Control/RemoveNode", Needs::Root),
    ("/mesh.v1.Control/SetRole", Needs::Root),
    ("/mesh.v1.Control/Backup", Needs::Root),
    ("/mesh.v1.Control/CreateNetwork", Needs::Group),
    ("/mesh.v1.Control/RemoveNetwork", Needs::Group),
    ("/mesh.v1.Control/CreateService", Needs::Group),
    ("/mesh.v1.Control/RemoveService", Needs::Group),
    ("/mesh.v1.Control/Publish", Needs::Group),
    ("/mesh.v1.Control/Unpublish", Needs::Group),
    ("/mesh.v1.Control/UpdateService", Needs::Group),
    ("/mesh.v1.Control/UpdateNode", Needs::Group),
    ("/mesh.v1.Control/UpdateNetwork", Needs::Group),
    ("/mesh.v1.Control/Events", Needs::Group),
    ("/mesh.v1.Control/GetProgress", Needs::Group),
    ("/mesh.v1.Control/TestConnectivity", Needs::Group),
    ("/mesh.v1.Control/WatchTraffic", Needs::Group),
    ("/mesh.v1.Control/OrderTask", Needs::Group),
    ("/mesh.v1.Cluster/GetCluster", Needs::Group),
    ("/mesh.v1.Cluster/UpdateCluster", Needs::Root),
    ("/mesh.v1.Cluster/GetCa", Needs::Group),
    ("/mesh.v1.Cluster/RotateCa", Needs::Root),
    ("/mesh.v1.Cluster/RotateGossipKeys", Needs::Root),
    ("/mesh.v1.Cluster/GetUnlockKey", Needs::Root),
];

/// Decides about one call of the user `uid`; none stands for one that the kernel did not tell.
fn check(path: &str, uid: Option<u32>, own: u32) -> Result<(), Status> {
    let Some((_, needs)) = METHODS.iter().find(|(method, _)| *method == path) else {
        return Err(Status::unimplemented(format!("no such method: {path}")));
    };
    let root = uid.is_some_and(|uid| uid == 0 || uid == own);
    if *needs == Needs::Root && !root {
        return Err(Status::permission_denied(
            "only root may do this: it concerns the cluster's secrets, or who belongs to the cluster",
        ));
    }
    Ok(())
}

/// Puts [`check`] before every service of the socket.
#[derive(Debug, Clone, Copy)]
pub struct LocalAccessLayer;

impl<S> Layer<S> for LocalAccessLayer {
    type Service = LocalAccess<S>;

    fn layer(&self, inner: S) -> LocalAccess<S> {
        LocalAccess { own: nix::unistd::geteuid().as_raw(), inner }
    }
}

/// A service behind [`check`].
#[derive(Debug, Clone)]
pub struct LocalAccess<S> {
    own: u32,
    inner: S,
}

impl<S, B> Service<Request<B>> for LocalAccess<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<UdsConnectInfo>();
        let uid = peer.and_then(|peer| peer.peer_cred).map(|cred| cred.uid());
        match check(request.uri().path(), uid, self.own) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tonic::Code;

    use super::*;

    #[test]
    fn the_table_has_every_method_of_the_socket_once() {
        let served = ["/mesh.v1.Local/", "/mesh.v1.Control/", "/mesh.v1.Cluster/"];
        let methods =
            mesh_api::METHODS.iter().filter(|m| served.iter().any(|service| m.starts_with(service)));
        let listed: BTreeSet<&str> = METHODS.iter().map(|(method, _)| *method).collect();
        assert_eq!(listed.len(), METHODS.len(), "one is there twice");
        assert_eq!(methods.copied().collect::<BTreeSet<_>>(), listed);
    }

    #[test]
    fn the_group_gets_no_secrets() {
        let code = |path: &str, uid| check(path, uid, 7).err().map(|status| status.code());
        for (method, needs) in METHODS {
            assert_eq!(code(method, Some(0)), None, "{method}");
            assert_eq!(code(method, Some(7)), None, "{method}");
            let others = (*needs == Needs::Root).then_some(Code::PermissionDenied);
            assert_eq!((code(method, Some(1000)), code(method, None)), (others, others), "{method}");
        }
        for secret in ["Control/GetJoinToken", "Cluster/GetUnlockKey", "Control/Backup", "Local/Init"] {
            assert_eq!(code(&format!("/mesh.v1.{secret}"), Some(1000)), Some(Code::PermissionDenied));
        }
        assert_eq!(code("/mesh.v1.Raft/Call", Some(0)), Some(Code::Unimplemented));
    }
}
