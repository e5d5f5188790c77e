//! What the plugin asks of the daemon.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use async_trait::async_trait;
use ipnet::IpNet;
use mesh_api::{
    Invalid,
    transport::unix_channel,
    v1::{self, control_client::ControlClient, local_client::LocalClient},
};
use mesh_types::{ClusterView, Family, NetworkId, PortConfig, ServiceId};
use thiserror::Error;
use tonic::{Code, Response, Status, transport::Channel};

/// Longest wait for an answer; below the half minute that Docker waits for us.
const ANSWER: Duration = Duration::from_secs(20);
/// A view of thousands of nodes and endpoints passes tonic's 4 MiB.
const LARGEST_ANSWER: usize = 256 << 20;

/// The daemon did not do it.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal it is.
    pub code: Code,
    /// In the daemon's words.
    pub message: String,
}

impl Refusal {
    /// Whether the daemon had too much to do: what was asked for may still be under way.
    pub(crate) fn is_of_the_moment(&self) -> bool {
        matches!(self.code, Code::DeadlineExceeded | Code::Aborted)
    }
}

/// An address that is to be kept for a task to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    /// The network.
    pub network: NetworkId,
    /// This one, or any of the family.
    pub address: Option<IpAddr>,
    /// The family.
    pub family: Family,
    /// Who asks.
    pub owner: String,
}

/// The daemon of this node, as far as the plugin needs it.
#[async_trait]
pub trait Mesh: Send + Sync + 'static {
    /// What the managers decided, as this node knows it.
    async fn view(&self) -> Result<ClusterView, Refusal>;
    /// The id of this node.
    async fn node(&self) -> Result<String, Refusal>;
    /// The tasks of all nodes and what only this one knows of its own.
    async fn tasks(&self) -> Result<v1::ListTasksResponse, Refusal>;
    /// Makes a namespace a task, or joins the task that it is to a further network.
    async fn attach(&self, request: v1::AttachRequest) -> Result<v1::AttachResponse, Refusal>;
    /// Ends what the owner attached; one that has nothing is no error.
    async fn detach(&self, owner: &str) -> Result<(), Refusal>;
    /// Gives further names to what the owner attached, instead of those that it has.
    async fn set_aliases(&self, owner: &str, aliases: Vec<String>) -> Result<(), Refusal>;
    /// Takes an address for a task that is to come.
    async fn reserve(&self, wish: Reserve) -> Result<IpAddr, Refusal>;
    /// Gives it back; one that is not reserved is no error.
    async fn release(&self, network: NetworkId, address: IpAddr) -> Result<(), Refusal>;
    /// Opens ports for a service, on every node.
    async fn publish(&self, service: ServiceId, ports: Vec<PortConfig>) -> Result<(), Refusal>;
}

/// The daemon behind its socket.
#[derive(Debug, Clone)]
pub struct MeshSocket {
    channel: Channel,
}

impl MeshSocket {
    /// Connects when it is first asked, and again after a loss.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { channel: unix_channel(socket) }
    }

    fn local(&self) -> LocalClient<Channel> {
        LocalClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }
}

async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>> + Send) -> Result<T, Refusal> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let message = match status.message() {
                "" => status.code().description().to_owned(),
                text => text.to_owned(),
            };
            Err(Refusal { code: status.code(), message })
        }
        Err(_) => {
            let message = format!("meshd gives no answer within {} s", ANSWER.as_secs());
            Err(Refusal { code: Code::DeadlineExceeded, message })
        }
    }
}

#[async_trait]
impl Mesh for MeshSocket {
    async fn view(&self) -> Result<ClusterView, Refusal> {
        let told = answer(self.local().get_view(v1::GetViewRequest {})).await?;
        let view = told.view.unwrap_or_default();
        view.try_into().map_err(|error: Invalid| nonsense(error))
    }

    async fn node(&self) -> Result<String, Refusal> {
        Ok(answer(self.local().status(v1::StatusRequest {})).await?.node_id)
    }

    async fn tasks(&self) -> Result<v1::ListTasksResponse, Refusal> {
        answer(self.local().list_tasks(v1::ListTasksRequest {})).await
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<v1::AttachResponse, Refusal> {
        answer(self.local().attach(request)).await
    }

    async fn detach(&self, owner: &str) -> Result<(), Refusal> {
        let request = v1::DetachRequest { owner: owner.to_owned(), ..Default::default() };
        answer(self.local().detach(request)).await.map(drop)
    }

    async fn publish(&self, service: ServiceId, ports: Vec<PortConfig>) -> Result<(), Refusal> {
        let ports = ports.into_iter().map(Into::into).collect();
        let request = v1::PublishRequest { service: service.to_string(), ports, expected_version: None };
        let mut control = ControlClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        answer(control.publish(request)).await.map(drop)
    }

    async fn set_aliases(&self, owner: &str, aliases: Vec<String>) -> Result<(), Refusal> {
        let request = v1::SetAliasesRequest { owner: owner.to_owned(), aliases };
        answer(self.local().set_aliases(request)).await.map(drop)
    }

    async fn reserve(&self, wish: Reserve) -> Result<IpAddr, Refusal> {
        let request = v1::ReserveRequest {
            network: wish.network.to_string(),
            address: wish.address.map(|address| address.to_string()).unwrap_or_default(),
            ipv6: wish.family == Family::V6,
            owner: wish.owner,
        };
        let told = answer(self.local().reserve(request)).await?.address;
        let read = told.parse::<IpNet>().map(|net| net.addr()).or_else(|_| told.parse());
        read.map_err(|_| nonsense(format!("{told:?} is no address")))
    }

    async fn release(&self, network: NetworkId, address: IpAddr) -> Result<(), Refusal> {
        let (network, address) = (network.to_string(), address.to_string());
        let request = v1::ReleaseRequest { owner: String::new(), network, address };
        answer(self.local().release(request)).await.map(drop)
    }
}

fn nonsense(error: impl std::fmt::Display) -> Refusal {
    Refusal { code: Code::Internal, message: format!("meshd's answer makes no sense: {error}") }
}
