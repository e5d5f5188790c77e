//! Who asks: dnsperf as fast as it can, and clients of our own that take the time of every answer.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lifetime, NetNs, Prefix, Process, output};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{load::is_installed, pinning::pin, stats::percentile};

/// How many queries dnsperf has under way.
const OUTSTANDING: &str = "100";
/// An answer that takes longer is lost.
const LOST: Duration = Duration::from_secs(2);
/// What a steady client takes in before it looks, in bytes.
const ROOM: usize = 4 << 20;
/// How much a steady client makes up for when it did not run.
const SLIP: Duration = Duration::from_micros(500);
/// How often a client asks that does so seldom.
const SELDOM: Duration = Duration::from_millis(5);

/// How queries are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In datagrams.
    Udp,
    /// On one connection.
    Tcp,
}

/// dnsperf with its list of names.
pub struct Dnsperf {
    folder: PathBuf,
    length: Duration,
}

/// What dnsperf counted.
pub struct Queries {
    /// Answered.
    pub count: f64,
    /// Answered in a second.
    pub per_second: f64,
}

impl Dnsperf {
    /// To ask for the addresses of `names` for `length`; none where there is no dnsperf.
    pub fn new(prefix: &Prefix, names: &[String], length: Duration) -> Result<Option<Self>> {
        if !is_installed("dnsperf") {
            return Ok(None);
        }
        let folder = prefix.folder().join("dnsperf");
        std::fs::create_dir_all(folder.join("pids")).with_context(|| folder.display().to_string())?;
        let text: String = names.iter().map(|name| format!("{name} A\n")).collect();
        std::fs::write(folder.join("queries"), text).with_context(|| folder.display().to_string())?;
        Ok(Some(Self { folder, length }))
    }

    /// Asks as fast as answers come.
    pub fn run(&self, asker: &Path, server: SocketAddr, transport: Transport) -> Result<Queries> {
        let mut command = self.command(asker, server, self.length)?;
        if transport == Transport::Tcp {
            command.args(["-m", "tcp"]);
        }
        let text = output(&mut command).context("dnsperf (`setup --peers`)")?;
        let number = |label: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        };
        let count = number("Queries completed:").with_context(|| format!("dnsperf prints: {text}"))?;
        let per_second = number("Queries per second:").with_context(|| format!("dnsperf prints: {text}"))?;
        Ok(Queries { count, per_second })
    }

    /// Asks as fast as answers come, until it is dropped.
    pub fn flood(&self, asker: &Path, server: SocketAddr) -> Result<Process> {
        let command = self.command(asker, server, self.length * 10 + Duration::from_secs(60))?;
        Process::start(command, Lifetime::Owner, &self.folder.join("flood"), &self.folder.join("pids"))
    }

    fn command(&self, asker: &Path, server: SocketAddr, length: Duration) -> Result<std::process::Command> {
        let mut command = NetNs::command_at(asker, "dnsperf")?;
        command.args(["-s", &server.ip().to_string(), "-p", &server.port().to_string()]);
        command.args([
            "-c",
            "1",
            "-T",
            "1",
            "-q",
            OUTSTANDING,
            "-t",
            "2",
            "-l",
            &length.as_secs().to_string(),
        ]);
        command.arg("-d").arg(self.folder.join("queries"));
        Ok(command)
    }
}

/// Times to an answer in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The median.
    pub p50: f64,
    /// All but one in a hundred are shorter.
    pub p99: f64,
}

impl Times {
    fn of(times: &[f64]) -> Result<Self> {
        ensure!(times.len() >= 20, "only {} answers", times.len());
        Ok(Self { p50: percentile(times, 0.5), p99: percentile(times, 0.99) })
    }
}

/// A question after the answer to the last one, the client on a processor of its own.
pub fn one_at_a_time(
    asker: &Path,
    server: SocketAddr,
    names: &[String],
    processor: usize,
    length: Duration,
) -> Result<Times> {
    inside(asker, || {
        pin(processor)?;
        let client = Client::new(server, names)?;
        let until = Instant::now() + length;
        let mut times = Vec::new();
        for id in (0..=u16::MAX).cycle() {
            let begin = Instant::now();
            if begin > until {
                break;
            }
            client.send(id)?;
            client.wait(id)?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        Times::of(&times)
    })
}

/// A question every few milliseconds, slept between.
pub fn seldom(asker: &Path, server: SocketAddr, names: &[String], length: Duration) -> Result<Times> {
    inside(asker, || {
        let client = Client::new(server, names)?;
        let until = Instant::now() + length;
        let mut times = Vec::new();
        for id in (0..=u16::MAX).cycle() {
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(SELDOM);
            let begin = Instant::now();
            client.send(id)?;
            client.wait(id)?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        Times::of(&times)
    })
}

/// Questions at a steady rate whatever becomes of them. Lost ones count as [`LOST`].
pub fn paced(
    asker: &Path,
    server: SocketAddr,
    names: &[String],
    processor: usize,
    rate: f64,
    length: Duration,
) -> Result<Times> {
    inside(asker, || {
        pin(processor)?;
        let client = Client::new(server, names)?;
        client.socket.set_nonblocking(true).context("a socket that does not wait")?;
        // Answers wait here while this thread does not run; they are not the server's loss.
        setsockopt(&client.socket, sockopt::RcvBufForce, &ROOM).context("a socket's buffer")?;
        let gap = Duration::from_secs_f64(1.0 / rate.max(1.0));
        let begin = Instant::now();
        // By id: when it was asked. Answers may overtake each other.
        let mut asked: Vec<Option<Instant>> = vec![None; usize::from(u16::MAX) + 1];
        let mut under_way: VecDeque<u16> = VecDeque::new();
        let (mut times, mut next, mut id) = (Vec::new(), begin, 0u16);
        while next < begin + length || !under_way.is_empty() {
            let now = Instant::now();
            if next <= now && next < begin + length {
                asked[usize::from(id)] = Some(now);
                client.send(id)?;
                under_way.push_back(id);
                id = id.wrapping_add(1);
                // When this thread was kept from running, what it has not asked is not asked all at once.
                next = (next + gap).max(now.checked_sub(SLIP).unwrap_or(now));
            }
            while let Some(answered) = client.receive()? {
                if let Some(since) = asked[usize::from(answered)].take() {
                    times.push(since.elapsed().as_secs_f64() * 1e6);
                }
            }
            while let Some(&oldest) = under_way.front() {
                match asked[usize::from(oldest)] {
                    Some(since) if since.elapsed() < LOST => break,
                    Some(_) => times.push(LOST.as_secs_f64() * 1e6),
                    None => {}
                }
                asked[usize::from(oldest)] = None;
                under_way.pop_front();
            }
        }
        Times::of(&times)
    })
}

fn inside(asker: &Path, work: impl FnOnce() -> Result<Times> + Send) -> Result<Times> {
    NetNs::run_at(asker, work)?
}

struct Client {
    socket: UdpSocket,
    queries: Vec<Vec<u8>>,
}

impl Client {
    fn new(server: SocketAddr, names: &[String]) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket to ask with")?;
        socket.connect(server).with_context(|| server.to_string())?;
        socket.set_read_timeout(Some(LOST)).context("a socket's timeout")?;
        ensure!(!names.is_empty(), "no names to ask for");
        Ok(Self { socket, queries: names.iter().map(|name| query(name)).collect() })
    }

    fn send(&self, id: u16) -> Result<()> {
        let mut query = self.queries[usize::from(id) % self.queries.len()].clone();
        query[..2].copy_from_slice(&id.to_be_bytes());
        self.socket.send(&query).map(drop).context("asking")
    }

    /// The id of an answer that has come.
    fn receive(&self) -> Result<Option<u16>> {
        let mut buffer = [0; 1500];
        match self.socket.recv(&mut buffer) {
            Ok(size) => {
                ensure!(
                    size > 12 && buffer[7] == 1 && buffer[3] & 0xf == 0,
                    "not the answer: {:?}",
                    &buffer[..size]
                );
                Ok(Some(u16::from_be_bytes([buffer[0], buffer[1]])))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("waiting for an answer"),
        }
    }

    fn wait(&self, id: u16) -> Result<()> {
        while self.receive()?.context("no answer")? != id {}
        Ok(())
    }
}

/// A query for the address of a name of one label, recursion desired.
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    query.extend(name.as_bytes());
    query.extend([0, 0, 1, 0, 1]);
    query
}
