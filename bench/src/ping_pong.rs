//! Round trips of 64 bytes between two sockets, each served by a thread on a processor of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    pinning::{Processors, pin},
    stats::median,
};

const SIZE: usize = 64;
const WARM_UP: usize = 500;
const AT_MOST: Duration = Duration::from_secs(2);

/// The median round trip over UDP in microseconds. The sockets may live in different namespaces.
pub fn udp(
    client: &UdpSocket,
    server: &UdpSocket,
    to: SocketAddr,
    count: usize,
    processors: Processors,
) -> Result<f64> {
    client.connect(to).with_context(|| format!("connecting to {to}"))?;
    for socket in [client, server] {
        socket.set_read_timeout(Some(AT_MOST)).context("a socket's timeout")?;
    }
    let echo = || -> Result<()> {
        pin(processors.server)?;
        let mut buffer = [0; SIZE];
        for _ in 0..count + WARM_UP {
            let (size, from) = server.recv_from(&mut buffer).context("the server hears nothing")?;
            server.send_to(&buffer[..size], from).context("answering")?;
        }
        Ok(())
    };
    let once = || {
        client.send(&[7; SIZE]).context("sending")?;
        client.recv(&mut [0; SIZE]).context("no answer").map(drop)
    };
    with_server(echo, || measure(count, processors, once))
}

/// The median round trip over one TCP connection in microseconds.
pub fn tcp(mut client: TcpStream, server: &TcpListener, count: usize, processors: Processors) -> Result<f64> {
    client.set_nodelay(true).context("TCP_NODELAY")?;
    client.set_read_timeout(Some(AT_MOST)).context("a socket's timeout")?;
    let echo = || -> Result<()> {
        pin(processors.server)?;
        let (mut peer, _) = server.accept().context("accepting")?;
        peer.set_nodelay(true).context("TCP_NODELAY")?;
        peer.set_read_timeout(Some(AT_MOST)).context("a socket's timeout")?;
        let mut buffer = [0; SIZE];
        for _ in 0..count + WARM_UP {
            peer.read_exact(&mut buffer).context("the server hears nothing")?;
            peer.write_all(&buffer).context("answering")?;
        }
        Ok(())
    };
    let mut once = || {
        client.write_all(&[7; SIZE]).context("sending")?;
        client.read_exact(&mut [0; SIZE]).context("no answer")
    };
    with_server(echo, || measure(count, processors, &mut once))
}

fn measure(count: usize, processors: Processors, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    pin(processors.client)?;
    for _ in 0..WARM_UP {
        once()?;
    }
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        once()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}

/// Runs both ends, each on a thread of its own; the client's error comes first, since it tells more.
fn with_server(
    server: impl FnOnce() -> Result<()> + Send,
    client: impl FnOnce() -> Result<f64> + Send,
) -> Result<f64> {
    thread::scope(|scope| {
        let server = scope.spawn(server);
        let client = scope.spawn(client).join().map_err(|_| anyhow!("the client panicked"))?;
        let server = server.join().map_err(|_| anyhow!("the server panicked"))?;
        let median = client?;
        server.map(|()| median)
    })
}
