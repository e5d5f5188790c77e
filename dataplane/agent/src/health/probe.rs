//! What a check does: connects, asks, runs a command, in the task's network namespace.
//!
//! Sockets are made on a thread inside the namespace and used outside of it, so that a check holds the namespace no
//! longer than its connection lasts.

use std::{io, net::SocketAddr, time::Duration};

use mesh_types::{HealthCheck, HttpPath, Probe, format_seconds};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
};

use super::command;
use crate::{LocalTask, NsIdentity};

/// How much of an answer is looked at for its first line.
const MAX_LINE: usize = 1024;
/// How much of the rest of an answer is taken before hanging up, and for how long: most servers like to have been heard.
const MAX_REST: u64 = 64 * 1024;
const REST: Duration = Duration::from_millis(200);

/// Why a check failed: what people are shown, the same for the same cause.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// Nobody answered.
    #[error("{address}: {}", describe(.source))]
    Connection {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server hung up, or sent something else than HTTP.
    #[error("{0}: the answer is not HTTP")]
    NotHttp(SocketAddr),
    /// The server says that something is wrong.
    #[error("GET {path}: status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// What came.
        status: u16,
    },
    /// The command says that something is wrong.
    #[error("{outcome}{}{output}", if .output.is_empty() { "" } else { ": " })]
    Command {
        /// How it ended.
        outcome: String,
        /// The last line that it wrote.
        output: String,
    },
    /// It took too long.
    #[error("no answer within {}", format_seconds(*.0))]
    TimedOut(u32),
    /// The check could not be made.
    #[error("cannot check: {0}")]
    Unable(String),
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}

/// Checks `task` once.
pub(super) async fn try_once(task: &LocalTask, check: &HealthCheck) -> Result<(), Failure> {
    let timeout = Duration::from_secs(check.timeout_secs.into());
    let tried = async {
        match &check.probe {
            Probe::Tcp(port) => connect(task, port.get()).await.map(drop),
            Probe::Http(port, path) => {
                let (stream, address) = connect(task, port.get()).await?;
                get(stream, address, path).await
            }
            Probe::Command(text) => command::run(task, text.as_str()).await,
        }
    };
    tokio::time::timeout(timeout, tried).await.unwrap_or(Err(Failure::TimedOut(check.timeout_secs)))
}

/// Connects to the first of the task's own addresses that takes it.
async fn connect(task: &LocalTask, port: u16) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut failed = Failure::Unable("the task has no address".to_owned());
    for address in task.attachments.iter().flat_map(|a| &a.addresses) {
        let to = SocketAddr::new(*address, port);
        let socket = in_namespace(task, move || match to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })
        .await?;
        match socket.map_err(|e| Failure::Unable(e.to_string()))?.connect(to).await {
            Ok(stream) => return Ok((stream, to)),
            Err(source) => failed = Failure::Connection { address: to, source },
        }
    }
    Err(failed)
}

/// Runs `work` on a thread inside the task's network namespace, which is opened for that alone.
pub(super) async fn in_namespace<T: Send + 'static>(
    task: &LocalTask,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (namespace, id) = (task.namespace.clone(), task.namespace_id);
    let entered = spawn_blocking(move || {
        let ns = namespace.open().map_err(|e| e.to_string())?;
        // The number of a process that has ended may be another's by now.
        if NsIdentity::from(ns.id().map_err(|e| e.to_string())?) != id {
            return Err("the task has ended".to_owned());
        }
        ns.run(work).map_err(|e| e.to_string())
    });
    entered.await.unwrap_or_else(|e| Err(e.to_string())).map_err(Failure::Unable)
}

/// One request of HTTP/1.1 (RFC 9112), of whose answer the first line counts.
async fn get(mut stream: TcpStream, address: SocketAddr, path: &HttpPath) -> Result<(), Failure> {
    let lost = |source| Failure::Connection { address, source };
    let path = path.as_str();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: meshd-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    let mut line = Vec::with_capacity(MAX_LINE);
    while !line.contains(&b'\n') && line.len() < MAX_LINE {
        let room = u64::try_from(MAX_LINE - line.len()).unwrap_or(0);
        if (&mut stream).take(room).read_buf(&mut line).await.map_err(lost)? == 0 {
            break;
        }
    }
    let status = status(&line).ok_or(Failure::NotHttp(address))?;
    let rest = async { tokio::io::copy(&mut stream.take(MAX_REST), &mut tokio::io::sink()).await };
    // Whatever becomes of it.
    let _ = tokio::time::timeout(REST, rest).await;
    match status {
        200..400 => Ok(()),
        status => Err(Failure::Status { path: path.to_owned(), status }),
    }
}

/// The status of an answer that begins with `bytes`: `HTTP/1.1 200 OK`.
fn status(bytes: &[u8]) -> Option<u16> {
    let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| line.len() < bytes.len())?;
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    let version = words.next().filter(|word| word.starts_with(b"HTTP/1."));
    let code = version.and_then(|_| words.next()).filter(|word| word.len() == 3)?;
    std::str::from_utf8(code).ok()?.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    #[test]
    fn status_lines() {
        for (text, wanted) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503 Service Unavailable\r\nServer: x\r\n", Some(503)),
            ("HTTP/1.1 204\n", Some(204)),
            ("HTTP/1.1 200 OK", None),
            ("HTTP/2 200\r\n", None),
            ("HTTP/1.1 20 OK\r\n", None),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 +20 OK\r\n", None),
            ("SSH-2.0-x\r\n", None),
            ("\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(text.as_bytes()), wanted, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = status(&bytes);
        }
    }

    /// Answers one request with `answer` and tells what was asked.
    async fn asked(answer: &'static [u8]) -> (Result<(), Failure>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1000];
            let length = stream.read(&mut request).await.unwrap();
            let _ = stream.write_all(answer).await;
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let outcome = get(stream, address, &HttpPath::new("/ready?x=1").unwrap()).await;
        (outcome, server.await.unwrap())
    }

    #[tokio::test]
    async fn asks_for_a_page() {
        let (outcome, request) = asked(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n").await;
        assert!(outcome.is_ok());
        assert!(request.starts_with("GET /ready?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        let (outcome, _) = asked(b"HTTP/1.1 500 Oops\r\n\r\n").await;
        assert_eq!(outcome.unwrap_err().to_string(), "GET /ready?x=1: status 500");
        for other in [&b"220 mail ESMTP\r\n"[..], b"", &[b'x'; 5000]] {
            assert!(matches!(asked(other).await.0, Err(Failure::NotHttp(_))));
        }
    }
}
