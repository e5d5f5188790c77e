//! The sockets in a task's namespace.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use mesh_netlink::NetNs;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    DnsStats, Error, TaskForwarder, TaskView,
    respond::{Outcome, Transport, respond},
    stats::{Counters, count},
    tcp::{read_message, write_message},
};

/// Where tasks ask, as under Docker.
pub const DNS_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Questions of one task being forwarded at once; more are told SERVFAIL.
const MOST_FORWARDS: usize = 256;
/// TCP connections of one task at once; more are closed.
const MOST_CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent (RFC 7766, section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Before going on after an error that may come again at once, such as no descriptors left.
const BREATH: Duration = Duration::from_millis(20);
/// No query that means well is longer.
const LONGEST_QUERY: usize = 4096;

/// The name server of one task. Stopped, and its sockets closed, when dropped; [`DnsServer::stop`] waits for it.
#[derive(Debug)]
pub struct DnsServer {
    udp: JoinHandle<()>,
    tcp: JoinHandle<()>,
    counters: Arc<Counters>,
}

impl DnsServer {
    /// Opens UDP and TCP port 53 of 127.0.0.11 in the namespace and serves on the current runtime. `lo` must be up
    /// there. Every query is answered from what `view` holds at that moment.
    pub fn start(
        ns: BorrowedFd<'_>,
        view: watch::Receiver<Arc<TaskView>>,
        forwarder: Arc<TaskForwarder>,
    ) -> Result<Self, Error> {
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|e| Error::Register(io::Error::other(e)))?;
        let (udp, tcp) = NetNs::from_fd(ns)?.run(open)??;
        let udp = UdpSocket::from_std(udp).map_err(Error::Register)?;
        let tcp = TcpListener::from_std(tcp).map_err(Error::Register)?;
        let counters = Arc::new(Counters::default());
        let context = Arc::new(Context {
            view,
            forwarder,
            counters: Arc::clone(&counters),
            turns: [const { [const { AtomicUsize::new(0) }; 2] }; 256],
            hasher: RandomState::new(),
        });
        Ok(Self {
            udp: runtime.spawn(serve_udp(Arc::new(udp), Arc::clone(&context))),
            tcp: runtime.spawn(serve_tcp(tcp, context)),
            counters,
        })
    }

    /// What was counted so far.
    pub fn stats(&self) -> DnsStats {
        self.counters.read()
    }

    /// Stops, and returns when the sockets are closed.
    pub async fn stop(mut self) {
        self.abort();
        let _ = (&mut self.udp).await;
        let _ = (&mut self.tcp).await;
    }

    fn abort(&self) {
        self.udp.abort();
        self.tcp.abort();
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.abort();
    }
}

fn open() -> Result<(std::net::UdpSocket, std::net::TcpListener), Error> {
    let address = SocketAddr::V4(DNS_ADDRESS);
    let failed = |protocol| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::Taken { address, protocol },
            _ => Error::Listen { address, protocol, source },
        }
    };
    let udp = std::net::UdpSocket::bind(address).map_err(failed("UDP"))?;
    let tcp = std::net::TcpListener::bind(address).map_err(failed("TCP"))?;
    udp.set_nonblocking(true).map_err(Error::Register)?;
    tcp.set_nonblocking(true).map_err(Error::Register)?;
    Ok((udp, tcp))
}

struct Context {
    view: watch::Receiver<Arc<TaskView>>,
    forwarder: Arc<TaskForwarder>,
    counters: Arc<Counters>,
    /// Whose turn it is, by a hash of the name and by family: with one counter for all, a client that asks for two names
    /// (or A and AAAA) in turn would always see the same address first.
    turns: [[AtomicUsize; 2]; 256],
    hasher: RandomState,
}

impl Context {
    fn decide(&self, query: &[u8], transport: Transport) -> Outcome {
        let view = Arc::clone(&self.view.borrow());
        let outcome = respond(&view, query, transport, |name, qtype| self.turn(name, qtype));
        match &outcome {
            Outcome::Reply { code, truncated, .. } => {
                count(&self.counters.answered);
                if *code == ResponseCode::NXDomain {
                    count(&self.counters.unknown);
                }
                if *truncated {
                    count(&self.counters.truncated);
                }
            }
            Outcome::Forward { .. } => count(&self.counters.forwarded),
            Outcome::Malformed(_) => count(&self.counters.malformed),
        }
        outcome
    }

    fn turn(&self, name: &Name, qtype: RecordType) -> usize {
        let slot = self.hasher.hash_one(name) as usize % self.turns.len();
        let family = usize::from(qtype == RecordType::AAAA);
        let turn = self.turns.get(slot).and_then(|families| families.get(family));
        turn.map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed))
    }

    async fn forward(&self, query: &[u8], limit: usize, failure: Vec<u8>) -> Vec<u8> {
        match self.forwarder.forward(query, limit).await {
            Some(response) => response,
            None => {
                count(&self.counters.failed);
                failure
            }
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, context: Arc<Context>) {
    let mut buffer = vec![0; LONGEST_QUERY];
    let mut forwards = JoinSet::new();
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receive failed");
                sleep(BREATH).await;
                continue;
            }
        };
        let query = buffer.get(..length).unwrap_or_default();
        let reply = match context.decide(query, Transport::Udp) {
            Outcome::Reply { bytes, .. } | Outcome::Malformed(Some(bytes)) => bytes,
            Outcome::Malformed(None) => continue,
            Outcome::Forward { limit, failure } => {
                while forwards.try_join_next().is_some() {}
                if forwards.len() < MOST_FORWARDS {
                    let (socket, context, query) =
                        (Arc::clone(&socket), Arc::clone(&context), query.to_vec());
                    forwards.spawn(async move {
                        let response = context.forward(&query, limit, failure).await;
                        send(&socket, &response, client).await;
                    });
                    continue;
                }
                count(&context.counters.failed);
                failure
            }
        };
        send(&socket, &reply, client).await;
    }
}

async fn send(socket: &UdpSocket, message: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(message, client).await {
        tracing::debug!(%client, %error, "send failed");
    }
}

async fn serve_tcp(listener: TcpListener, context: Arc<Context>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                if connections.len() < MOST_CONNECTIONS {
                    connections.spawn(serve_connection(stream, Arc::clone(&context)));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                sleep(BREATH).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, context: Arc<Context>) {
    // Silence, an error and the other side's end all mean the same: close.
    while let Ok(Ok(Some(query))) = timeout(IDLE, read_message(&mut stream)).await {
        let reply = match context.decide(&query, Transport::Tcp) {
            Outcome::Reply { bytes, .. } => bytes,
            Outcome::Forward { limit, failure } => context.forward(&query, limit, failure).await,
            Outcome::Malformed(reply) => {
                if let Some(reply) = reply {
                    let _ = timeout(IDLE, write_message(&mut stream, &reply)).await;
                }
                return;
            }
        };
        if !matches!(timeout(IDLE, write_message(&mut stream, &reply)).await, Ok(Ok(()))) {
            return;
        }
    }
}
