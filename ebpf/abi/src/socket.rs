//! What host sockets believe that they talk to.

use crate::Address;

/// Key of `SOCKETS`: a socket of the node, and the published port that it speaks to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketKey {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// The port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 6],
}

/// Value of `SOCKETS` (LRU; the cgroup programs' own): the address that the socket asked for, in place of which it was
/// given [`crate::HOST_SERVICE_ADDRESS`].
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketValue {
    /// The address.
    pub address: Address,
}
