//! What the helper is asked to try, what it tries, and how.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use serde::{Deserialize, Serialize};

/// The port of the servers, TCP and UDP.
pub const PORT: u16 = 9;
/// What the TCP server says first.
pub const GREETING: &[u8; 8] = b"meshtest";
/// A task's own name server.
const NAMESERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// How long a connection or an answer may take; it is tried again.
const WAIT: Duration = Duration::from_secs(1);
/// For so long: a name or a place behind a VIP is known a moment after its task.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
/// So much passes over TCP that segments are large and checksums are done by devices where they may be.
const BULK: usize = 256 << 10;

/// Things to try.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probes {
    /// Each on a thread of its own.
    pub probes: Vec<Probe>,
}

/// A thing to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Probe {
    /// Another task: by TCP, by UDP, and by UDP in packets of `mtu` bytes.
    Task { to: String, address: IpAddr, mtu: u32 },
    /// A service's VIP, behind which any task answers: by TCP and by UDP.
    Vip { to: String, address: IpAddr },
    /// That a name has these addresses.
    Name { to: String, check: String, name: String, addresses: Vec<IpAddr> },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The node.
    pub to: String,
    /// What was tried.
    pub check: String,
    /// Empty: it works.
    pub failure: String,
}

/// Tries all, each on a thread.
pub fn run(probes: &Probes) -> Vec<Outcome> {
    thread::scope(|scope| {
        let running: Vec<_> = probes.probes.iter().map(|probe| scope.spawn(|| probe.run())).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

impl Probe {
    fn run(&self) -> Vec<Outcome> {
        let outcome = |to: &str, check: String, failure: Option<String>| Outcome {
            to: to.to_owned(),
            check,
            failure: failure.unwrap_or_default(),
        };
        match self {
            Probe::Task { to, address, mtu } => {
                let there = SocketAddr::new(*address, PORT);
                let six = if address.is_ipv6() { "6" } else { "" };
                let headers = if address.is_ipv6() { 48 } else { 28 };
                let largest = usize::try_from(mtu.saturating_sub(headers)).unwrap_or_default();
                let by_tcp = again(|| tcp(there, BULK));
                let by_udp = again(|| udp(there, 32));
                let whole = again(|| udp(there, largest));
                let whole =
                    whole.map(|why| format!("packets of {} bytes: {why}", largest + headers as usize));
                vec![
                    outcome(to, format!("tcp{six}"), by_tcp),
                    outcome(to, format!("udp{six}"), by_udp),
                    outcome(to, format!("mtu{six}"), whole),
                ]
            }
            Probe::Vip { to, address } => {
                let there = SocketAddr::new(*address, PORT);
                let check = if address.is_ipv6() { "vip6" } else { "vip" };
                vec![
                    outcome(to, check.to_owned(), again(|| tcp(there, 1))),
                    outcome(to, format!("{check}-udp"), again(|| udp(there, 32))),
                ]
            }
            Probe::Name { to, check, name, addresses } => {
                vec![outcome(to, check.clone(), again(|| resolves(name, addresses)))]
            }
        }
    }
}

/// Why it failed the last time; none if it worked once.
fn again(attempt: impl Fn() -> io::Result<()>) -> Option<String> {
    let begun = Instant::now();
    loop {
        let why = match attempt() {
            Ok(()) => return None,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                "no answer in time".to_owned()
            }
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= PATIENCE {
            return Some(why);
        }
        thread::sleep(PAUSE);
    }
}

/// Connects, is greeted, and has `bulk` bytes come back.
fn tcp(there: SocketAddr, bulk: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&there, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting)?;
    let mut sending = stream.try_clone()?;
    let sent = thread::spawn(move || {
        let sent = sending.write_all(&vec![7; bulk]);
        sent.and_then(|()| sending.shutdown(Shutdown::Write))
    });
    let mut back = vec![0; bulk];
    let read = stream.read_exact(&mut back);
    let sent = sent.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
    read.and(sent)?;
    match greeting == *GREETING && back.iter().all(|byte| *byte == 7) {
        true => Ok(()),
        false => Err(io::Error::other("somebody else answers, or something else")),
    }
}

/// Sends a datagram that may not be fragmented, and has it come back.
fn udp(there: SocketAddr, size: usize) -> io::Result<()> {
    let any: IpAddr = match there {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    match there {
        SocketAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
        SocketAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    socket.connect(there)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send(&vec![7; size])?;
    let mut back = vec![0; size + 1];
    match socket.recv(&mut back)? {
        len if len == size => Ok(()),
        len => Err(io::Error::other(format!("{len} of {size} bytes came back"))),
    }
}

/// Asks the task's name server, by questions of RFC 1035's section 4.
fn resolves(name: &str, addresses: &[IpAddr]) -> io::Result<()> {
    for family in [1, 28] {
        let wanted: Vec<&IpAddr> = addresses.iter().filter(|a| a.is_ipv6() == (family == 28)).collect();
        if wanted.is_empty() {
            continue;
        }
        let answer = ask(name, family)?;
        let octets = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let code = answer.get(3).copied().unwrap_or_default() & 15;
        if code != 0 {
            return Err(io::Error::other(format!("{name}: the name server answers with code {code}")));
        }
        // The addresses are in the answer as they are on the wire.
        if !wanted
            .iter()
            .any(|address| answer.windows(octets(address).len()).any(|part| part == octets(address)))
        {
            return Err(io::Error::other(format!("{name} has other addresses")));
        }
    }
    Ok(())
}

fn ask(name: &str, family: u16) -> io::Result<Vec<u8>> {
    let id: u16 = 0x6d74;
    let mut question = Vec::from(id.to_be_bytes());
    // Recursion is wanted; one question.
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(family.to_be_bytes());
    question.extend([0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(NAMESERVER)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send(&question)?;
    let mut answer = vec![0; 4096];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(answer)
}
