//! SCTP in TCP's manner (RFC 6458, section 4): one association a socket, read and written like a stream. For kernels that
//! have it.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen};

/// Listens at an address, in the calling thread's namespace.
pub fn sctp_listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    listen(&socket, Backlog::new(16)?)?;
    Ok(socket.into())
}

/// Connects, from the calling thread's namespace.
pub fn sctp_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(to)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

fn socket(of_family: SocketAddr) -> io::Result<OwnedFd> {
    let family = if of_family.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: plain system call.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
