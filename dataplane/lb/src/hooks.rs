//! Attaching programs so that they stay when this process ends, and replacing those of an earlier one without a gap.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::programs::{CgroupSockAddr, SchedClassifier, TcAttachType};

use crate::{
    clsact,
    error::Error,
    pins::{self, Pins, file, list},
    sys::{self, AttachType},
};

/// By what the kernel holds an attached program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookKind {
    /// A pinned link (kernel 6.6 and later).
    Tcx,
    /// A filter of the `clsact` queueing discipline.
    Clsact,
    /// A pinned link to a cgroup.
    Cgroup,
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Cgroup => "cgroup",
        })
    }
}

/// The programs of cgroups, where they are attached, and whether the object must have them.
pub(crate) const CGROUP_PROGRAMS: [(&str, AttachType, bool); 8] = [
    ("connect4", AttachType::Inet4Connect, true),
    ("sendmsg4", AttachType::Udp4Sendmsg, true),
    ("recvmsg4", AttachType::Udp4Recvmsg, true),
    ("getpeername4", AttachType::Inet4GetPeername, true),
    ("connect6", AttachType::Inet6Connect, false),
    ("sendmsg6", AttachType::Udp6Sendmsg, false),
    ("recvmsg6", AttachType::Udp6Recvmsg, false),
    ("getpeername6", AttachType::Inet6GetPeername, false),
];

/// Attaches `program` to an interface of the calling thread's namespace under the name `hook`, in place of whatever had
/// that name.
pub(crate) fn attach_tc(
    pins: &Pins,
    program: &mut SchedClassifier,
    hook: &str,
    interface: &str,
    direction: TcAttachType,
    clsact_only: bool,
) -> Result<HookKind, Error> {
    let refused = |source| Error::Attach { what: hook.to_owned(), target: interface.to_owned(), source };
    let ifindex = nix::net::if_::if_nametoindex(interface).map_err(|e| refused(e.into()))?;
    let pin = pins.links().join(hook);
    if !clsact_only {
        let attach_type = if matches!(direction, TcAttachType::Ingress) {
            AttachType::TcxIngress
        } else {
            AttachType::TcxEgress
        };
        let fd = program.fd().map_err(|e| refused(io::Error::other(e)))?;
        let same = |info: &sys::LinkInfo| info.target == ifindex;
        match replace_or_create(&pin, fd, ifindex, attach_type, same) {
            Ok(()) => {
                for mark in clsact::marks_of(&pins.clsact(), hook)? {
                    clsact::detach(&mark)?;
                }
                return Ok(HookKind::Tcx);
            }
            // What kernels before 6.6 say to a link for tc.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
            Err(e) => return Err(refused(e)),
        }
    }
    clsact::attach(program, interface, ifindex, direction, &pins.clsact(), hook)?;
    pins::detach(&pin)?;
    Ok(HookKind::Clsact)
}

/// Attaches `program` to a cgroup, beside the programs of others.
pub(crate) fn attach_cgroup(
    pins: &Pins,
    program: &CgroupSockAddr,
    hook: &str,
    cgroup: &Path,
    attach_type: AttachType,
) -> Result<(), Error> {
    let refused =
        |source| Error::Attach { what: hook.to_owned(), target: cgroup.display().to_string(), source };
    let folder = fs::File::open(cgroup).map_err(file("open", cgroup))?;
    // A cgroup's id is its folder's inode number (64-bit kernels).
    let id = folder.metadata().map_err(file("look at", cgroup))?.ino();
    let fd = program.fd().map_err(|e| refused(io::Error::other(e)))?;
    let pin = pins.links().join(hook);
    replace_or_create(&pin, fd, folder.as_raw_fd() as u32, attach_type, |info| info.cgroup() == id)
        .map_err(refused)
}

/// Gives the pinned link a new program at once when it is attached where it should be; else makes a new link and pins it
/// in place of the old one.
fn replace_or_create(
    pin: &Path,
    program: &aya::programs::ProgramFd,
    target: u32,
    attach_type: AttachType,
    same: impl Fn(&sys::LinkInfo) -> bool,
) -> io::Result<()> {
    let old: Option<OwnedFd> = match sys::obj_get(pin) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    if let Some(link) = &old
        && same(&sys::link_info(link)?)
    {
        return sys::link_update(link, program);
    }
    let link = sys::link_create(program, target, attach_type)?;
    if old.is_some() {
        pins::detach(pin).map_err(io::Error::other)?;
    }
    sys::obj_pin(&link, pin)
}

/// Detaches what has the name `hook`, if anything has.
pub(crate) fn detach(pins: &Pins, hook: &str) -> Result<(), Error> {
    pins::detach(&pins.links().join(hook))?;
    clsact::marks_of(&pins.clsact(), hook)?.iter().try_for_each(|mark| clsact::detach(mark))
}

/// Everything that is attached, by name.
pub(crate) fn attached(pins: &Pins) -> Result<BTreeMap<String, HookKind>, Error> {
    let name = |path: PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let mut found = BTreeMap::new();
    for hook in list(&pins.clsact())?.into_iter().filter_map(name) {
        let hook = hook.split_once('@').map_or(hook.as_str(), |(hook, _)| hook).to_owned();
        found.insert(hook, HookKind::Clsact);
    }
    for hook in list(&pins.links())?.into_iter().filter_map(name) {
        let kind = if hook.starts_with(CGROUP_PREFIX) { HookKind::Cgroup } else { HookKind::Tcx };
        found.insert(hook, kind);
    }
    Ok(found)
}

/// Begins the names of cgroup hooks.
pub(crate) const CGROUP_PREFIX: &str = "cgroup-";
const TASK_PREFIX: &str = "task-";
const TASK_IN: &str = "-in";
const TASK_OUT: &str = "-out";

/// The hooks of a task's interface: what it sends, and what the host sends to it. BPF file systems refuse dots in
/// names, and interfaces refuse colons in theirs.
pub(crate) fn task_hooks(interface: &str) -> [String; 2] {
    let name = interface.replace('.', ":");
    [format!("{TASK_PREFIX}{name}{TASK_IN}"), format!("{TASK_PREFIX}{name}{TASK_OUT}")]
}

/// Where a hook is and which program it holds, for people: `None` for the place of node-wide hooks, whose interfaces
/// have no fixed name.
pub fn describe_hook(hook: &str) -> (Option<String>, String) {
    if let Some(program) = hook.strip_prefix(CGROUP_PREFIX) {
        return (Some("cgroup".to_owned()), program.to_owned());
    }
    match task_interface(hook) {
        Some(interface) if hook.ends_with(TASK_IN) => (Some(interface), "from_task".to_owned()),
        Some(interface) => (Some(interface), "to_task".to_owned()),
        None => (None, hook.to_owned()),
    }
}

/// The interface of a task's hook.
pub(crate) fn task_interface(hook: &str) -> Option<String> {
    let rest = hook.strip_prefix(TASK_PREFIX)?;
    let name = rest.strip_suffix(TASK_IN).or_else(|| rest.strip_suffix(TASK_OUT))?;
    Some(name.replace(':', "."))
}
