//! What the bench asks of daemons.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_api::{
    transport,
    v1::{
        CreateServiceRequest, EndpointMode, GetViewRequest, Service, StatusRequest, UpdateServiceRequest,
        control_client::ControlClient, local_client::LocalClient,
    },
};
use tonic::transport::Channel;

/// A call that takes longer has failed.
const CALL: Duration = Duration::from_secs(15);

/// A connection to a daemon's socket.
#[derive(Clone)]
pub struct Client {
    socket: PathBuf,
    channel: Channel,
}

impl Client {
    /// Connects.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let channel = transport::unix_connect(socket).await.context("cannot connect to meshd")?;
        Ok(Self { socket: socket.to_owned(), channel })
    }

    /// Makes a service without tasks on a network; its version.
    pub async fn create_service(&self, name: &str, network: &str, mode: EndpointMode) -> Result<u64> {
        let request = CreateServiceRequest {
            name: name.to_owned(),
            networks: vec![network.to_owned()],
            endpoint_mode: mode.into(),
            ..CreateServiceRequest::default()
        };
        let made = self.limited(ControlClient::new(self.channel.clone()).create_service(request)).await?;
        Ok(made.version)
    }

    /// Changes a service; its version.
    pub async fn update(&self, request: UpdateServiceRequest) -> Result<u64> {
        let service: Service =
            self.limited(ControlClient::new(self.channel.clone()).update_service(request)).await?;
        Ok(service.version)
    }

    /// Gives a service's label another value.
    pub async fn label(&self, service: &str, value: &str) -> Result<u64> {
        let set_labels = [("bench".to_owned(), value.to_owned())].into();
        let service = service.to_owned();
        self.update(UpdateServiceRequest { service, set_labels, ..UpdateServiceRequest::default() }).await
    }

    /// The node that leads, if it knows.
    pub async fn leader(&self) -> Result<Option<String>> {
        let view = self.limited(LocalClient::new(self.channel.clone()).get_view(GetViewRequest {})).await?;
        Ok(view.managers.into_iter().find(|manager| manager.leader).map(|manager| manager.node_id))
    }

    /// The daemon's node.
    pub async fn node(&self) -> Result<String> {
        let status = self.limited(LocalClient::new(self.channel.clone()).status(StatusRequest {})).await?;
        Ok(status.node_id)
    }

    /// The version of the state that the daemon's data path follows.
    pub async fn applied(&self) -> Result<u64> {
        let status = self.limited(LocalClient::new(self.channel.clone()).status(StatusRequest {})).await?;
        Ok(status.view_version)
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        let answer = tokio::time::timeout(CALL, call).await;
        let answer = answer.with_context(|| format!("{} does not answer", self.socket.display()))?;
        Ok(answer.with_context(|| format!("{} refuses", self.socket.display()))?.into_inner())
    }
}
