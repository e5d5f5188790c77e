//! The daemon's unix socket.

use std::{io, path::PathBuf};

use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Uri};

use super::{ConnectError, endpoint};

/// A channel to the daemon that listens on the socket `path`.
pub fn unix_channel(path: impl Into<PathBuf>) -> Channel {
    endpoint().connect_with_connector_lazy(connector(path.into()))
}

/// The same, connected before it returns.
pub async fn unix_connect(path: impl Into<PathBuf>) -> Result<Channel, ConnectError> {
    let path = path.into();
    let connected = endpoint().connect_with_connector(connector(path.clone())).await;
    connected.map_err(|source| ConnectError { to: path.display().to_string(), source })
}

fn connector(
    path: PathBuf,
) -> impl tower::Service<Uri, Response = TokioIo<UnixStream>, Error = io::Error, Future: Send> {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })
}

/// The connections of a listener, for tonic's server; requests carry [`tonic::transport::server::UdsConnectInfo`].
pub fn unix_incoming(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> + Send {
    UnixListenerStream::new(listener)
}
