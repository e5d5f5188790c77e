//! Processes that a published port shadows.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// A process of a node that listens where a published port is open: clients reach the mesh, not it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Its transport.
    pub protocol: Protocol,
    /// The address that it listens on; unspecified for all.
    pub address: IpAddr,
    /// Its process, when it can be told.
    pub process: Option<ListenerProcess>,
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerProcess {
    /// Its command's name, as the kernel has it.
    pub name: String,
    /// Its id in the node's own pid namespace.
    pub pid: u32,
}

/// As in `port 80/tcp: also listened on by nginx (pid 123)`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}/{}: also listened on by ", self.port, self.protocol)?;
        match &self.process {
            Some(ListenerProcess { name, pid }) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("a process"),
        }
    }
}
