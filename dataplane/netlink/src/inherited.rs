//! Sockets that come from the process before this one, by way of the service manager that started both.

use std::{
    env, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The kernel's number of the network namespace that a socket lives in, as [`crate::NetNs::cookie`] tells it.
pub fn cookie_of_socket(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes, the size of `cookie`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The sockets that a service manager has handed to this process, with their names (sd_listen_fds_with_names(3));
/// what is no socket is closed. They are not inherited further. A second call finds none.
pub fn inherited_sockets() -> Vec<(String, OwnedFd)> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for number in (FIRST..).take(count as usize) {
        let name = names.next().unwrap_or_default();
        // SAFETY: F_SETFD changes a flag of the descriptor, and fails when there is none.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            continue;
        }
        // SAFETY: it is open, as the call above found. It was so when the process began and is meant for whoever reads
        // the environment that names it: this process by its id, and this function once.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        if nix::sys::socket::getsockopt(&descriptor, nix::sys::socket::sockopt::SockType).is_ok() {
            taken.push((name.to_owned(), descriptor));
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::NetNs;

    #[test]
    fn a_socket_tells_where_it_lives() {
        let other = NetNs::create().unwrap();
        let bind = || std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let (here, there) = (bind(), other.run(bind).unwrap());
        assert_eq!(cookie_of_socket(here.as_fd()).unwrap(), NetNs::current().unwrap().cookie().unwrap());
        assert_eq!(cookie_of_socket(there.as_fd()).unwrap(), other.cookie().unwrap());
        assert!(cookie_of_socket(other.as_fd()).is_err(), "a namespace is no socket");
    }
}
