//! Published ports and how they are written: `80:80`, `10.0.0.5:8080:80/udp`, `eth0:8000-8010:8000-8010`,
//! `published=8080,target=80,protocol=udp,mode=host`, `80:80,return=direct`.

mod filter;
mod parse;
mod place;

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{GOSSIP_PORT, MANAGER_PORT, VXLAN_PORT};

pub use filter::PortFilter;
pub use place::PublishAt;

/// A transport protocol that ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260. Its checksum (CRC32c) covers the ports and cannot be corrected for another one, so a published port
    /// has to be the target port.
    Sctp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Its name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Which nodes a published port is open on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node, balanced over all tasks.
    #[default]
    Ingress,
    /// On nodes that run a task of the service; leads to that node's tasks only.
    Host,
}

impl PublishMode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        }
    }
}

/// Which way replies go to the client of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum ReturnMode {
    /// Through the node that the client spoke to. Works on every network.
    #[default]
    Tunnel,
    /// From the task's node straight to the client (direct server return). Needs a network that lets a node send from
    /// another node's address.
    Direct,
}

impl ReturnMode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReturnMode::Tunnel => "tunnel",
            ReturnMode::Direct => "direct",
        }
    }
}

macro_rules! words {
    ($($ty:ident, $error:ident: $($variant:ident)*;)*) => {$(
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $ty {
            type Err = PortError;
            fn from_str(text: &str) -> Result<Self, PortError> {
                let all = [$($ty::$variant),*];
                let found = all.into_iter().find(|value| value.as_str() == text);
                found.ok_or_else(|| PortError::$error(text.to_owned()))
            }
        }
    )*};
}

words! {
    Protocol, Protocol: Tcp Udp Sctp;
    PublishMode, Mode: Ingress Host;
    ReturnMode, Return: Tunnel Direct;
}

/// A published port of a service.
///
/// As text: `PLACE:PUBLISHED:TARGET/PROTOCOL` and, where they are not the usual ones, `,mode=host` and
/// `,return=direct`; reading gives the same value again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortConfig {
    /// The port that clients use; 0 asks the managers for a free one of 30000-32767.
    pub published: u16,
    /// The port that the tasks listen on.
    pub target: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Which nodes it is open on.
    pub mode: PublishMode,
    /// Where on them.
    pub at: PublishAt,
    /// Which way replies go.
    pub return_mode: ReturnMode,
}

impl PortConfig {
    /// A port in mode ingress, on all addresses, with replies the usual way.
    pub const fn new(published: u16, target: u16, protocol: Protocol) -> Self {
        Self {
            published,
            target,
            protocol,
            mode: PublishMode::Ingress,
            at: PublishAt::Any,
            return_mode: ReturnMode::Tunnel,
        }
    }

    /// The ports that `text` means: one, or as many as its range has.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, PortError> {
        parse::ports(text)
    }

    /// Whether a packet could be for both: the same number and transport, at places that can overlap.
    pub fn clashes(&self, other: &Self) -> bool {
        (self.published, self.protocol) == (other.published, other.protocol) && self.at.overlaps(other.at)
    }

    /// What the cluster itself uses the port for on every node.
    pub const fn own_use(&self) -> Option<&'static str> {
        match (self.published, self.protocol) {
            (MANAGER_PORT, Protocol::Tcp) => Some("its managers"),
            (GOSSIP_PORT, Protocol::Tcp | Protocol::Udp) => Some("gossip"),
            (VXLAN_PORT, Protocol::Udp) => Some("VXLAN"),
            _ => None,
        }
    }

    /// Where clients find it: `80/tcp`, `10.0.0.5:80/tcp`, `eth0:80/tcp`.
    pub fn place(&self) -> String {
        match self.at {
            PublishAt::Any => format!("{}/{}", self.published, self.protocol),
            at => format!("{at}:{}/{}", self.published, self.protocol),
        }
    }
}

/// Why a text is not a published port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Not a number of 1 to 65535.
    #[error("{0:?} is not a port number of 1 to 65535")]
    Number(String),
    /// A range that ends before it begins.
    #[error("{0:?} is not a range of ports such as 8000-8010")]
    Range(String),
    /// Ranges of different length.
    #[error("{0:?}: the ranges differ in length; write as many published ports as target ports")]
    RangeLength(String),
    /// A range where only one port can be.
    #[error("{0:?} means {1} ports, one is wanted here")]
    NotOne(String, usize),
    /// A transport other than tcp, udp and sctp.
    #[error("protocol {0:?} is not known; use tcp, udp or sctp")]
    Protocol(String),
    /// A mode other than ingress and host.
    #[error("mode {0:?} is not known; use ingress or host")]
    Mode(String),
    /// A way of replies other than tunnel and direct.
    #[error("return {0:?} is not known; use tunnel or direct")]
    Return(String),
    /// Neither an address nor an interface.
    #[error(
        "{0:?} is neither an address nor an interface; write for example 10.0.0.5:80:80, [fd00::5]:80:80 or eth0:80:80"
    )]
    Place(String),
    /// An address that no node can have.
    #[error("{0} is not the address of a node; leave it out to publish on all addresses")]
    Address(IpAddr),
    /// An unknown `key=value` field.
    #[error(
        "{0:?} is not a field of a published port; the fields are published, target, protocol, mode, address, \
         interface and return"
    )]
    Field(String),
    /// A field twice, or one that says again what stands before it.
    #[error("{0:?} is given twice")]
    Twice(String),
    /// No target port was given.
    #[error("{0:?} names no target port; write PUBLISHED:TARGET, for example 8080:80")]
    NoTarget(String),
    /// No port to look for was given.
    #[error("{0:?} names no port; write for example 8080, 8080/udp or 10.0.0.5:8080")]
    NoPort(String),
}

impl fmt::Display for PortConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at != PublishAt::Any {
            write!(f, "{}:", self.at)?;
        }
        match self.published {
            // As asked for.
            0 if self.at == PublishAt::Any => {}
            0 => f.write_str(":")?,
            published => write!(f, "{published}:")?,
        }
        write!(f, "{}/{}", self.target, self.protocol)?;
        if self.mode != PublishMode::default() {
            write!(f, ",mode={}", self.mode)?;
        }
        if self.return_mode != ReturnMode::default() {
            write!(f, ",return={}", self.return_mode)?;
        }
        Ok(())
    }
}

impl FromStr for PortConfig {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match parse::ports(text)?.as_slice() {
            [one] => Ok(*one),
            many => Err(PortError::NotOne(text.to_owned(), many.len())),
        }
    }
}

#[cfg(test)]
mod tests;
