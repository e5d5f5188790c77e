//! One TCP connection that sends all it can.

use std::{
    io::{Read, Write},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Sample, sockets};
use crate::{
    cpu::Busy,
    path::Path,
    pinning::{Processors, pin},
};

/// What iperf3 writes at a time.
const CHUNK: usize = 128 << 10;
/// Until the congestion window is open.
const WARM_UP: Duration = Duration::from_millis(400);

/// Gbit/s that the receiver saw. `congestion` names the sender's congestion control, if not the machine's.
pub fn run(
    path: &Path,
    length: Duration,
    processors: Processors,
    congestion: Option<&str>,
) -> Result<Sample> {
    let (mut client, mut server) = sockets::tcp(path, |ports| ports.stream)?;
    if let Some(name) = congestion {
        setsockopt(&client, sockopt::TcpCongestion, &name.into())
            .with_context(|| format!("congestion control {name}"))?;
    }
    let (received, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| -> Result<()> {
            pin(processors.server)?;
            let mut buffer = vec![0; CHUNK];
            loop {
                match server.read(&mut buffer).context("the stream stalls")? {
                    0 => return Ok(()),
                    size => received.fetch_add(size as u64, Relaxed),
                };
            }
        });
        let sender = scope.spawn(|| -> Result<()> {
            pin(processors.client)?;
            let chunk = vec![7; CHUNK];
            while !done.load(Relaxed) {
                client.write_all(&chunk).context("the stream stalls")?;
            }
            // Without this the receiver would not see the end before the socket is dropped.
            client.shutdown(std::net::Shutdown::Write).context("ending the stream")
        });
        thread::sleep(WARM_UP);
        let (start, before, busy) = (Instant::now(), received.load(Relaxed), Busy::start());
        thread::sleep(length);
        let (passed, after) = (start.elapsed().as_secs_f64(), received.load(Relaxed));
        let busy = busy.and_then(|busy| busy.seconds());
        done.store(true, Relaxed);
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        let bytes = (after - before) as f64;
        ensure!(bytes > 0.0, "nothing is received");
        Ok(Sample { value: bytes * 8.0 / passed / 1e9, cpu: busy? / (bytes / 1e9) })
    })
}
