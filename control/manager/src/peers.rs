//! Raft messages from other managers.

use std::sync::Arc;

use mesh_api::v1::{self, raft_server};
use mesh_raft::{GrpcTransport, RpcKind};
use tonic::{Request, Response, Status};

use crate::{shared::Shared, status::invalid};

/// Largest message: a snapshot of the whole state.
pub(crate) const MAX_MESSAGE: usize = GrpcTransport::MAX_MESSAGE;

/// The service behind [`crate::Manager`]'s listener.
pub(crate) struct Peers(pub Arc<Shared>);

#[tonic::async_trait]
impl raft_server::Raft for Peers {
    async fn call(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let v1::RaftMessage { kind, payload, to } = request.into_inner();
        // Addresses change hands. An answer in another's name would count as that one's: its log, its vote.
        let own = self.0.place.node;
        if to != own.to_string() {
            return Err(Status::failed_precondition(format!(
                "this is node {own}, the message is for {to:?}"
            )));
        }
        let parsed: RpcKind = kind.parse().map_err(|e| invalid("kind", e))?;
        let answer = self.0.raft.handle(parsed, &payload).await;
        let payload = answer.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(v1::RaftMessage { kind, payload, to: String::new() }))
    }
}
