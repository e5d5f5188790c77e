//! What spans of the managers' calls tell of callers.

use mesh_api::transport::PeerInfo;
use mesh_ca::PeerIdentity;
use mesh_trace::{Caller, TraceLayer, Value};
use tonic::codegen::http::Extensions;

/// Raft's messages are many; of them only those are shown that a call of somebody has caused.
const QUIET: &[&str] = &["/mesh.v1.Raft/Call"];

/// Gives each call a span. Who shows no certificate of the cluster, as one who joins, has no say in which.
pub(crate) fn layer() -> TraceLayer {
    TraceLayer::new(caller, QUIET)
}

fn caller(extensions: &Extensions) -> Caller {
    let Some(peer) = extensions.get::<PeerInfo>() else { return Caller::default() };
    let mut attributes = vec![("network.peer.address", Value::from(peer.addr.ip().to_string()))];
    let identity = peer.certs.as_deref().and_then(|certs| PeerIdentity::from_certs(certs).ok());
    if let Some(identity) = identity {
        attributes.push(("mesh.caller.node", identity.node.to_string().into()));
        attributes.push(("mesh.caller.role", identity.role.as_str().into()));
    }
    Caller { trusted: identity.is_some(), attributes }
}
