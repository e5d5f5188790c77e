//! The daemon of this node.

use std::{
    error::Error as _,
    future::Future,
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use mesh_api::{
    transport::unix_connect,
    v1::{cluster_client::ClusterClient, control_client::ControlClient, local_client::LocalClient},
};
use mesh_trace::PassOn;
use tokio::time::timeout;
use tonic::{Code, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::failure::{Failure, unreachable};

/// Longest wait for an answer: joining asks other nodes, which have time-outs of their own below this.
const ANSWER: Duration = Duration::from_secs(60);
/// A view of thousands of nodes and endpoints passes tonic's 4 MiB.
const LARGEST_ANSWER: usize = 256 << 20;

/// A connection to it, which tells the span that this process was started within, if any.
type Connection = InterceptedService<Channel, PassOn>;

/// See the module.
#[derive(Debug, Clone)]
pub struct Daemon {
    channel: Channel,
    span: PassOn,
}

impl Daemon {
    /// Connects to the daemon that listens on `socket`.
    pub async fn connect(socket: &Path) -> Result<Self, Failure> {
        match unix_connect(socket).await {
            Ok(channel) => Ok(Self { channel, span: PassOn::of_environment() }),
            Err(error) => Err(match cause(&error) {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Failure::Lost,
                cause => unreachable(socket, cause),
            }),
        }
    }

    /// The daemon's own service.
    pub fn local(&self) -> LocalClient<Connection> {
        LocalClient::with_interceptor(self.channel.clone(), self.span)
            .max_decoding_message_size(LARGEST_ANSWER)
    }

    /// The cluster as a whole, by way of the daemon.
    pub fn cluster(&self) -> ClusterClient<Connection> {
        ClusterClient::with_interceptor(self.channel.clone(), self.span)
    }

    /// Changes of the cluster, by way of the daemon.
    pub fn control(&self) -> ControlClient<Connection> {
        ControlClient::with_interceptor(self.channel.clone(), self.span)
            .max_decoding_message_size(LARGEST_ANSWER)
    }
}

/// Waits for the answer to a call.
pub async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match timeout(ANSWER, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(&status)),
        Err(_) => Err(Failure::Silent(ANSWER.as_secs())),
    }
}

/// What the end of a call means.
pub fn failed(status: &Status) -> Failure {
    // Only what the client itself met has a source; the daemon's refusals come as a code and words.
    if status.source().is_some() {
        return Failure::Lost;
    }
    let message = match status.message() {
        // tonic's own answer to a request that the server's proto files do not have.
        "" if status.code() == Code::Unimplemented => return Failure::OtherVersion,
        "" => format!("refused: {}", status.code().description()),
        text => text.to_owned(),
    };
    Failure::Refused { code: status.code(), message }
}

/// The operating system's answer, wherever in the chain it is.
fn cause(error: &(dyn std::error::Error + 'static)) -> ErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind();
        }
        next = error.source();
    }
    ErrorKind::TimedOut
}
