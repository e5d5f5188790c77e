//! The Cluster service of the local socket: the manager's own, or a word about who is one.

use std::sync::Arc;

use mesh_api::v1::{self, cluster_server::Cluster};
use tonic::{Request, Response, Status};

use crate::daemon::Daemon;

/// See the module.
pub struct LocalCluster {
    daemon: Arc<Daemon>,
}

impl LocalCluster {
    /// For the daemon's socket.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }

    async fn manager(&self) -> Result<mesh_manager::Cluster, Status> {
        Ok(self.daemon.member().await?.manager()?.cluster())
    }
}

#[tonic::async_trait]
impl Cluster for LocalCluster {
    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        self.manager().await?.get_cluster(request).await
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        self.manager().await?.update_cluster(request).await
    }

    async fn get_ca(&self, request: Request<v1::GetCaRequest>) -> Result<Response<v1::CaStatus>, Status> {
        self.manager().await?.get_ca(request).await
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::CaStatus>, Status> {
        self.manager().await?.rotate_ca(request).await
    }

    async fn rotate_gossip_keys(
        &self,
        request: Request<v1::RotateGossipKeysRequest>,
    ) -> Result<Response<v1::ClusterSettings>, Status> {
        self.manager().await?.rotate_gossip_keys(request).await
    }

    async fn get_unlock_key(
        &self,
        request: Request<v1::UnlockKeyRequest>,
    ) -> Result<Response<v1::UnlockKeyResponse>, Status> {
        self.manager().await?.get_unlock_key(request).await
    }
}
