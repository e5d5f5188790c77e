//! The transport over the managers' API.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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

/// A channel that has brought no answer for so long is given up when a call on it is.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends messages by gRPC over mutual TLS. The serving side must allow messages of the same size.
pub struct GrpcTransport {
    server_name: &'static str,
    tls: Arc<ClientConfig>,
    channels: Mutex<BTreeMap<SocketAddr, Known>>,
}

struct Known {
    channel: Channel,
    /// When it was made, or last brought an answer.
    heard: Instant,
}

impl GrpcTransport {
    /// The largest message that is sent, in bytes, for the serving side's limits.
    pub const MAX_MESSAGE: usize = MAX_MESSAGE;

    /// A transport that dials managers by `server_name`.
    pub fn new(server_name: &'static str, tls: Arc<ClientConfig>) -> Self {
        Self { server_name, tls, channels: Mutex::default() }
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Known>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, addr: SocketAddr) -> RaftClient<Channel> {
        let fresh = || Known {
            channel: transport::channel(addr, self.server_name, self.tls.clone()),
            heard: Instant::now(),
        };
        let channel = self.channels().entry(addr).or_insert_with(fresh).channel.clone();
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
        let message = RaftMessage { kind: kind.as_str().to_owned(), payload: message, to: node.to_string() };
        let mut unanswered = Unanswered { transport: self, addr: Some(addr) };
        let answer = self.client(addr).call(mesh_trace::pass_on(message)).await;
        unanswered.addr = None;
        if let (Ok(_), Some(known)) = (&answer, self.channels().get_mut(&addr)) {
            known.heard = Instant::now();
        }
        match answer {
            Ok(answer) => Ok(answer.into_inner().payload),
            Err(status) if status.code() == Code::Unavailable => {
                Err(TransportError::Unreachable { node, addr, source: status.into() })
            }
            Err(status) => Err(TransportError::Failed { node, addr, source: status.into() }),
        }
    }
}

/// Forgets the channel of a call that its caller has given up, if the channel is silent altogether. A connection that was
/// cut may be silent for many seconds after the way is open again, for TCP tries more and more rarely; a new one is there
/// at once.
struct Unanswered<'a> {
    transport: &'a GrpcTransport,
    addr: Option<SocketAddr>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(addr) = self.addr {
            self.transport
                .channels()
                .retain(|other, known| *other != addr || known.heard.elapsed() < SILENCE);
        }
    }
}
