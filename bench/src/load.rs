//! What paths are loaded with, and what is measured then.

mod http;
mod ping_pong;
mod sockets;
mod stream;
mod udp_rate;

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use crate::{path::Path, pinning::Processors};

pub use http::{Server, nginx_words};

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// In the measure's unit.
    pub value: f64,
    /// Processor time of the whole machine, in seconds for each unit of work.
    pub cpu: f64,
}

/// How much each measurement does.
#[derive(Debug, Clone)]
pub struct Amount {
    /// Of a stream, and of requests by HTTP. Datagrams are sent for half of it.
    pub length: Duration,
    /// Of each latency run.
    pub round_trips: usize,
    /// Congestion control of a stream's sender, if not the machine's.
    pub congestion: Option<String>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Throughput of one TCP connection.
    Stream,
    /// Median round trip of 64 bytes in datagrams.
    UdpRoundTrip,
    /// Median round trip of 64 bytes on a TCP connection.
    TcpRoundTrip,
    /// Datagrams of 64 bytes one way.
    UdpRate,
    /// Requests on 32 connections that are kept.
    KeepAlive,
    /// Requests with a connection each, 32 at a time.
    PerRequest,
}

impl Measure {
    /// All, in the order in which they are taken and shown.
    pub const ALL: [Self; 6] = [
        Self::Stream,
        Self::UdpRoundTrip,
        Self::TcpRoundTrip,
        Self::UdpRate,
        Self::KeepAlive,
        Self::PerRequest,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Stream => "TCP stream",
            Self::UdpRoundTrip => "64 B UDP round trip, p50",
            Self::TcpRoundTrip => "64 B TCP round trip, p50",
            Self::UdpRate => "64 B UDP",
            Self::KeepAlive => "HTTP keep-alive",
            Self::PerRequest => "HTTP connection each",
        }
    }

    /// Of the values.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Gbit/s",
            Self::UdpRoundTrip | Self::TcpRoundTrip => "us",
            Self::UdpRate | Self::KeepAlive | Self::PerRequest => "1000/s",
        }
    }

    /// Whether less is better.
    pub fn is_time(self) -> bool {
        matches!(self, Self::UdpRoundTrip | Self::TcpRoundTrip)
    }

    /// For programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stream => "tcp-stream",
            Self::UdpRoundTrip => "udp-round-trip",
            Self::TcpRoundTrip => "tcp-round-trip",
            Self::UdpRate => "udp-rate",
            Self::KeepAlive => "http-keep-alive",
            Self::PerRequest => "http-connection-each",
        }
    }

    /// What processor time is given in, and how many of that a second is.
    pub fn cpu_unit(self) -> (&'static str, f64) {
        match self {
            Self::Stream => ("ms/GB", 1e3),
            Self::UdpRoundTrip | Self::TcpRoundTrip => ("us/round trip", 1e6),
            Self::UdpRate => ("us/packet", 1e6),
            Self::KeepAlive | Self::PerRequest => ("us/request", 1e6),
        }
    }

    /// Whether `path` can carry it.
    pub fn fits(self, path: &Path) -> bool {
        path.udp || !matches!(self, Self::UdpRoundTrip | Self::UdpRate)
    }

    /// The program of others that it takes.
    pub fn program(self) -> Option<&'static str> {
        matches!(self, Self::KeepAlive | Self::PerRequest).then_some("wrk")
    }

    /// Takes it once.
    pub fn take(self, path: &Path, amount: &Amount, processors: Processors) -> Result<Sample> {
        match self {
            Self::Stream => stream::run(path, amount.length, processors, amount.congestion.as_deref()),
            Self::UdpRoundTrip => ping_pong::udp(path, amount.round_trips, processors),
            Self::TcpRoundTrip => ping_pong::tcp(path, amount.round_trips, processors),
            Self::UdpRate => udp_rate::run(path, amount.length / 2, processors),
            Self::KeepAlive => http::keep_alive(path, amount.length, processors),
            Self::PerRequest => http::connection_each(path, amount.length, processors),
        }
    }
}

/// Whether `PATH` has a program.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    is_in(std::env::split_paths(&path), program)
}

/// Fails, and says what to do, where `PATH` lacks a program.
pub fn need(program: &str) -> Result<()> {
    ensure!(is_installed(program), "there is no {program} (`cargo xtask setup --peers`)");
    Ok(())
}

fn is_in(mut folders: impl Iterator<Item = PathBuf>, program: &str) -> bool {
    let may_run =
        |file: PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    folders.any(|folder| may_run(folder.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Ports, Way};
    use mesh_tests::{NetNs, Prefix, TestNet, get};

    const HERE: &str = "here";

    #[test]
    fn programs_are_looked_for_where_they_may_run() {
        let folder = Prefix::unique().folder();
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("tool");
        std::fs::write(&file, "").unwrap();
        let found = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            is_in(["/nowhere".into(), folder.clone()].into_iter(), "tool")
        };
        assert!(found(0o755) && !found(0o644));
        assert!(!is_in([folder.clone()].into_iter(), "other"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_measure_is_taken() {
        let net = TestNet::create(Prefix::unique(), 2).unwrap();
        let (from, to) = (net.nodes()[0].path(), net.nodes()[1].path());
        let path = Path::plain(Way::Underlay, from, to, net.address(1), Ports::from(16000), HERE);
        let processors = Processors::pick().unwrap();
        let server = Server::start(net.prefix(), HERE, &path.to, path.served.http, processors.server);
        let _server = server.unwrap();
        let said = NetNs::run_at(&path.from, || get(path.dial(|p| p.http), Duration::from_secs(1)));
        assert_eq!(said.unwrap().unwrap(), HERE);
        let amount =
            Amount { length: Duration::from_secs(1), round_trips: 200, congestion: Some("reno".to_owned()) };
        for measure in Measure::ALL {
            let sample = measure.take(&path, &amount, processors).unwrap();
            assert!(sample.value > 0.0 && sample.cpu > 0.0, "{measure:?}: {sample:?}");
        }
    }

    #[test]
    fn what_does_not_answer_is_an_error() {
        let net = TestNet::create(Prefix::unique(), 2).unwrap();
        let (from, to) = (net.nodes()[0].path(), net.nodes()[1].path());
        // Servers listen, but elsewhere.
        let (at, dialled) = (Ports::from(16000), Ports::from(17000));
        let path = Path { dialled, ..Path::plain(Way::Underlay, from, to, net.address(1), at, HERE) };
        let amount = Amount { length: Duration::from_secs(1), round_trips: 10, congestion: None };
        for measure in Measure::ALL {
            let taken = measure.take(&path, &amount, Processors::pick().unwrap());
            assert!(taken.is_err(), "{measure:?}: {taken:?}");
        }
    }
}
