//! Names by hand (RFC 1035): a server that knows one answer, and a client quick enough to measure with.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

const HEADER: usize = 12;
/// Type A, class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Answers every question for an address with the same one, and all else with no data. Stops on drop.
#[derive(Debug)]
pub struct StubDns {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl StubDns {
    /// Serves `socket`, which may live in any namespace.
    pub fn serve(socket: UdpSocket, answer: Ipv4Addr) -> Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(50))).context("a socket's timeout")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(reply) = reply(&buffer[..size], answer) {
                    let name = name_of(&buffer[HEADER..size]).unwrap_or_default();
                    hears.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Ok(Self { stop, heard, thread: Some(thread) })
    }

    /// The names that it was asked for so far, as they were written, without the final dot.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// The addresses of `name`, asked once from the calling thread's namespace; none when there is no such name.
pub fn resolve(server: SocketAddr, name: &str, at_most: Duration) -> Result<Vec<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket to ask with")?;
    socket.set_read_timeout(Some(at_most)).context("a socket's timeout")?;
    socket.send_to(&question(name), server).with_context(|| format!("asking {server}"))?;
    let mut buffer = [0; 1500];
    let (size, _) = socket.recv_from(&mut buffer).with_context(|| format!("no answer from {server}"))?;
    let answer = &buffer[..size];
    addresses(answer).with_context(|| format!("{server} answers {answer:?}"))
}

/// A query for the address of `name`, recursion desired.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x4d, 0x44, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap_or(63));
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(ADDRESS);
    query
}

/// The text of a name at the head of `bytes`, which has no pointers.
fn name_of(mut bytes: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    while let [length @ 1..=63, rest @ ..] = bytes {
        let (label, rest) = rest.split_at_checked((*length).into())?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        bytes = rest;
    }
    Some(labels.join("."))
}

/// The length of a name at the head of `bytes`, itself included.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        match *bytes.get(end)? {
            0 => return Some(end + 1),
            length if length >= 0xc0 => return Some(end + 2),
            length => end += 1 + usize::from(length),
        }
    }
}

fn addresses(answer: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let mut rest = answer.get(HEADER..)?;
    rest = rest.get(name_length(rest)? + ADDRESS.len()..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        rest = rest.get(name_length(rest)?..)?;
        let length = usize::from(u16::from_be_bytes([*rest.get(8)?, *rest.get(9)?]));
        let data = rest.get(10..10 + length)?;
        if rest.starts_with(&ADDRESS) {
            found.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        rest = rest.get(10 + length..)?;
    }
    Some(found)
}

/// The response to `query`; none to what is no query.
fn reply(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let labels = query.get(HEADER..)?;
    let question = labels.get(..name_length(labels)? + ADDRESS.len())?;
    let is_address = question.ends_with(&ADDRESS);
    let mut reply = query.get(..2)?.to_vec();
    // A response, recursion desired and available, no error; one question, no authority, nothing additional.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    reply.extend(question);
    if is_address {
        // The name by reference to the question, 60 seconds, 4 bytes.
        reply.extend([0xc0, HEADER as u8]);
        reply.extend(ADDRESS);
        reply.extend([0, 0, 0, 60, 0, 4]);
        reply.extend(answer.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_and_reply_fit() {
        let address = Ipv4Addr::new(198, 51, 100, 7);
        let answer = reply(&question("a.example"), address).unwrap();
        assert_eq!(addresses(&answer), Some(vec![address]));
        assert_eq!(name_of(&question("a.example")[HEADER..]), Some("a.example".to_owned()));
        for end in 0..answer.len() {
            assert_eq!(addresses(&answer[..end]), None, "cut at {end}");
        }
    }
}
