//! Requests by HTTP: nginx answers a few bytes, wrk asks.

use std::{
    net::TcpStream,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mesh_tests::{Lifetime, NetNs, Prefix, Process, lines_of, output, wait};

use super::Sample;
use crate::{
    cpu::Busy,
    path::Path,
    pinning::{self, Processors},
};

const CONNECTIONS: usize = 32;
const START: Duration = Duration::from_secs(5);

/// Thousands of requests a second on connections that are kept.
pub fn keep_alive(path: &Path, length: Duration, processors: Processors) -> Result<Sample> {
    wrk(path, length, processors, &[])
}

/// Thousands of requests a second, each on a connection of its own.
pub fn connection_each(path: &Path, length: Duration, processors: Processors) -> Result<Sample> {
    wrk(path, length, processors, &["--header", "Connection: close"])
}

fn wrk(path: &Path, length: Duration, processors: Processors, words: &[&str]) -> Result<Sample> {
    let url = format!("http://{}/", path.dial(|ports| ports.http));
    let mut command = NetNs::command_at(&path.from, "taskset")?;
    command.args(["--cpu-list", &processors.client.to_string(), "wrk", "--threads", "1"]);
    command.args(["--connections", &CONNECTIONS.to_string(), "--timeout", "5s"]);
    command.args(["--duration", &format!("{}s", length.as_secs().max(1))]).args(words).arg(&url);
    let busy = Busy::start()?;
    let text = output(&mut command)?;
    let busy = busy.seconds()?;
    let told = Told::parse(&text).with_context(|| format!("wrk prints: {text}"))?;
    if told.requests == 0.0 || told.failed {
        bail!("requests to {url} failed: {text}");
    }
    Ok(Sample { value: told.per_second / 1e3, cpu: busy / told.requests })
}

/// What wrk says at its end.
#[derive(Debug, PartialEq)]
struct Told {
    requests: f64,
    per_second: f64,
    failed: bool,
}

impl Told {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let requests = lines.clone().find(|line| line.contains(" requests in "))?;
        let per_second = lines.clone().find_map(|line| line.strip_prefix("Requests/sec:"))?;
        // Such lines come only when there is something to tell.
        let failed = lines.any(|line| line.starts_with("Socket errors") || line.starts_with("Non-2xx"));
        Some(Self {
            requests: requests.split(' ').next()?.parse().ok()?,
            per_second: per_second.trim().parse().ok()?,
            failed,
        })
    }
}

/// An nginx in a namespace; ended on drop.
pub struct Server(#[expect(dead_code, reason = "held for its drop")] Process);

impl Server {
    /// Starts one that answers `name`, and waits until it listens.
    pub fn start(
        prefix: &Prefix,
        name: &str,
        namespace: &FilePath,
        port: u16,
        processor: usize,
    ) -> Result<Self> {
        let folder = prefix.folder().join(format!("nginx-{name}"));
        let words = nginx_words(&folder, name, port)?;
        let mut command = NetNs::command_at(namespace, &words[0])?;
        command.args(&words[1..]);
        let log = folder.join("log");
        let process = Process::start(command, Lifetime::Owner, &log, &prefix.folder().join("pids"))?;
        pinning::pin_process(process.pid(), processor)?;
        let connect = || TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).map(drop);
        wait("nginx to listen", START, || Ok(NetNs::run_at(namespace, connect)??))
            .with_context(|| lines_of(&folder.join("error.log"), 10))?;
        Ok(Self(process))
    }
}

/// The command line of an nginx that answers `name` on `port`, with its files in `folder`.
///
/// One process without an access log: what is not networking would only hide differences.
pub fn nginx_words(folder: &FilePath, name: &str, port: u16) -> Result<[PathBuf; 5]> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let config = folder.join("nginx.conf");
    let text = nginx_config(&folder.display().to_string(), name, port);
    std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    Ok(["nginx".into(), "-p".into(), folder.to_owned(), "-c".into(), config])
}

fn nginx_config(folder: &str, name: &str, port: u16) -> String {
    format!(
        "daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen {port} backlog=4096;
    listen [::]:{port} backlog=4096;
    default_type text/plain;
    location / {{ return 200 '{name}\\n'; }}
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "Running 2s test @ http://192.0.2.1:80/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   500.00us  100.00us   5.00ms   90.00%
  24561 requests in 2.00s, 3.95MB read
Requests/sec:  12280.50
Transfer/sec:      1.97MB
";

    #[test]
    fn what_wrk_says_is_read() {
        let well = Told { requests: 24561.0, per_second: 12280.5, failed: false };
        assert_eq!(Told::parse(WELL), Some(well));
        let errors = WELL
            .replace("Requests/sec", "  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec");
        assert!(Told::parse(&errors).unwrap().failed);
        let refused = WELL.replace("Requests/sec", "  Non-2xx or 3xx responses: 24561\nRequests/sec");
        assert!(Told::parse(&refused).unwrap().failed);
        assert_eq!(Told::parse("unable to connect to 192.0.2.1:80 Connection refused"), None);
    }
}
