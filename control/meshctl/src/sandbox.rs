//! The namespaces of `meshctl run`: of its own are the network, the mounts for the sake of `/etc/resolv.conf`, and the host
//! name where one is given.
//!
//! Nothing here has to be undone: all of it ends with the process.

use std::{fs::File, os::fd::AsRawFd, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};
use mesh_types::Hostname;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::sethostname,
};

use crate::failure::Failure;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Covered for a moment, in the own mount namespace only.
const SCRATCH: &str = "/tmp";
const NONE: Option<&str> = None;

/// Gives the calling thread, which has to be the process's only one, new network and mount namespaces, and one for its
/// host name.
pub fn enter(hostname: Option<&Hostname>) -> Result<()> {
    if !Path::new(RESOLV_CONF).exists() {
        return Err(Failure::NoResolvConf(RESOLV_CONF.into()).into());
    }
    let mut new = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    new.set(CloneFlags::CLONE_NEWUTS, hostname.is_some());
    match unshare(new) {
        Err(Errno::EPERM) => return Err(Failure::NeedsRoot("making a network namespace").into()),
        made => made.context("cannot make a network namespace")?,
    }
    if let Some(name) = hostname {
        sethostname(name.as_str()).with_context(|| format!("cannot set the host name {name}"))?;
    }
    // Mounts made here stay here; what the host unmounts later goes here too, so that nothing is kept busy.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .context("cannot keep mounts to the new namespace")
}

/// Puts `content` in the place of `/etc/resolv.conf`, for this process and its children. The file on disk, which may
/// be a link, is not touched; the content is in memory.
pub fn cover_resolv_conf(content: &[u8]) -> Result<()> {
    if content.is_empty() {
        return Ok(());
    }
    // Opened first: the scratch mount may hide what the name leads to.
    let mut options = File::options();
    let target = options.read(true).custom_flags(OFlag::O_PATH.bits()).open(RESOLV_CONF);
    let target = target.with_context(|| format!("cannot open {RESOLV_CONF}"))?;
    let file = Path::new(SCRATCH).join("resolv.conf");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("meshctl"), SCRATCH, Some("tmpfs"), flags, Some("size=64k,mode=755"))
        .with_context(|| format!("cannot mount a tmpfs on {SCRATCH}"))?;
    let covered = std::fs::write(&file, content).context("cannot write resolv.conf").and_then(|()| {
        let target = format!("/proc/self/fd/{}", target.as_raw_fd());
        mount(Some(&file), target.as_str(), NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("cannot cover {RESOLV_CONF}"))
    });
    // The bind mount keeps the file alive without its tmpfs's place in the tree.
    umount2(SCRATCH, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {SCRATCH}"))?;
    covered
}
