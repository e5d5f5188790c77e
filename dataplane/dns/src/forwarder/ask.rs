//! One question to several servers: who is asked when, and by which sockets.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_netlink::{BEHIND_MARK, NetNs};
use mesh_types::PREVIOUS_NAMESERVER;
use nix::sys::socket::{setsockopt, sockopt::Mark};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::{timeout, timeout_at},
};

use super::{
    Told, Upstream,
    wire::{Answer, Asked, REFUSED, SERVFAIL, code_of},
};
use crate::{
    DNS_ADDRESS,
    tcp::{read_message, write_message},
};

/// All servers together: within the five seconds that libc waits for us.
const TOGETHER: Duration = Duration::from_millis(4500);
/// After this the next server is asked too, and the first answer counts.
pub(super) const GAP: Duration = Duration::from_millis(600);
/// How often each server is asked at most: one datagram may get lost.
const ROUNDS: usize = 2;
/// One that was silent is asked after the others for so long.
const SHUNNED: Duration = Duration::from_secs(10);
/// What TCP may take, once UDP has shown that the server is there.
const TCP: Duration = Duration::from_millis(1500);
/// No response by UDP is longer: it would not fit into what we say that we take.
const LONGEST_DATAGRAM: usize = 16 * 1024;
const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;

/// Where sockets are made.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In the daemon's namespace.
    Here,
    /// In this one.
    Inside(Arc<NetNs>),
}

impl Upstream {
    /// The first answer that is one, else the first refusal; `None` when there is neither.
    pub(super) async fn ask_servers(&self, asked: &Asked, servers: &[SocketAddr]) -> Option<Told> {
        let mut queue = self.in_order(servers);
        let mut under_way = JoinSet::new();
        let mut begun: Vec<(SocketAddr, Instant)> = Vec::new();
        let mut refusal = None;
        let end = tokio::time::Instant::now() + TOGETHER;
        loop {
            if let Some(server) = queue.pop_front() {
                begun.push((server, Instant::now()));
                let (place, asked) = (self.place.clone(), asked.clone());
                under_way.spawn(async move { (server, ask(&place, server, &asked).await) });
            }
            let until = if queue.is_empty() { end } else { end.min(tokio::time::Instant::now() + self.gap) };
            match timeout_at(until, under_way.join_next()).await {
                Ok(Some(Ok((server, Ok(answer))))) => {
                    let told = Told { answer: Arc::new(answer), by: Some(server), age: 0 };
                    if !matches!(told.answer.code(), SERVFAIL | REFUSED) {
                        let slow = |(other, at): &&(SocketAddr, Instant)| {
                            *other != server && at.elapsed() >= self.gap
                        };
                        self.note(Some(server), begun.iter().filter(slow).map(|(other, _)| *other));
                        return Some(told);
                    }
                    queue.retain(|other| *other != server);
                    refusal.get_or_insert(told);
                }
                Ok(Some(Ok((server, Err(error))))) => {
                    tracing::debug!(%server, %error, "name server failed");
                    queue.retain(|other| *other != server);
                    self.note(None, [server]);
                }
                Ok(Some(Err(error))) => tracing::warn!(%error, "a question was cut off"),
                Ok(None) => return refusal,
                Err(_) if tokio::time::Instant::now() >= end => {
                    tracing::debug!(?servers, "name servers silent");
                    self.note(None, begun.into_iter().map(|(server, _)| server));
                    return refusal;
                }
                Err(_) => {}
            }
        }
    }

    /// The servers as they are to be asked: those that were silent last.
    pub(super) fn in_order(&self, servers: &[SocketAddr]) -> VecDeque<SocketAddr> {
        let now = Instant::now();
        let known = self.lock();
        let is_silent = |server: &&SocketAddr| known.silent.get(server).is_some_and(|until| *until > now);
        let (silent, others): (Vec<_>, Vec<_>) = servers.iter().partition(is_silent);
        let one_round = others.into_iter().chain(silent).copied();
        (0..ROUNDS).flat_map(|_| one_round.clone()).collect()
    }

    fn note(&self, answered: Option<SocketAddr>, silent: impl IntoIterator<Item = SocketAddr>) {
        let mut known = self.lock();
        let until = Instant::now() + SHUNNED;
        known.silent.extend(silent.into_iter().map(|server| (server, until)));
        if let Some(server) = answered {
            known.silent.remove(&server);
        }
    }
}

/// One question to one server: by UDP, and by TCP when that does not hold the response.
async fn ask(place: &Place, server: SocketAddr, asked: &Asked) -> io::Result<Answer> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed response");
    let mut response = ask_udp(place, server, asked, true).await?;
    if asked.has_edns() && matches!(code_of(&response), FORMERR | NOTIMP) {
        // A server of before EDNS (RFC 6891, section 7).
        response = ask_udp(place, server, asked, false).await?;
    }
    let answer = Answer::read(asked, response).ok_or_else(malformed)?;
    // One that is silent over TCP still has given an answer with TC set, which sends the client to TCP itself.
    if answer.is_cut()
        && let Ok(Ok(whole)) = timeout(TCP, ask_tcp(place, server, asked)).await
    {
        return Answer::read(asked, whole).ok_or_else(malformed);
    }
    Ok(answer)
}

async fn ask_udp(place: &Place, server: SocketAddr, asked: &Asked, edns: bool) -> io::Result<Vec<u8>> {
    // A socket and an id for each question: nobody can guess them, and the kernel drops what others send.
    let socket = place.make(move || udp(server)).await??;
    let socket = UdpSocket::from_std(socket)?;
    let id = rand::random();
    socket.send(&asked.query(id, edns)).await?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(response) = buffer.get(..length)
            && asked.is_answered_by(id, response)
        {
            return Ok(response.to_vec());
        }
    }
}

fn udp(server: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    let (server, mark) = way(server);
    if let Some(mark) = mark {
        setsockopt(&socket, Mark, &mark)?;
    }
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where a server is spoken to, and with which mark: the one behind our own is at our own's address.
fn way(server: SocketAddr) -> (SocketAddr, Option<u32>) {
    match server.ip() == IpAddr::V4(PREVIOUS_NAMESERVER) {
        true => (SocketAddr::V4(DNS_ADDRESS), Some(BEHIND_MARK)),
        false => (server, None),
    }
}

async fn ask_tcp(place: &Place, server: SocketAddr, asked: &Asked) -> io::Result<Vec<u8>> {
    let make = move || if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = place.make(make).await??;
    let (server, mark) = way(server);
    if let Some(mark) = mark {
        setsockopt(&socket, Mark, &mark)?;
    }
    let mut stream: TcpStream = socket.connect(server).await?;
    let id = rand::random();
    write_message(&mut stream, &asked.query(id, true)).await?;
    let response = read_message(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if asked.is_answered_by(id, &response) { Ok(response) } else { Err(io::ErrorKind::InvalidData.into()) }
}

impl Place {
    /// For people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Place::Here => "from the node",
            Place::Inside(_) => "from the task",
        }
    }

    /// Runs `make` there. In another namespace that takes a thread of its own.
    async fn make<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self {
            Place::Here => Ok(make()),
            Place::Inside(ns) => {
                let ns = Arc::clone(ns);
                let made = tokio::task::spawn_blocking(move || ns.run(make)).await;
                made.map_err(io::Error::other)?.map_err(io::Error::other)
            }
        }
    }
}
