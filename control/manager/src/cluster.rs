//! The cluster as a whole: its CA, its certificates' validity, the lock of its managers.

use std::{sync::Arc, time::SystemTime};

use mesh_api::v1::{self, cluster_server};
use mesh_ca::{JoinToken, RootCa, UnlockKey, certificate_pem};
use mesh_store::{Command, NewRoot, Sensitive, State};
use mesh_types::Role;
use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    gossip_keys,
    identity::{decided, issuing_ca},
    shared::Shared,
};

/// The Cluster service. It checks no caller, as [`crate::Control`] does not.
#[derive(Clone)]
pub struct Cluster(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn get_cluster(
        &self,
        _: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        settings(&self.0, &*decided(&self.0).await?).map(Response::new)
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        let request = request.into_inner();
        let v1::UpdateClusterRequest { cert_expiry_secs, autolock, lease_grace_secs, gossip_rotation_secs } =
            request;
        if let Some(secs) = lease_grace_secs {
            self.0.propose(Command::SetLeaseGrace { secs }).await?;
        }
        if let Some(secs) = gossip_rotation_secs {
            self.0.propose(Command::SetGossipRotation { secs }).await?;
        }
        let locked = decided(&self.0).await?.unlock_key().is_some();
        let fresh = (autolock == Some(true) && !locked).then(UnlockKey::random);
        let unlock_key = match (autolock, &fresh) {
            (Some(false), _) => Some(None),
            (_, Some(key)) => Some(Some(Sensitive(*key.as_bytes()))),
            _ => None,
        };
        let command = Command::UpdateCluster { cert_validity_secs: cert_expiry_secs, unlock_key };
        self.0.propose(command).await?;
        info!(?request, "cluster updated");
        let mut now = settings(&self.0, &*decided(&self.0).await?)?;
        now.unlock_key = fresh.map(|key| key.to_string()).unwrap_or_default();
        Ok(Response::new(now))
    }

    async fn get_ca(&self, _: Request<v1::GetCaRequest>) -> Result<Response<v1::CaStatus>, Status> {
        ca_status(&*decided(&self.0).await?).map(Response::new)
    }

    async fn rotate_ca(&self, _: Request<v1::RotateCaRequest>) -> Result<Response<v1::CaStatus>, Status> {
        let state = decided(&self.0).await?;
        self.0.propose(Command::RotateCa(Box::new(next_root(&state)?))).await?;
        let status = ca_status(&*decided(&self.0).await?)?;
        info!(digest = status.digest, generation = status.generation, "CA is being rotated");
        Ok(Response::new(status))
    }

    async fn rotate_gossip_keys(
        &self,
        _: Request<v1::RotateGossipKeysRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        let state = decided(&self.0).await?;
        self.0.propose(gossip_keys::rotate(&state).ok_or_else(none)?).await?;
        info!("the gossip key is being replaced: somebody asked for it");
        settings(&self.0, &*decided(&self.0).await?).map(Response::new)
    }

    async fn get_unlock_key(
        &self,
        request: Request<v1::UnlockKeyRequest>,
    ) -> Result<Response<v1::UnlockKeyResponse>, Status> {
        let state = decided(&self.0).await?;
        let Some(present) = state.unlock_key() else {
            return Err(Status::failed_precondition(
                "managers are not locked; `meshctl cluster update --autolock=true` locks them",
            ));
        };
        let mut key = UnlockKey::from_bytes(*present);
        if request.into_inner().rotate {
            key = UnlockKey::random();
            let unlock_key = Some(Some(Sensitive(*key.as_bytes())));
            self.0.propose(Command::UpdateCluster { cert_validity_secs: None, unlock_key }).await?;
            info!("unlock key rotated");
        }
        Ok(Response::new(v1::UnlockKeyResponse { unlock_key: key.to_string() }))
    }
}

fn settings(shared: &Shared, state: &State) -> Result<v1::ClusterSettings, Status> {
    let (Some(cluster), Some(authority), Some(keys)) =
        (state.cluster(), state.authority(), state.gossip_keys())
    else {
        return Err(none());
    };
    let waiting = gossip_keys::waited_for(state, keys, |node| shared.status_of(node));
    let gossip_keys = v1::GossipKeys {
        rotation_secs: keys.rotation_secs,
        since: keys.since,
        phase: gossip_keys::word(keys.phase).to_owned(),
        keys: u32::try_from(keys.ring.len()).unwrap_or(u32::MAX),
        urgent: keys.urgent || keys.leaked,
        waiting: waiting.map(|node| node.name.to_string()).collect(),
    };
    Ok(v1::ClusterSettings {
        cluster_id: cluster.to_string(),
        cert_expiry_secs: authority.validity_secs,
        autolock: state.unlock_key().is_some(),
        lease_grace_secs: state.lease_grace_secs(),
        unlock_key: String::new(),
        gossip_keys: Some(gossip_keys),
    })
}

/// A root to follow the present one.
fn next_root(state: &State) -> Result<NewRoot, Status> {
    let internal = |e: mesh_ca::CaError| Status::internal(e.to_string());
    let present = issuing_ca(state)?;
    let now = SystemTime::now();
    let next = RootCa::generate(present.cluster(), now).map_err(internal)?;
    let cross = present.cross_sign(&next, now).map_err(internal)?;
    let (cert_pem, key_pem) = next.to_pem();
    let replaces_pem = state.secrets().map(|secrets| secrets.ca_cert_pem.clone()).unwrap_or_default();
    Ok(NewRoot { cert_pem, key_pem, cross_pem: certificate_pem(&cross), replaces_pem })
}

fn ca_status(state: &State) -> Result<v1::CaStatus, Status> {
    let (Some(secrets), Some(authority)) = (state.secrets(), state.authority()) else { return Err(none()) };
    let nodes = state.nodes().map(|node| v1::NodeCertificate {
        node_id: node.id.to_string(),
        name: node.name.to_string(),
        current: authority.in_use(node.id) == authority.generation,
    });
    Ok(v1::CaStatus {
        generation: authority.generation,
        digest: issuing_ca(state)?.digest().to_string(),
        certificate: secrets.ca_cert_pem.clone(),
        rotating: authority.previous.is_some(),
        nodes: nodes.collect(),
    })
}

/// The token that nodes of `role` join with: of the present root as soon as every manager has a certificate of it.
pub(crate) fn join_token(state: &State, role: Role) -> Result<JoinToken, Status> {
    let (Some(secrets), Some(authority)) = (state.secrets(), state.authority()) else { return Err(none()) };
    let ca = issuing_ca(state)?;
    let shown = state.nodes().filter(|node| node.role == Role::Manager);
    let everywhere = shown.into_iter().all(|node| authority.in_use(node.id) == authority.generation);
    // Both are accepted for as long as both are trusted.
    let digest = if everywhere { None } else { ca.digests().nth(1) };
    Ok(JoinToken::new(digest.unwrap_or_else(|| ca.digest()), *secrets.token(role)))
}

fn none() -> Status {
    Status::failed_precondition("there is no cluster here yet")
}
