//! The sockets of one task's name server: made in its namespace, or taken over from the process before this one.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use mesh_netlink::{NetNs, cookie_of_socket};
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};

use crate::{DNS_ADDRESS, Error};

/// What may wait in a socket, in bytes; the kernel doubles it for its own needs. Some 1,300 queries: a burst, and what is
/// asked while one daemon follows the other.
const QUEUE: usize = 512 * 1024;

/// UDP and TCP port 53 of 127.0.0.11 in a task's namespace. While they are open, the namespace lives.
#[derive(Debug)]
pub struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Opens them in the namespace; `lo` must be up there.
    pub fn open(ns: &NetNs) -> Result<Self, Error> {
        ns.run(open)?
    }

    /// Takes those that served the namespace before: what was asked meanwhile waits in them.
    ///
    /// # Errors
    /// [`Error::Foreign`] when they are not the two of this namespace. They are closed then.
    pub fn adopt(ns: &NetNs, descriptors: impl IntoIterator<Item = OwnedFd>) -> Result<Self, Error> {
        let own = ns.cookie()?;
        let (mut udp, mut tcp) = (None, None);
        for descriptor in descriptors {
            if cookie_of_socket(descriptor.as_fd()).map_err(Error::Register)? != own {
                return Err(Error::Foreign("it lives in another namespace"));
            }
            match getsockopt(&descriptor, sockopt::SockType) {
                Ok(SockType::Datagram) => udp = Some(UdpSocket::from(descriptor)),
                Ok(SockType::Stream) if getsockopt(&descriptor, sockopt::AcceptConn) == Ok(true) => {
                    tcp = Some(TcpListener::from(descriptor));
                }
                _ => return Err(Error::Foreign("it neither receives datagrams nor listens")),
            }
        }
        let (Some(udp), Some(tcp)) = (udp, tcp) else {
            return Err(Error::Foreign("the other one is missing"));
        };
        let here = |address: io::Result<SocketAddr>| address.is_ok_and(|a| a == SocketAddr::V4(DNS_ADDRESS));
        if !here(udp.local_addr()) || !here(tcp.local_addr()) {
            return Err(Error::Foreign("it has another address"));
        }
        Self { udp, tcp }.nonblocking()
    }

    /// Both, to be handed to who keeps them for the next process.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.udp.as_fd(), self.tcp.as_fd()]
    }

    fn nonblocking(self) -> Result<Self, Error> {
        self.udp.set_nonblocking(true).map_err(Error::Register)?;
        self.tcp.set_nonblocking(true).map_err(Error::Register)?;
        Ok(self)
    }
}

fn open() -> Result<Sockets, Error> {
    let address = SocketAddr::V4(DNS_ADDRESS);
    let failed = |protocol| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::Taken { address, protocol },
            _ => Error::Listen { address, protocol, source },
        }
    };
    let udp = UdpSocket::bind(address).map_err(failed("UDP"))?;
    if let Err(error) = setsockopt(&udp, sockopt::RcvBufForce, &QUEUE) {
        tracing::debug!(%error, "a name server's socket keeps its usual queue");
    }
    let tcp = TcpListener::bind(address).map_err(failed("TCP"))?;
    Sockets { udp, tcp }.nonblocking()
}
