//! The Control service of the local socket: the manager's own, or a word about who is one.

use std::sync::Arc;

use mesh_api::v1::{self, control_server::Control};
use tonic::{Request, Response, Status};

use crate::{daemon::Daemon, progress};

/// See the module.
pub struct LocalControl {
    daemon: Arc<Daemon>,
}

impl LocalControl {
    /// For the daemon's socket.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }

    async fn manager(&self) -> Result<mesh_manager::Control, Status> {
        Ok(self.daemon.member().await?.manager()?.control())
    }
}

#[tonic::async_trait]
impl Control for LocalControl {
    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        self.manager().await?.create_network(request).await
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.manager().await?.remove_network(request).await
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.manager().await?.create_service(request).await
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.manager().await?.remove_service(request).await
    }

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::Service>, Status> {
        self.manager().await?.publish(request).await
    }

    async fn unpublish(
        &self,
        request: Request<v1::UnpublishRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.manager().await?.unpublish(request).await
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Result<Response<v1::Service>, Status> {
        self.manager().await?.update_service(request).await
    }

    type EventsStream = <mesh_manager::Control as Control>::EventsStream;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        self.manager().await?.events(request).await
    }

    async fn get_progress(
        &self,
        request: Request<v1::ProgressRequest>,
    ) -> Result<Response<v1::ProgressResponse>, Status> {
        let member = self.daemon.member().await?;
        progress::of_all(member.manager()?, request.into_inner()).await.map(Response::new)
    }

    type TestConnectivityStream = <mesh_manager::Control as Control>::TestConnectivityStream;

    async fn test_connectivity(
        &self,
        request: Request<v1::TestConnectivityRequest>,
    ) -> Result<Response<Self::TestConnectivityStream>, Status> {
        let member = self.daemon.member().await?;
        let manager = member.manager_since("a test makes a network and a service, which only managers do")?;
        manager.control().test_connectivity(request).await
    }

    type WatchTrafficStream = <mesh_manager::Control as Control>::WatchTrafficStream;

    async fn watch_traffic(
        &self,
        request: Request<v1::WatchTrafficRequest>,
    ) -> Result<Response<Self::WatchTrafficStream>, Status> {
        self.manager().await?.watch_traffic(request).await
    }

    async fn order_task(&self, request: Request<v1::TaskOrder>) -> Result<Response<v1::OrderReport>, Status> {
        self.manager().await?.order_task(request).await
    }

    async fn update_network(
        &self,
        request: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        self.manager().await?.update_network(request).await
    }

    async fn get_join_token(
        &self,
        request: Request<v1::JoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenResponse>, Status> {
        self.manager().await?.get_join_token(request).await
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        self.manager().await?.update_node(request).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        self.manager().await?.remove_node(request).await
    }

    async fn set_role(&self, request: Request<v1::SetRoleRequest>) -> Result<Response<v1::Node>, Status> {
        self.manager().await?.set_role(request).await
    }

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<v1::BackupResponse>, Status> {
        self.manager().await?.backup(request).await
    }
}
