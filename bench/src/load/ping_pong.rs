//! Round trips of 64 bytes between two sockets, each served by a thread on a processor of its own.

use std::{
    io::{Read, Write},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};

use super::{Sample, sockets};
use crate::{
    cpu::Busy,
    path::Path,
    pinning::{Processors, pin},
    stats::median,
};

const SIZE: usize = 64;
const WARM_UP: usize = 500;

/// The median round trip over UDP in microseconds.
pub fn udp(path: &Path, count: usize, processors: Processors) -> Result<Sample> {
    let (client, server) = sockets::udp(path, |ports| ports.echo)?;
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
pub fn tcp(path: &Path, count: usize, processors: Processors) -> Result<Sample> {
    let (mut client, mut server) = sockets::tcp(path, |ports| ports.echo)?;
    let echo = || -> Result<()> {
        pin(processors.server)?;
        let mut buffer = [0; SIZE];
        for _ in 0..count + WARM_UP {
            server.read_exact(&mut buffer).context("the server hears nothing")?;
            server.write_all(&buffer).context("answering")?;
        }
        Ok(())
    };
    let once = || {
        client.write_all(&[7; SIZE]).context("sending")?;
        client.read_exact(&mut [0; SIZE]).context("no answer")
    };
    with_server(echo, || measure(count, processors, once))
}

fn measure(count: usize, processors: Processors, mut once: impl FnMut() -> Result<()>) -> Result<Sample> {
    pin(processors.client)?;
    for _ in 0..WARM_UP {
        once()?;
    }
    let mut times = Vec::with_capacity(count);
    let busy = Busy::start()?;
    for _ in 0..count {
        let start = Instant::now();
        once()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Sample { value: median(&times), cpu: busy.seconds()? / count as f64 })
}

/// Runs both ends, each on a thread of its own; the client's error comes first, since it tells more.
fn with_server(
    server: impl FnOnce() -> Result<()> + Send,
    client: impl FnOnce() -> Result<Sample> + Send,
) -> Result<Sample> {
    thread::scope(|scope| {
        let server = scope.spawn(server);
        let client = scope.spawn(client).join().map_err(|_| anyhow!("the client panicked"))?;
        let server = server.join().map_err(|_| anyhow!("the server panicked"))?;
        let sample = client?;
        server.map(|()| sample)
    })
}
