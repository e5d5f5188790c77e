//! Notices the end of a task: of its process, or of the file that names its namespace.

use std::{io, time::Duration};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{LocalTask, NsRef};

/// How often the file of a namespace is looked at.
const POLL: Duration = Duration::from_millis(500);

/// The end of a task to come.
#[derive(Debug)]
pub enum Ending {
    /// The kernel tells when the process ends.
    Process(AsyncFd<rustix::fd::OwnedFd>),
    /// Looked at from time to time.
    Namespace(Box<LocalTask>),
}

/// A handle on the process, taken before its namespace is opened, so that both are of the same process.
#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of descriptors that are not owned; this one is"
)]
pub fn open_process(pid: u32) -> io::Result<AsyncFd<rustix::fd::OwnedFd>> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}

impl Ending {
    /// Of a task that was there before the daemon; `None` when it has ended already.
    pub fn adopt(task: &LocalTask) -> Option<Self> {
        let ending = match task.namespace {
            NsRef::Pid(pid) => Self::Process(open_process(pid).ok()?),
            NsRef::Path(_) => Self::Namespace(Box::new(task.clone())),
        };
        task.namespace_is_there().then_some(ending)
    }

    /// Returns when the task has ended.
    pub async fn wait(self) {
        match self {
            Self::Process(process) => {
                if let Err(error) = process.readable().await {
                    tracing::warn!(%error, "watching a task's process failed");
                }
            }
            Self::Namespace(task) => {
                while task.namespace_is_there() {
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }
}
