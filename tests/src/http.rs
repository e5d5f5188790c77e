//! HTTP requests, by curl and by hand.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::{
    socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt},
    time::TimeVal,
};

use crate::process::output;

/// Fetches `url` with curl, which `command` stands for, within three seconds.
pub fn curl(mut command: Command, url: &str) -> Result<String> {
    let words = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "3", url];
    output(command.args(words)).map(|body| body.trim().to_owned())
}

/// One request on a connection of its own, from the calling thread's namespace; the body.
pub fn get(server: SocketAddr, at_most: Duration) -> Result<String> {
    let stream =
        TcpStream::connect_timeout(&server, at_most).with_context(|| format!("connecting to {server}"))?;
    get_on(stream, at_most)
}

/// One request on a connection that is there, and its last; the body.
pub fn get_on(mut stream: TcpStream, at_most: Duration) -> Result<String> {
    let server = stream.peer_addr().context("whom the connection is with")?;
    stream.set_read_timeout(Some(at_most)).context("a socket's timeout")?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.ip());
    stream.write_all(request.as_bytes()).with_context(|| format!("sending to {server}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading from {server}"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.trim().to_owned()),
        _ => bail!("{server} answers {answer:?}"),
    }
}

/// A connection from the calling thread's namespace and the given address and port, which may be in use for other servers.
pub fn connect_from(
    source: impl Into<SocketAddr>,
    server: impl Into<SocketAddr>,
    at_most: Duration,
) -> Result<TcpStream> {
    let (source, server) = (source.into(), server.into());
    let what = || format!("connecting from {source} to {server}");
    let flags = SockFlag::SOCK_CLOEXEC;
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, flags, None).with_context(what)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true).with_context(what)?;
    let seconds = TimeVal::new(i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX), 0);
    socket::setsockopt(&socket, sockopt::SendTimeout, &seconds).with_context(what)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(source)).with_context(what)?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(server)).with_context(what)?;
    Ok(TcpStream::from(socket))
}

/// How often each answer came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<String, usize>);

impl Tally {
    /// Counts one answer.
    pub fn count(&mut self, answer: &str) {
        *self.0.entry(answer.to_owned()).or_default() += 1;
    }

    /// How many answers there were.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Fails when an answer's share is further from an even one than `tolerance` (0.2: by a fifth).
    pub fn spread_evenly(&self, over: usize, tolerance: f64) -> Result<()> {
        anyhow::ensure!(self.0.len() == over, "answers from {} of {over} tasks: {self:?}", self.0.len());
        let even = self.total() as f64 / over as f64;
        let uneven = self.0.values().any(|&count| (count as f64 - even).abs() > even * tolerance);
        anyhow::ensure!(!uneven, "not spread evenly: {self:?}");
        Ok(())
    }
}
