//! Sockets inside the namespaces of a path's ends, none of which waits for ever.

use std::{
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mesh_tests::NetNs;
use nix::sys::socket::{setsockopt, sockopt};

use crate::path::{Path, Ports};

/// How long anything may take that is expected at once.
pub const AT_MOST: Duration = Duration::from_secs(5);

/// Room for what arrives while the receiver is not running.
const BUFFER: usize = 4 << 20;

/// Sockets of client and server; the client's is connected.
pub fn udp(path: &Path, port: impl Fn(&Ports) -> u16) -> Result<(UdpSocket, UdpSocket)> {
    let (at, to) = (path.bind(&port), path.dial(&port));
    let server = NetNs::run_at(&path.to, || UdpSocket::bind(at))?;
    let server = server.with_context(|| format!("a server's socket at UDP {at}"))?;
    let any = (path.any(), 0);
    let client = NetNs::run_at(&path.from, || UdpSocket::bind(any))?.context("a client's socket")?;
    client.connect(to).with_context(|| format!("connecting to {to}"))?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(AT_MOST)).context("a socket's timeout")?;
        setsockopt(socket, sockopt::RcvBufForce, &BUFFER).context("a socket's buffer")?;
    }
    Ok((client, server))
}

/// Both ends of a connection.
pub fn tcp(path: &Path, port: impl Fn(&Ports) -> u16) -> Result<(TcpStream, TcpStream)> {
    let (at, to) = (path.bind(&port), path.dial(&port));
    let listener = NetNs::run_at(&path.to, || TcpListener::bind(at))?;
    let listener = listener.with_context(|| format!("a server's socket at TCP {at}"))?;
    let client = NetNs::run_at(&path.from, || TcpStream::connect_timeout(&to, AT_MOST))?;
    let client = client.with_context(|| format!("connecting to {to}"))?;
    let server = accept(&listener).with_context(|| format!("what is sent to {to} does not arrive"))?;
    for socket in [&client, &server] {
        socket.set_nodelay(true).context("TCP_NODELAY")?;
        socket.set_read_timeout(Some(AT_MOST)).context("a socket's timeout")?;
        socket.set_write_timeout(Some(AT_MOST)).context("a socket's timeout")?;
    }
    Ok((client, server))
}

/// As `accept`, for so long; a proxy accepts before its server does.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true).context("a listening socket")?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).context("an accepted socket")?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(error).context("accepting");
            }
            Err(_) if start.elapsed() > AT_MOST => bail!("no connection within {AT_MOST:?}"),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}
