//! Numbered datagrams at a fixed rate, one way: which of them do not arrive, and when those were sent.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

/// Room for what comes while this process is not let run.
const ROOM: usize = 16 << 20;
const LEN: usize = 500;
/// How long datagrams may be under way.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// A flow of datagrams. Ended on drop.
#[derive(Debug)]
pub struct Datagrams {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Vec<Instant>>>,
    receiver: Option<JoinHandle<Vec<bool>>>,
}

impl Datagrams {
    /// Sends over `client`, which is connected, what `server` is to receive. They may live in any namespaces.
    pub fn start(server: UdpSocket, client: UdpSocket, per_second: u32) -> Result<Self> {
        setsockopt(&server, RcvBufForce, &ROOM).context("room for datagrams")?;
        server.set_read_timeout(Some(Duration::from_millis(50))).context("a socket's timeout")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || send(&client, per_second, &stopped));
        let stopped = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || receive(&server, &stopped));
        Ok(Self { stop, sender: Some(sender), receiver: Some(receiver) })
    }

    /// Ends the flow: how many were sent, and when those that did not arrive.
    pub fn end(mut self) -> Result<(usize, Vec<Instant>)> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow!("a thread panicked");
        let sent = self.sender.take().context("no sender")?.join().map_err(panicked)?;
        let arrived = self.receiver.take().context("no receiver")?.join().map_err(panicked)?;
        let missing = sent.iter().enumerate().filter(|(number, _)| !arrived.get(*number).unwrap_or(&false));
        Ok((sent.len(), missing.map(|(_, when)| *when).collect()))
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.sender.take().map(JoinHandle::join);
        let _ = self.receiver.take().map(JoinHandle::join);
    }
}

fn send(client: &UdpSocket, per_second: u32, stop: &AtomicBool) -> Vec<Instant> {
    let mut sent = Vec::new();
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut datagram = [0; LEN];
        datagram[..8].copy_from_slice(&(sent.len() as u64).to_be_bytes());
        sent.push(Instant::now());
        // One that is not sent does not arrive.
        let _ = client.send(&datagram);
        let due = start + Duration::from_secs(1) * sent.len() as u32 / per_second;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sent
}

fn receive(server: &UdpSocket, stop: &AtomicBool) -> Vec<bool> {
    let mut arrived = Vec::new();
    let mut end = None;
    let mut buffer = [0; LEN + 1];
    while end.is_none_or(|end| Instant::now() < end) {
        if stop.load(Ordering::Relaxed) {
            end.get_or_insert_with(|| Instant::now() + UNDER_WAY);
        }
        let Ok(len) = server.recv(&mut buffer) else { continue };
        let Some(number) = buffer[..len].first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            continue;
        };
        let number = number as usize;
        if arrived.len() <= number {
            arrived.resize(number + 1, false);
        }
        arrived[number] = true;
    }
    arrived
}
