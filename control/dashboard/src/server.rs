//! The listener: TLS, bounds on connections, and the end of it all.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::{
    Limits, Source,
    hub::Hub,
    routes::{App, Connection, lock, route},
    session::Sessions,
};

/// Connections at a time; further ones wait to be taken.
const CONNECTIONS: usize = 512;
/// How long a handshake may take, and a request's head.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(10);
/// A connection on which no session was shown is closed after this.
const STRANGER: Duration = Duration::from_secs(20);
/// What is sent has to be received within this, or the kernel gives the connection up.
const UNREAD: Duration = Duration::from_secs(30);
/// Requests under way on one connection.
const REQUESTS: u32 = 64;
/// After this silence a connection is probed.
const PROBE: Duration = Duration::from_secs(20);

/// How the page is served.
pub struct Options {
    /// Where.
    pub listen: SocketAddr,
    /// Shows the manager's certificate; its ALPN protocols are `h2` and `http/1.1`.
    pub tls: Arc<ServerConfig>,
    /// Letters and digits that tell this manager from others: cookies do not tell ports of one host apart.
    pub name: String,
    /// Bounds of sessions.
    pub limits: Limits,
}

/// Why the page is not served.
#[derive(Debug, Error)]
pub enum DashboardError {
    /// Somebody else has the port, or the address is not this node's.
    #[error("cannot listen on {addr} for the dashboard; name another address and port with --listen")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// The served page; dropped, it ends, and all sessions with it.
pub struct Dashboard {
    app: Arc<App>,
    addr: SocketAddr,
    accepting: JoinHandle<()>,
    stop: DropGuard,
}

impl Dashboard {
    /// Begins to serve.
    pub async fn start(options: Options, source: Arc<dyn Source>) -> Result<Self, DashboardError> {
        let error = |source| DashboardError::Listen { addr: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(error)?;
        let addr = listener.local_addr().map_err(error)?;
        let stop = CancellationToken::new();
        let app = Arc::new(App {
            sessions: Mutex::new(Sessions::new(options.limits)),
            guesses: Mutex::default(),
            hub: Hub::new(source),
            cookie: format!("__Host-meshd-{}", options.name),
            stop: stop.clone(),
        });
        let acceptor = TlsAcceptor::from(options.tls);
        let accepting = tokio::spawn(accept(listener, acceptor, app.clone()));
        info!(listen = %addr, "dashboard served");
        Ok(Self { app, addr, accepting, stop: stop.drop_guard() })
    }

    /// Ends it, as dropping it does, and returns when nobody can connect any more.
    pub async fn end(self) {
        drop(self.stop);
        // It was cancelled, or has ended.
        let _ = self.accepting.await;
        info!(listen = %self.addr, "dashboard ended");
    }

    /// Where it is served.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A token for one session: the page's address with `#login=TOKEN` behind it begins it.
    pub fn login(&self, write: bool) -> String {
        lock(&self.app.sessions).login(write, Instant::now())
    }

    /// The bounds of sessions.
    pub fn limits(&self) -> Limits {
        lock(&self.app.sessions).limits()
    }

    /// Has sessions go by other bounds from now on, those that are there too.
    pub fn set_limits(&self, limits: Limits) {
        lock(&self.app.sessions).set_limits(limits);
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, app: Arc<App>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stop = app.stop.clone();
    let work = async {
        loop {
            // Never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(serve(stream, peer, acceptor.clone(), app.clone(), place));
                }
                // Of this connection alone, or of descriptors that others will give back.
                Err(error) => {
                    warn!(%error, "accept a connection of the dashboard");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    app: Arc<App>,
    place: OwnedSemaphorePermit,
) {
    let unread = u32::try_from(UNREAD.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(&stream, TcpUserTimeout, &unread) {
        debug!(%error, "bound what a reader of the dashboard may leave unread");
    }
    let _ = stream.set_nodelay(true);
    let stop = app.stop.clone();
    let connection = Arc::new(Connection { peer: peer.ip(), trusted: AtomicBool::new(false) });
    let work = async {
        let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%peer, %error, "dashboard: handshake"),
            Err(_) => return debug!(%peer, "dashboard: no handshake in time"),
        };
        let service = service_fn(|request| {
            let (app, connection) = (app.clone(), connection.clone());
            async move { Ok::<_, Infallible>(route(&app, &connection, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(REQUESTS)
            .keep_alive_interval(PROBE)
            .keep_alive_timeout(PROBE);
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let early = timeout(STRANGER, served.as_mut()).await;
        let ended = match early {
            Ok(ended) => ended,
            Err(_) if connection.trusted.load(Ordering::Relaxed) => served.await,
            Err(_) => return debug!(%peer, "dashboard: no session shown"),
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "dashboard: connection");
        }
    };
    stop.run_until_cancelled(work).await;
    drop(place);
}
