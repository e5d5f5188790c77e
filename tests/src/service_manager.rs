//! What a service manager does for a daemon besides starting it: keeps descriptors from one daemon to the next
//! (sd_notify(3), FDSTORE).

use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use crate::node::Node;

/// Where the first descriptor that is handed over goes.
const FIRST: RawFd = 3;

/// One of a node's daemon.
#[derive(Debug)]
pub struct ServiceManager {
    path: PathBuf,
    socket: UnixDatagram,
    kept: BTreeMap<String, Vec<OwnedFd>>,
}

impl ServiceManager {
    /// Listens in the node's folder; keeps nothing yet.
    pub fn new(node: &Node) -> Result<Self> {
        let path = node.folder().join("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| path.display().to_string())?;
        socket.set_nonblocking(true).context("a socket that does not wait")?;
        Ok(Self { path, socket, kept: BTreeMap::new() })
    }

    /// Starts the node's daemon with what is kept, and waits until it answers.
    pub fn start(&mut self, node: &Node) -> Result<()> {
        self.listen()?;
        let meshd = node.meshd()?;
        // The shell's pid becomes the daemon's.
        let mut command = node.command("sh")?;
        command
            .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
            .arg(meshd.get_program())
            .args(meshd.get_args());
        for (key, value) in meshd.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        let (names, given): (Vec<_>, Vec<_>) =
            self.kept.iter().flat_map(|(name, kept)| kept.iter().map(move |fd| (name.as_str(), fd))).unzip();
        command.env("NOTIFY_SOCKET", &self.path).env("LISTEN_FDS", given.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        hand_over(&mut command, &given)?;
        node.start_as(command)
    }

    /// What is kept now, by name; with what the daemon has said meanwhile.
    pub fn kept(&mut self) -> Result<&BTreeMap<String, Vec<OwnedFd>>> {
        self.listen()?;
        Ok(&self.kept)
    }

    /// Keeps something that the daemon has not given.
    pub fn keep(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        self.kept.insert(name.to_owned(), descriptors);
    }

    fn listen(&mut self) -> Result<()> {
        loop {
            let mut text = [0; 4096];
            let mut space = cmsg_space!([RawFd; 16]);
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let got = match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(got) => got,
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("listening to the daemon"),
            };
            let mut given = Vec::new();
            for message in got.cmsgs().context("what came with a message")? {
                if let ControlMessageOwned::ScmRights(numbers) = message {
                    // SAFETY: the kernel has just made these descriptors for this message.
                    given.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                }
            }
            let length = got.bytes;
            self.take(&String::from_utf8_lossy(&text[..length]), given);
        }
    }

    fn take(&mut self, text: &str, given: Vec<OwnedFd>) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let name = value("FDNAME").unwrap_or("stored").to_owned();
        if value("FDSTOREREMOVE") == Some("1") {
            self.kept.remove(&name);
        } else if value("FDSTORE") == Some("1") {
            self.kept.entry(name).or_default().extend(given);
        }
    }
}

/// Puts copies of `given` where the program of `command` looks for them.
fn hand_over(command: &mut Command, given: &[&OwnedFd]) -> Result<()> {
    // Copies out of the way of the places that they go to.
    let far = FIRST + i32::try_from(given.len()).context("too many descriptors")?;
    let copy = |fd: &&OwnedFd| -> Result<OwnedFd> {
        // SAFETY: the descriptor is open, and the copy is a new one.
        let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, far) };
        ensure!(number >= far, "a copy of a descriptor: {}", std::io::Error::last_os_error());
        // SAFETY: made just now, and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    let copies = given.iter().map(copy).collect::<Result<Vec<_>>>()?;
    let place = move || {
        for (target, copy) in (FIRST..).zip(&copies) {
            // SAFETY: only the child's own descriptors are replaced, and it is about to become another program.
            if unsafe { libc::dup2(copy.as_raw_fd(), target) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(place) };
    Ok(())
}
