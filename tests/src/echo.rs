//! A UDP service inside a task, run by this process.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

/// Answers each datagram with its name, the sender's address and what it was sent. Stops on drop.
#[derive(Debug)]
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    /// Serves `socket`, which may live in any namespace.
    pub fn serve(socket: UdpSocket, name: &str) -> Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(50))).context("a socket's timeout")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let name = name.to_owned();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                // Time-outs and errors that ICMP brings are both reasons to look again.
                let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
                let said = String::from_utf8_lossy(&buffer[..size]);
                let _ = socket.send_to(format!("{name} {} {said}", from.ip()).as_bytes(), from);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Sends `text` from `socket` and returns the answer's first two words: who answered, and whom it saw.
    pub fn ask(socket: &UdpSocket, server: SocketAddr, text: &str) -> Result<(String, IpAddr)> {
        socket.set_read_timeout(Some(Duration::from_secs(1))).context("a socket's timeout")?;
        socket.send_to(text.as_bytes(), server).with_context(|| format!("sending to {server}"))?;
        let mut buffer = [0; 2048];
        let (size, from) =
            socket.recv_from(&mut buffer).with_context(|| format!("no answer from {server}"))?;
        anyhow::ensure!(from == server, "the answer comes from {from}, not from {server}");
        let answer = String::from_utf8_lossy(&buffer[..size]).into_owned();
        let mut words = answer.split(' ');
        let (name, seen) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok((name.to_owned(), seen.parse().with_context(|| format!("the answer is {answer:?}"))?))
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
