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
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tracing::{debug, warn};

use super::{
    ACCEPT_PAUSE, CONNECT_TIMEOUT, ConnectError, FIRST_WORD, endpoint,
    guests::{Guest, Guests},
    watchful,
};

/// Handshakes at once; further connections wait in the kernel's backlog.
const HANDSHAKES: usize = 256;
/// Handshakes at once from one address, so that nobody keeps the others out.
const HANDSHAKES_OF_ONE: usize = 64;
/// Connections at once that showed no certificate: nodes that join.
const STRANGERS: usize = 256;
/// The same from one address.
const STRANGERS_OF_ONE: usize = 32;
/// How long such a connection may last: joining takes a few seconds.
const STRANGER_STAYS: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// Connections at once that showed a certificate of the cluster; each node needs two or three.
const MEMBERS: usize = 16_384;
/// The same from one address: nodes may share one.
const MEMBERS_OF_ONE: usize = 2_048;

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
    /// When it ends, whatever the peer does; none for members that have said something.
    end: Option<Pin<Box<Sleep>>>,
    _guest: Guest,
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
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.peer.certs.is_some() && buf.filled().len() > before {
            self.end = None;
        }
        read
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
    let rooms = Rooms::new();
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
        let Some(shaking) = rooms.handshakes.enter(addr.ip()) else {
            debug!(peer = %addr, "too many TLS handshakes from one address");
            continue;
        };
        let (acceptor, ready, rooms) = (acceptor.clone(), ready.clone(), rooms.clone());
        handshakes.spawn(async move {
            let shaken = timeout(CONNECT_TIMEOUT, handshake(acceptor, stream, addr, &rooms)).await;
            drop((slot, shaking));
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

/// Who may be connected at once.
#[derive(Clone)]
struct Rooms {
    handshakes: Guests,
    strangers: Guests,
    members: Guests,
}

impl Rooms {
    fn new() -> Self {
        Self {
            handshakes: Guests::new(HANDSHAKES, HANDSHAKES_OF_ONE),
            strangers: Guests::new(STRANGERS, STRANGERS_OF_ONE),
            members: Guests::new(MEMBERS, MEMBERS_OF_ONE),
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    addr: SocketAddr,
    rooms: &Rooms,
) -> io::Result<TlsIo> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certs: Option<Arc<[_]>> = stream.get_ref().1.peer_certificates().map(Arc::from);
    let (room, stays) = match certs {
        Some(_) => (&rooms.members, FIRST_WORD),
        None => (&rooms.strangers, STRANGER_STAYS),
    };
    let end = Some(Box::pin(sleep(stays)));
    let guest = room.enter(addr.ip()).ok_or_else(|| io::Error::other("too many connections"))?;
    Ok(TlsIo { stream, peer: PeerInfo { addr, certs }, end, _guest: guest })
}
