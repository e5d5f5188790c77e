//! Ethernet frames, sent and received as they are (packet(7)): what no honest socket would send.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::netns::NetNs;

/// Every protocol, network order.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A link's frames, to be read and written.
#[derive(Debug)]
pub struct RawLink(OwnedFd);

impl RawLink {
    /// Opens the link of that name in the network namespace that the file at `namespace` stands for.
    pub fn open(namespace: &Path, link: &str) -> Result<Self> {
        let opened = NetNs::run_at(namespace, || open(link))?;
        opened.map(Self).with_context(|| format!("frames of {link} in {}", namespace.display()))
    }

    /// Sends a frame, Ethernet header included.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads the bytes of a live slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that the link brings or sends; none when there is none within `at_most`.
    pub fn receive(&self, at_most: Duration) -> io::Result<Option<Vec<u8>>> {
        let mut wanted = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure, which lives as long as the call.
        match unsafe { libc::poll(&raw mut wanted, 1, millis) } {
            0 => return Ok(None),
            1.. => {}
            _ => return Err(io::Error::last_os_error()),
        }
        let mut frame = vec![0; 65_536];
        // SAFETY: the kernel writes into a live slice, at most its length.
        let len = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        frame.truncate(len);
        Ok(Some(frame))
    }
}

fn open(link: &str) -> io::Result<OwnedFd> {
    let name = CString::new(link)?;
    // SAFETY: a valid string with a zero at its end.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain system call.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, ALL.into()) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: a structure of integers, for which zeros are values.
    let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    place.sll_family = libc::AF_PACKET as u16;
    place.sll_protocol = ALL;
    place.sll_ifindex = index.cast_signed();
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: a structure of that size, which lives as long as the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const place).cast(), size) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}
