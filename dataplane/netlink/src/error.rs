//! What can go wrong between the daemon and the kernel.

use std::{io, net::IpAddr, path::PathBuf};

use thiserror::Error as ThisError;

/// Why a request to the kernel failed. Each variant says whether something was changed.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The namespace's file could not be opened. Nothing changed.
    #[error("cannot open network namespace {}: {source}", path.display())]
    OpenNamespace {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there, but is no network namespace (a left-over mount point, say). Nothing changed.
    #[error("{} is not a network namespace", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// The process is gone, or belongs to someone else. Nothing changed.
    #[error("cannot open the network namespace of process {pid}: {source}")]
    Process {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The namespace could not be entered or made. Nothing changed.
    #[error("cannot enter network namespace {namespace}: {source}")]
    EnterNamespace {
        /// Its path, process or descriptor.
        namespace: String,
        /// Why.
        source: io::Error,
    },
    /// No thread, or no netlink socket, could be made. Nothing changed.
    #[error("cannot open a netlink socket: {0}")]
    Connect(#[source] io::Error),
    /// No interface holds the address. Nothing changed.
    #[error("no interface of this node has address {0}")]
    AddressNotFound(IpAddr),
    /// There is no such link. Nothing changed.
    #[error("there is no link {0:?}")]
    NoSuchLink(String),
    /// A text that cannot name a link: 1 to 15 bytes without `/`, `:` and blanks. Nothing changed.
    #[error("{0:?} cannot name a link: 1 to 15 characters, no '/', ':' or blank")]
    InvalidName(String),
    /// A link of this name is there already and is not what was asked for. Nothing changed.
    #[error("link name {name:?} is taken in {namespace}")]
    NameTaken {
        /// The name.
        name: String,
        /// Where: `this node's namespace`, or the task's.
        namespace: String,
    },
    /// Another VXLAN device receives on the port. Nothing changed.
    #[error("UDP port {port} is held by {}; the data path needs this port",
        holder.as_ref().map_or_else(|| "another socket or VXLAN device".to_owned(), |h| format!("VXLAN device {h:?}")))]
    PortHeld {
        /// The port.
        port: u16,
        /// The device, when it is in this namespace.
        holder: Option<String>,
    },
    /// The kernel refused a request, or did not answer it for long ([`Error::is_late`]). For the `ensure_*` calls the steps before it stand and calling again goes on from
    /// there; [`Netlink::add_task_link`](crate::Netlink::add_task_link) has undone its own.
    #[error("cannot {operation} {target}: {source}")]
    Request {
        /// What was to be done.
        operation: &'static str,
        /// To what.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// IPv6 was asked for. Nothing changed.
    #[error("this kernel has no IPv6 (built without it, or started with ipv6.disable=1)")]
    NoIpv6,
    /// A kernel setting could not be read or written. Nothing changed.
    #[error("cannot set {path}: {source}")]
    Sysctl {
        /// The file under /proc/sys.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The `nft` program could not be run. Nothing changed.
    #[error("cannot run nft (Debian package nftables): {0}")]
    NftMissing(#[source] io::Error),
    /// `nft` refused the rules; it applies all or none, so nothing changed.
    #[error("nft refused table {table}: {message}")]
    Nft {
        /// Our table.
        table: String,
        /// What nft wrote.
        message: String,
    },
}

impl Error {
    /// Wraps the kernel's refusal of `operation` on `target`.
    pub(crate) fn request(
        operation: &'static str,
        target: impl Into<String>,
        error: rtnetlink::Error,
    ) -> Self {
        Self::Request { operation, target: target.into(), source: to_io(error) }
    }

    /// Whether the kernel did not answer for long. What was asked for may have been done.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }
}

/// The errno inside a netlink error, or its text.
pub(crate) fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        late if is_errno(&late, libc::ETIMEDOUT) => {
            io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer; try again")
        }
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Whether the kernel answered with this errno.
pub(crate) fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(m) if m.to_io().raw_os_error() == Some(errno))
}
