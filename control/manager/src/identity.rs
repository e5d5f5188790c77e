//! Certificates for members: made by the CA as the cluster's state has it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_api::v1::{self, identity_server};
use mesh_ca::RootCa;
use mesh_store::{Command, State};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{access::Caller, shared::Shared, status::invalid};

/// Longest wait for the managers' agreement on who the caller is.
const DECIDE: Duration = Duration::from_secs(5);

/// The service behind [`crate::Manager`]'s listener.
pub(crate) struct Identity {
    pub shared: Arc<Shared>,
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = Caller::of(&request)?;
        // A manager that has fallen behind would give a role that was taken away, or a root that nobody trusts any more.
        let state = decided(&self.shared).await?;
        let node = state.node(caller.node).ok_or_else(|| removed(&caller))?;
        let ca = issuing_ca(&state)?;
        let chain = ca
            .issue(&request.get_ref().csr, node.id, node.role, SystemTime::now(), validity(&state))
            .map_err(|e| invalid("csr", e))?;
        info!(node = %node.id, name = %node.name, role = %node.role, generation = ca.generation(), "certificate renewed");
        let certificates = chain.iter().map(|cert| cert.to_vec()).collect();
        Ok(Response::new(v1::RenewResponse { certificates }))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let Caller { node, generation } = Caller::of(&request)?;
        if self.shared.state().authority().is_some_and(|a| a.in_use(node) != generation) {
            self.shared.propose(Command::CertificateInUse { node, generation }).await?;
        }
        Ok(Response::new(v1::ConfirmResponse {}))
    }
}

fn removed(caller: &Caller) -> Status {
    Status::permission_denied(format!("node {} was removed from the cluster", caller.node))
}

/// The state with everything decided before this call.
pub(crate) async fn decided(shared: &Shared) -> Result<Arc<State>, Status> {
    let decided = timeout(DECIDE, shared.raft.linearizable()).await;
    decided
        .map_err(|_| Status::unavailable("a majority of the managers does not answer"))?
        .map_err(|e| Status::unavailable(e.to_string()))
}

/// The CA that certificates are made by now.
pub(crate) fn issuing_ca(state: &State) -> Result<RootCa, Status> {
    let (Some(secrets), Some(authority)) = (state.secrets(), state.authority()) else {
        return Err(Status::failed_precondition("there is no cluster here yet"));
    };
    let internal = |e: mesh_ca::CaError| Status::internal(e.to_string());
    let ca = RootCa::from_pem(&secrets.ca_cert_pem, &secrets.ca_key_pem).map_err(internal)?;
    let ca = ca.at(authority.generation);
    match &authority.previous {
        None => Ok(ca),
        Some(previous) => ca.after(&previous.cert_pem, &previous.cross_pem).map_err(internal),
    }
}

/// How long certificates made now are valid.
pub(crate) fn validity(state: &State) -> Duration {
    let secs = state.authority().map_or(mesh_store::DEFAULT_CERT_VALIDITY, |a| a.validity_secs);
    Duration::from_secs(secs)
}
