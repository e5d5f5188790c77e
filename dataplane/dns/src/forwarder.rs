//! Asks the node's own name servers, in the daemon's namespace.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    resolv_conf::ResolvConf,
    respond::truncated,
    tcp::{read_message, write_message},
};

/// What one server is given. Three of them fit into the five seconds that libc waits for us.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Questions under way at once, for all tasks of the node.
const MOST_AT_ONCE: usize = 1024;
const HEADER: usize = 12;
const TRUNCATED: u8 = 0x02;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// Passes queries to the name servers of the node and their responses back, both as they are but for the id.
///
/// The server that answered last is asked first; one that is silent, or says SERVFAIL or REFUSED, is passed over.
#[derive(Debug)]
pub struct Forwarder {
    servers: Servers,
    preferred: AtomicUsize,
    free: Semaphore,
}

#[derive(Debug)]
enum Servers {
    File(ResolvConf),
    Fixed(Arc<[SocketAddr]>),
}

impl Forwarder {
    /// Takes the servers from a file such as `/etc/resolv.conf`, read again when it changes. 127.0.0.11 is left out.
    pub fn from_file(path: &Path) -> Self {
        Self::new(Servers::File(ResolvConf::new(path)))
    }

    /// Takes these servers.
    pub fn to_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::new(Servers::Fixed(servers.into_iter().collect()))
    }

    fn new(servers: Servers) -> Self {
        Self { servers, preferred: AtomicUsize::new(0), free: Semaphore::new(MOST_AT_ONCE) }
    }

    /// The response to `query`, at most `limit` bytes long; `None` when no server gave one.
    pub(crate) async fn forward(&self, query: &[u8], limit: usize) -> Option<Vec<u8>> {
        let _permit = self.free.try_acquire().ok()?;
        let servers = match &self.servers {
            Servers::File(file) => file.servers(),
            Servers::Fixed(servers) => Arc::clone(servers),
        };
        let first = self.preferred.load(Ordering::Relaxed);
        let mut refusal = None;
        for turn in 0..servers.len() {
            let index = first.wrapping_add(turn) % servers.len();
            let Some(&server) = servers.get(index) else { continue };
            match timeout(PATIENCE, ask(server, query, limit)).await {
                Ok(Ok(response)) if matches!(code_of(&response), SERVFAIL | REFUSED) => {
                    refusal.get_or_insert(response);
                }
                Ok(Ok(response)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Some(response);
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "name server failed"),
                Err(_) => tracing::debug!(%server, "name server silent"),
            }
        }
        refusal
    }
}

fn code_of(message: &[u8]) -> u8 {
    message.get(3).map_or(SERVFAIL, |flags| flags & 0x0f)
}

/// One question to one server: by UDP, and by TCP when that does not hold the response.
async fn ask(server: SocketAddr, query: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut asked = query.to_vec();
    // An id of our own: the client's is no secret to its neighbours.
    set_id(&mut asked, rand::random());
    let by_udp = ask_udp(server, &asked).await?;
    let cut = by_udp.get(2).is_some_and(|flags| flags & TRUNCATED != 0);
    let mut response = by_udp;
    // One that is silent over TCP still has given an answer with TC set, which sends the client to TCP itself.
    if cut && let Ok(Ok(whole)) = timeout(PATIENCE / 2, ask_tcp(server, &asked)).await {
        response = whole;
    }
    if response.len() > limit {
        let too_long = || io::Error::new(io::ErrorKind::InvalidData, "response too long to take and to cut");
        response = truncated(&response).filter(|short| short.len() <= limit).ok_or_else(too_long)?;
    }
    set_id(&mut response, id_of(query));
    Ok(response)
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket for each question: a port that nobody can guess, and the kernel drops what others send.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(response) = buffer.get(..length)
            && answers(query, response)
        {
            return Ok(response.to_vec());
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, query).await?;
    let response = read_message(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if answers(query, &response) { Ok(response) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn id_of(message: &[u8]) -> u16 {
    match message {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

fn set_id(message: &mut [u8], id: u16) {
    if let [high, low, ..] = message {
        [*high, *low] = id.to_be_bytes();
    }
}

/// Whether `response` is one to `query`: the id, the QR bit and the question, which errors may leave out.
fn answers(query: &[u8], response: &[u8]) -> bool {
    let (Some(header), Some(question)) = (response.get(..HEADER), question_of(query)) else { return false };
    if id_of(header) != id_of(query) || header.get(2).is_none_or(|flags| flags & 0x80 == 0) {
        return false;
    }
    let without_question = header.get(4..6) == Some(&[0, 0]);
    let same = response
        .get(HEADER..HEADER + question.len())
        .is_some_and(|echoed| echoed.eq_ignore_ascii_case(question));
    same || (without_question && code_of(response) != 0)
}

/// The octets of the first question: name, type, class.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += length + 1,
            _ => return None,
        }
    }
    message.get(HEADER..at + 5)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03wEb\x02cc\x00\x00\x01\x00\x01";

    fn response(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = QUERY.to_vec();
        bytes[2] |= 0x80;
        change(&mut bytes);
        bytes
    }

    #[test]
    fn only_responses_to_the_question_count() {
        assert!(answers(QUERY, &response(|_| ())));
        assert!(answers(QUERY, &response(|b| b[14] = b'e')), "case");
        assert!(!answers(QUERY, QUERY), "a query");
        assert!(!answers(QUERY, &response(|b| b[0] = 9)), "another id");
        assert!(!answers(QUERY, &response(|b| b[13] = b'x')), "another name");
        assert!(!answers(QUERY, &response(|b| b.truncate(20))), "cut");
        let bare = |code| {
            response(|b| {
                b.truncate(12);
                (b[3], b[5]) = (code, 0);
            })
        };
        assert!(answers(QUERY, &bare(1)));
        assert!(!answers(QUERY, &bare(0)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(a in prop::collection::vec(any::<u8>(), 0..80), b in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = answers(&a, &b);
        }
    }
}
