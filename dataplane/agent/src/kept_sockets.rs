//! The sockets of tasks' name servers, kept by the service manager while no daemon runs: what tasks ask meanwhile waits in
//! them, and the next daemon answers (systemd's file descriptor store: sd_notify(3), sd_listen_fds_with_names(3)).

use std::{
    collections::BTreeMap,
    env, io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mesh_types::TaskId;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tracing::{debug, warn};

/// What the names of ours begin with; a task's id follows.
const PREFIX: &str = "dns-";
/// How long the service manager may take to take a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was handed to this process, and whom to hand sockets to.
#[derive(Debug, Default)]
pub struct KeptSockets {
    keeper: Option<UnixAddr>,
    handed: Mutex<BTreeMap<String, Vec<OwnedFd>>>,
}

impl KeptSockets {
    /// As the environment has it. What was handed over is found by the first call only.
    pub fn from_environment() -> Self {
        let mut handed: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
        for (name, descriptor) in mesh_netlink::inherited_sockets() {
            handed.entry(name).or_default().push(descriptor);
        }
        if !handed.is_empty() {
            debug!(names = handed.len(), "sockets handed over");
        }
        let keeper = env::var_os("NOTIFY_SOCKET").and_then(|path| match path.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name).ok(),
            path => UnixAddr::new(path).ok(),
        });
        Self { keeper, handed: Mutex::new(handed) }
    }

    /// Those of the task, if they were handed over.
    pub(crate) fn take(&self, task: TaskId) -> Option<Vec<OwnedFd>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).remove(&name_of(task))
    }

    /// Has them kept until [`KeptSockets::forget`]. Keeping the same ones again changes nothing.
    pub(crate) fn keep(&self, task: TaskId, sockets: &[BorrowedFd<'_>]) {
        // Without FDPOLL=0 systemd gives up those that it finds in an error.
        self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}\n", name_of(task)), sockets);
    }

    /// Has them kept no longer: kept sockets keep the task's namespace.
    pub(crate) fn forget(&self, task: TaskId) {
        self.forget_name(&name_of(task));
    }

    /// Closes, and has kept no longer, what was handed over and is nobody's any more.
    pub fn forget_rest(&self) {
        let rest = std::mem::take(&mut *self.handed.lock().unwrap_or_else(PoisonError::into_inner));
        // Foreign names are not ours to forget, only to close.
        for name in rest.keys().filter(|name| name.starts_with(PREFIX)) {
            debug!(name, "sockets of a task that is gone");
            self.forget_name(name);
        }
    }

    fn forget_name(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]);
    }

    fn tell(&self, text: &str, sockets: &[BorrowedFd<'_>]) {
        if let Some(keeper) = &self.keeper
            && let Err(error) = send(keeper, text, sockets)
        {
            warn!(%error, "tell the service manager about the sockets of a name server");
        }
    }
}

fn name_of(task: TaskId) -> String {
    format!("{PREFIX}{task}")
}

fn send(keeper: &UnixAddr, text: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let numbers: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let attached = if numbers.is_empty() { &[] } else { rights.as_slice() };
    let parts = [io::IoSlice::new(text.as_bytes())];
    sendmsg(socket.as_raw_fd(), &parts, attached, MsgFlags::MSG_NOSIGNAL, Some(keeper))?;
    Ok(())
}
