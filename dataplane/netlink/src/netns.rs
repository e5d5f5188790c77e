//! Network namespaces by descriptor.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result, cookie_of_socket};

/// A network namespace, held open by a descriptor: it lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    label: String,
}

/// What tells namespaces apart while they live: device and inode of the namespace's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NsId {
    /// Device of the nsfs.
    pub dev: u64,
    /// Inode within.
    pub ino: u64,
}

impl NetNs {
    /// Opens a namespace by a file such as `/var/run/netns/blue` or `/proc/1/ns/net`; the error names the file.
    pub fn open_path(path: &Path) -> Result<Self> {
        let file =
            File::open(path).map_err(|source| Error::OpenNamespace { path: path.to_owned(), source })?;
        Self::checked(file.into(), path.to_owned())
    }

    /// Opens the namespace of a process; the error names the process.
    pub fn of_pid(pid: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let file = File::open(&path).map_err(|source| Error::Process { pid, source })?;
        Ok(Self { fd: file.into(), label: format!("of process {pid}") })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// Takes a copy of a descriptor that somebody else holds.
    pub fn from_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let path = PathBuf::from(format!("descriptor {}", fd.as_raw_fd()));
        let fd =
            fd.try_clone_to_owned().map_err(|source| Error::OpenNamespace { path: path.clone(), source })?;
        Self::checked(fd, path)
    }

    /// Makes a namespace without a name: it is gone with the last descriptor, process and socket in it.
    pub fn create() -> Result<Self> {
        let failed = |source| Error::EnterNamespace { namespace: "(new)".to_owned(), source };
        let made = on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.and_then(|inner| inner).map_err(failed)?;
        Ok(Self { fd: file.into(), label: "(unnamed)".to_owned() })
    }

    /// Device and inode; equal for two descriptors of one namespace.
    pub fn id(&self) -> Result<NsId> {
        let stat = nix::sys::stat::fstat(&self.fd)
            .map_err(|e| Error::OpenNamespace { path: PathBuf::from(&self.label), source: e.into() })?;
        Ok(NsId { dev: stat.st_dev, ino: stat.st_ino })
    }

    /// The kernel's number of the namespace, never used twice while the machine runs: what
    /// `bpf_get_netns_cookie` gives inside programs (`SO_NETNS_COOKIE`, Linux 5.14).
    pub fn cookie(&self) -> Result<u64> {
        let failed = |source| Error::EnterNamespace { namespace: self.label.clone(), source };
        self.run(socket_cookie)?.map_err(failed)
    }

    /// Runs `work` on a fresh thread inside the namespace and waits for it; the caller's thread stays where it is.
    ///
    /// A panic in `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = on_fresh_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        });
        entered
            .and_then(|inner| inner)
            .map_err(|source| Error::EnterNamespace { namespace: self.label.clone(), source })
    }

    fn checked(fd: OwnedFd, path: PathBuf) -> Result<Self> {
        // ioctl_ns(2). An ordinary file answers ENOTTY.
        const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
        // SAFETY: the descriptor is open for the whole call and the request takes no argument.
        let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(Error::NotANamespace { path });
        }
        Ok(Self { fd, label: path.display().to_string() })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace {}", self.label)
    }
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(cause) => panic::resume_unwind(cause),
        }
    })
}

fn socket_cookie() -> io::Result<u64> {
    cookie_of_socket(std::net::UdpSocket::bind("0.0.0.0:0")?.as_fd())
}
