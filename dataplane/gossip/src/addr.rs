//! Addresses that are kept of every node.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket's address in half the room, if it is an IPv4 one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SmallAddr {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl SmallAddr {
    pub(crate) fn get(&self) -> SocketAddr {
        match self {
            Self::V4(addr) => SocketAddr::V4(*addr),
            Self::V6(addr) => SocketAddr::V6(**addr),
        }
    }
}

impl From<SocketAddr> for SmallAddr {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(addr),
            SocketAddr::V6(addr) => Self::V6(Box::new(addr)),
        }
    }
}
