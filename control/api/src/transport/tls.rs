//! TLS over TCP between nodes.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tracing::{debug, warn};

use super::{CONNECT_TIMEOUT, ConnectError, endpoint, watchful};

/// Handshakes at once; further connections wait in the kernel's backlog.
const HANDSHAKES: usize = 256;
/// Pause after a failure to accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A channel to the node at `addr` whose certificate must have the name `server_name`.
pub fn channel(addr: SocketAddr, server_name: &'static str, config: Arc<ClientConfig>) -> Channel {
    endpoint().connect_with_connector_lazy(connector(addr, server_name, config))
}

/// The same, connected before it returns.
pub async fn connect(
    addr: SocketAddr,
    server_name: &'static str,
    config: Arc<ClientConfig>,
) -> Result<Channel, ConnectError> {
    connect_by(endpoint(), addr, server_name, config).await
}

/// The same for a connection whose other side is to be missed soon: probed every second, and given up when it has not
/// answered for two.
pub async fn connect_watchful(
    addr: SocketAddr,
    server_name: &'static str,
    config: Arc<ClientConfig>,
) -> Result<Channel, ConnectError> {
    connect_by(watchful(endpoint()), addr, server_name, config).await
}

async fn connect_by(
    endpoint: Endpoint,
    addr: SocketAddr,
    server_name: &'static str,
    config: Arc<ClientConfig>,
) -> Result<Channel, ConnectError> {
    let connected = endpoint.connect_with_connector(connector(addr, server_name, config)).await;
    connected.map_err(|source| ConnectError { to: addr.to_string(), source })
}

fn connector(
    addr: SocketAddr,
    server_name: &'static str,
    config: Arc<ClientConfig>,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
    Error = io::Error,
    Future: Send,
> {
    tower::service_fn(move |_: Uri| {
        let config = config.clone();
        async move {
            let name = ServerName::try_from(server_name).map_err(io::Error::other)?;
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(config).connect(name, stream).await.map(TokioIo::new)
        }
    })
}

/// Who is on the other side of a request's connection.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub addr: SocketAddr,
    /// The verified certificates, leaf first; none if the client showed none, as a joining node does.
    pub certs: Option<Arc<[CertificateDer<'static>]>>,
}

/// The peer of a request that came in by [`tls_incoming`].
pub fn peer_info<T>(request: &tonic::Request<T>) -> Option<&PeerInfo> {
    request.extensions().get()
}

/// An accepted connection.
#[derive(Debug)]
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
}

impl Connected for TlsIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The listener's connections after their handshake.
///
/// Handshakes run beside each other, each within [`CONNECT_TIMEOUT`]; one that fails is logged and forgotten. The
/// stream does not end, and closes the listener when it is dropped. Call it within a tokio runtime.
pub fn tls_incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> impl Stream<Item = Result<TlsIo, Infallible>> + Send {
    let (ready, connections) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, TlsAcceptor::from(config), ready));
    futures::stream::unfold((connections, tasks), |(mut connections, tasks)| async move {
        connections.recv().await.map(|io| (Ok(io), (connections, tasks)))
    })
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<TlsIo>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (stream, addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        handshakes.spawn(async move {
            let shaken = timeout(CONNECT_TIMEOUT, handshake(acceptor, stream, addr)).await;
            drop(slot);
            match shaken {
                // An error means that nobody serves any more.
                Ok(Ok(io)) => drop(ready.send(io).await),
                Ok(Err(error)) => debug!(peer = %addr, %error, "TLS handshake failed"),
                Err(_) => debug!(peer = %addr, "TLS handshake timed out"),
            }
        });
        while handshakes.try_join_next().is_some() {}
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, addr: SocketAddr) -> io::Result<TlsIo> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certs = stream.get_ref().1.peer_certificates().map(Arc::from);
    Ok(TlsIo { stream, peer: PeerInfo { addr, certs } })
}
