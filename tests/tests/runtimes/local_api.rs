//! A daemon's socket as container runtimes' plugins use it.

use anyhow::{Context, Result};
use mesh_api::{
    transport::unix_connect,
    v1::{self, local_client::LocalClient},
};
use mesh_tests::Node;
use tokio::runtime::Runtime;
use tonic::{Code, transport::Channel};

/// A connection with a daemon.
pub struct Local {
    runtime: Runtime,
    client: LocalClient<Channel>,
}

impl Local {
    /// With the daemon of `node`.
    pub fn of(node: &Node) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = runtime.block_on(unix_connect(node.socket())).context("the daemon's socket")?;
        Ok(Self { runtime, client: LocalClient::new(channel) })
    }

    /// Attaches.
    pub fn attach(&mut self, request: v1::AttachRequest) -> Result<v1::AttachResponse, tonic::Status> {
        self.runtime.block_on(self.client.attach(request)).map(tonic::Response::into_inner)
    }

    /// Ends what the owner attached.
    pub fn detach(&mut self, owner: &str) -> Result<v1::DetachResponse, tonic::Status> {
        let request = v1::DetachRequest { owner: owner.to_owned(), ..v1::DetachRequest::default() };
        self.runtime.block_on(self.client.detach(request)).map(tonic::Response::into_inner)
    }

    /// Keeps an address.
    pub fn reserve(&mut self, request: v1::ReserveRequest) -> Result<v1::ReserveResponse, tonic::Status> {
        self.runtime.block_on(self.client.reserve(request)).map(tonic::Response::into_inner)
    }

    /// Keeps it no more.
    pub fn release(&mut self, request: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, tonic::Status> {
        self.runtime.block_on(self.client.release(request)).map(tonic::Response::into_inner)
    }

    /// The tasks, and the addresses that are kept.
    pub fn list(&mut self) -> Result<v1::ListTasksResponse, tonic::Status> {
        let listed = self.runtime.block_on(self.client.list_tasks(v1::ListTasksRequest {}));
        listed.map(tonic::Response::into_inner)
    }
}

/// A request for `path` on a network.
pub fn request(path: &str, network: &str, owner: &str) -> v1::AttachRequest {
    v1::AttachRequest {
        namespace: Some(v1::attach_request::Namespace::Path(path.to_owned())),
        networks: vec![network.to_owned()],
        owner: owner.to_owned(),
        ..v1::AttachRequest::default()
    }
}

/// What a call was refused with.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Result<(Code, String)> {
    let status = answer.err().context("it was not refused")?;
    Ok((status.code(), status.message().to_owned()))
}
