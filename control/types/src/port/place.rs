//! Where on a node a published port is open.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::PortError;
use crate::InterfaceName;

/// Where on a node a published port is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum PublishAt {
    /// On all addresses of the node, `localhost` included.
    #[default]
    Any,
    /// On this address, on the nodes that have it. One of loopback (127.0.0.0/8, `::1`) is every node's, and leads there
    /// whoever runs on the node itself.
    Address(IpAddr),
    /// On the addresses of this interface, on the nodes that have it.
    Interface(InterfaceName),
}

impl PublishAt {
    /// Whether the two can be the same place of some node. An interface and an address are let pass: only the node
    /// knows whether they meet, and there the address goes first.
    pub fn overlaps(self, other: Self) -> bool {
        self == PublishAt::Any || other == PublishAt::Any || self == other
    }

    /// An address that a node can have; IPv4-mapped ones are written as IPv4.
    pub fn address(address: IpAddr) -> Result<Self, PortError> {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            return Err(PortError::Address(address));
        }
        Ok(PublishAt::Address(address))
    }
}

impl fmt::Display for PublishAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishAt::Any => f.pad("*"),
            PublishAt::Address(IpAddr::V6(address)) => f.pad(&format!("[{address}]")),
            PublishAt::Address(address) => f.pad(&address.to_string()),
            PublishAt::Interface(name) => f.pad(name.as_str()),
        }
    }
}

/// As in front of a port: `10.0.0.5`, `[fd00::5]`, `eth0`, or `*` for all.
impl FromStr for PublishAt {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text == "*" {
            return Ok(PublishAt::Any);
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse() {
            return Self::address(address);
        }
        // A number is a port in the wrong place sooner than an interface.
        if bare.is_some() || text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PortError::Place(text.to_owned()));
        }
        InterfaceName::new(text).map(PublishAt::Interface).map_err(|_| PortError::Place(text.to_owned()))
    }
}
