//! The transport over the managers' API.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use mesh_api::{
    transport,
    v1::{RaftMessage, raft_client::RaftClient},
};
use mesh_types::NodeId;
use rustls::ClientConfig;
use tonic::{Code, transport::Channel};

use crate::network::{RpcKind, Transport, TransportError};

/// The largest message: a snapshot of a very large cluster.
const MAX_MESSAGE: usize = 256 << 20;

/// Sends messages by gRPC over mutual TLS. The serving side must allow messages of the same size.
pub struct GrpcTransport {
    server_name: &'static str,
    tls: Arc<ClientConfig>,
    channels: Mutex<BTreeMap<SocketAddr, Channel>>,
}

impl GrpcTransport {
    /// The largest message that is sent, in bytes, for the serving side's limits.
    pub const MAX_MESSAGE: usize = MAX_MESSAGE;

    /// A transport that dials managers by `server_name`.
    pub fn new(server_name: &'static str, tls: Arc<ClientConfig>) -> Self {
        Self { server_name, tls, channels: Mutex::default() }
    }

    fn client(&self, addr: SocketAddr) -> RaftClient<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels
            .entry(addr)
            .or_insert_with(|| transport::channel(addr, self.server_name, self.tls.clone()))
            .clone();
        RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(
        &self,
        node: NodeId,
        addr: SocketAddr,
        kind: RpcKind,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let message = RaftMessage { kind: kind.as_str().to_owned(), payload: message };
        let mut unanswered = Unanswered { transport: self, addr: Some(addr) };
        let answer = self.client(addr).call(message).await;
        unanswered.addr = None;
        match answer {
            Ok(answer) => Ok(answer.into_inner().payload),
            Err(status) if status.code() == Code::Unavailable => {
                Err(TransportError::Unreachable { node, addr, source: status.into() })
            }
            Err(status) => Err(TransportError::Failed { node, addr, source: status.into() }),
        }
    }
}

/// Forgets the channel of a call that its caller has given up. A connection that was cut may be silent for many seconds
/// after the way is open again, for TCP tries more and more rarely; a new one is there at once.
struct Unanswered<'a> {
    transport: &'a GrpcTransport,
    addr: Option<SocketAddr>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(addr) = self.addr {
            self.transport.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&addr);
        }
    }
}
