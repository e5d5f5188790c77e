//! Why a server could not be started.

use std::{io, net::SocketAddr};

use thiserror::Error as ThisError;

/// Why a task's name server could not be started. Nothing is left open.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The task's namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] mesh_netlink::Error),
    /// Another program serves names at our address in the task's namespace (Docker's own server, say).
    #[error("{protocol} {address} is taken in the task's namespace by another name server")]
    Taken {
        /// Our address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
    },
    /// The socket could not be made.
    #[error("cannot listen on {protocol} {address} in the task's namespace: {source}")]
    Listen {
        /// Our address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A socket that was handed over is not one of this task's name server.
    #[error("a socket that was handed over is not taken: {0}")]
    Foreign(&'static str),
    /// The socket could not be watched: no tokio runtime, or no descriptors left.
    #[error("cannot serve names: {0}")]
    Register(#[source] io::Error),
}
