//! A name server that knows one name, for tests of forwarding.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

/// Answers every question for an address with the same one, and all else with no data. Stops on drop.
#[derive(Debug)]
pub struct StubDns {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StubDns {
    /// Serves `socket`, which may live in any namespace.
    pub fn serve(socket: UdpSocket, answer: Ipv4Addr) -> Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(50))).context("a socket's timeout")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(reply) = reply(&buffer[..size], answer) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for StubDns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The response to `query` (RFC 1035, section 4); none to what is no query.
fn reply(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let labels = query.get(HEADER..)?;
    let mut end = 0;
    while *labels.get(end)? != 0 {
        end += 1 + usize::from(*labels.get(end)?);
    }
    let question = labels.get(..end + 5)?;
    let is_address = question.ends_with(&[0, 1, 0, 1]);
    let mut reply = query.get(..2)?.to_vec();
    // A response, recursion desired and available, no error; one question, no authority, nothing additional.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    reply.extend(question);
    if is_address {
        // The name by reference to the question; type A, class IN, 60 seconds, 4 bytes.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}
