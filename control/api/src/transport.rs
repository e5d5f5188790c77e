//! How the services travel: mutual TLS between nodes, a unix socket on the node.
//!
//! Channels are made at once and connect when they are first used, and again after a loss; `connect` and
//! `unix_connect` connect before they return, for those who have somebody waiting for a clear error.

mod guests;
mod tls;
mod unix;

use std::time::Duration;

use thiserror::Error;
use tonic::transport::Endpoint;

pub use tls::{PeerInfo, TlsIo, channel, connect, connect_watchful, peer_info, tls_incoming};
pub use unix::{UnixIo, unix_channel, unix_connect, unix_incoming};

/// Longest time for a connection, its TLS handshake included, on either side.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long whoever connects may take to say anything: clients begin with HTTP/2's preface at once.
const FIRST_WORD: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// Pause after a failure to accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After this silence a connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Without an answer for this long it is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer's headers: what is refused is told there (`grpc-message`), with names of what is in the way. Hyper's
/// 16 KiB would break the connection instead.
const MAX_HEADERS: u32 = 256 * 1024;

/// The other side cannot be reached.
#[derive(Debug, Error)]
#[error("cannot connect to {to}")]
pub struct ConnectError {
    /// The address or the socket's path.
    pub to: String,
    /// Why; a TLS refusal is somewhere behind it.
    pub source: tonic::transport::Error,
}

/// The URI only fills the requests' authority: the connector knows where to go.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://meshd")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// A stopped process answers no probe, though its kernel acknowledges what is sent to it.
fn watchful(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
}

#[cfg(test)]
mod tests;
