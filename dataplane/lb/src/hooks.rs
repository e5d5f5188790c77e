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

use aya::programs::{SchedClassifier, TcAttachType};

use crate::{
    clsact,
    error::Error,
    pins::{self, Pins, file, list},
    programs::Loaded,
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
    /// A pinned link to a network interface's driver.
    Xdp,
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Cgroup => "cgroup",
            Self::Xdp => "xdp",
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

/// What is to hold a tc program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcHold {
    /// A link where the kernel has them, else a filter.
    Link,
    /// A filter, but a link that is there goes on. The kernel has whoever makes or removes a link wait for all readers of its
    /// tables (tcx_entry_sync), 7 to 15 ms under the lock that all changes of interfaces share; a filter is there at once.
    QuickFilter,
    /// A filter.
    Filter,
}

/// Attaches `program` to an interface of the calling thread's namespace under the name `hook`, in place of whatever had
/// that name.
pub(crate) fn attach_tc(
    pins: &Pins,
    (program, loaded): (&mut SchedClassifier, &Loaded),
    hook: &str,
    interface: &str,
    direction: TcAttachType,
    hold: TcHold,
) -> Result<HookKind, Error> {
    let refused = |source| Error::Attach { what: hook.to_owned(), target: interface.to_owned(), source };
    let ifindex = nix::net::if_::if_nametoindex(interface).map_err(|e| refused(e.into()))?;
    let pin = pins.links().join(hook);
    let by_link = match hold {
        TcHold::Link => true,
        TcHold::QuickFilter => is_linked(&pin, ifindex).map_err(refused)?,
        TcHold::Filter => false,
    };
    if by_link {
        let attach_type = if matches!(direction, TcAttachType::Ingress) {
            AttachType::TcxIngress
        } else {
            AttachType::TcxEgress
        };
        let same = |info: &sys::LinkInfo| info.target == ifindex;
        match replace_or_create(&pin, loaded, ifindex, attach_type, same) {
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

/// Whether the pinned link is there, and on this interface.
fn is_linked(pin: &Path, ifindex: u32) -> io::Result<bool> {
    match sys::obj_get(pin) {
        Ok(link) => Ok(sys::link_info(&link)?.target == ifindex),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Attaches `program` to a cgroup, beside the programs of others.
pub(crate) fn attach_cgroup(
    pins: &Pins,
    program: &Loaded,
    hook: &str,
    cgroup: &Path,
    attach_type: AttachType,
) -> Result<(), Error> {
    let refused =
        |source| Error::Attach { what: hook.to_owned(), target: cgroup.display().to_string(), source };
    let folder = fs::File::open(cgroup).map_err(file("open", cgroup))?;
    // A cgroup's id is its folder's inode number (64-bit kernels).
    let cgroup_id = folder.metadata().map_err(file("look at", cgroup))?.ino();
    let pin = pins.links().join(hook);
    replace_or_create(&pin, program, folder.as_raw_fd() as u32, attach_type, |info| {
        info.cgroup() == cgroup_id
    })
    .map_err(refused)
}

/// Attaches `program` to an interface of the calling thread's namespace, to be run by its driver or not at all.
pub(crate) fn attach_xdp(pins: &Pins, program: &Loaded, hook: &str, interface: &str) -> io::Result<()> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    let same = |info: &sys::LinkInfo| info.target == ifindex;
    replace_or_create(&pins.links().join(hook), program, ifindex, AttachType::Xdp, same)
}

/// Gives the pinned link a new program at once when it is attached where it should be; else makes a new link and pins it
/// in place of the old one. Changes nothing when it has that program already.
fn replace_or_create(
    pin: &Path,
    program: &Loaded,
    target: u32,
    attach_type: AttachType,
    same: impl Fn(&sys::LinkInfo) -> bool,
) -> io::Result<()> {
    let old: Option<OwnedFd> = match sys::obj_get(pin) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    if let Some(link) = &old {
        let info = sys::link_info(link)?;
        if same(&info) {
            return if info.program == program.id { Ok(()) } else { sys::link_update(link, &program.fd) };
        }
    }
    let link = sys::link_create(&program.fd, target, attach_type)?;
    if old.is_some() {
        pins::detach(pin).map_err(io::Error::other)?;
    }
    sys::obj_pin(&link, pin)
}

/// Lets what an earlier version attached to the one uplink it had, under the name `before`, go on under the name `hook`
/// if it is on this interface.
pub(crate) fn adopt_uplink(pins: &Pins, interface: &str, before: &str, hook: &str) -> Result<(), Error> {
    let Ok(ifindex) = nix::net::if_::if_nametoindex(interface) else { return Ok(()) };
    let [from, to] = [before, hook].map(|name| pins.links().join(name));
    if let Ok(link) = sys::obj_get(&from)
        && sys::link_info(&link).is_ok_and(|info| info.target == ifindex)
        && !to.exists()
    {
        fs::rename(&from, &to).map_err(file("rename", &from))?;
    }
    clsact::rename(&pins.clsact(), before, hook, ifindex)
}

/// Detaches what has the name `hook`, if anything has.
pub(crate) fn detach(pins: &Pins, hook: &str) -> Result<(), Error> {
    pins::detach(&pins.links().join(hook))?;
    clsact::marks_of(&pins.clsact(), hook)?.iter().try_for_each(|mark| clsact::detach(mark))
}

/// The same for many, in one look at what is there; tells what became of each.
pub(crate) fn detach_all(pins: &Pins, hooks: &[String]) -> Vec<Result<(), Error>> {
    let mut marks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let all = match list(&pins.clsact()) {
        Ok(all) => all,
        // Each is told why.
        Err(_) => return hooks.iter().map(|hook| detach(pins, hook)).collect(),
    };
    for mark in all {
        if let Some(hook) = clsact::hook_of(&mark) {
            marks.entry(hook.to_owned()).or_default().push(mark);
        }
    }
    let detach = |hook: &String| {
        pins::detach(&pins.links().join(hook))?;
        marks.get(hook).into_iter().flatten().try_for_each(|mark| clsact::detach(mark))
    };
    hooks.iter().map(detach).collect()
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
        let kind = match hook.as_str() {
            name if name.starts_with(CGROUP_PREFIX) => HookKind::Cgroup,
            name if name.starts_with(XDP_PREFIX) => HookKind::Xdp,
            _ => HookKind::Tcx,
        };
        found.insert(hook, kind);
    }
    Ok(found)
}

/// Begins the names of cgroup hooks.
pub(crate) const CGROUP_PREFIX: &str = "cgroup-";
const UPLINK_PREFIX: &str = "uplink-";
const XDP_PREFIX: &str = "xdp-";
const TASK_PREFIX: &str = "task-";
const TASK_IN: &str = "-in";
const TASK_OUT: &str = "-out";

/// BPF file systems refuse dots in names, and interfaces refuse colons in theirs.
fn pin_name(interface: &str) -> String {
    interface.replace('.', ":")
}

/// The hooks of an uplink: tc's, which is always used, and XDP's.
pub(crate) fn uplink_hooks(interface: &str) -> [String; 2] {
    let name = pin_name(interface);
    [format!("{UPLINK_PREFIX}{name}"), format!("{XDP_PREFIX}{name}")]
}

/// The interface of an uplink's hook.
pub(crate) fn uplink_interface(hook: &str) -> Option<String> {
    let name = hook.strip_prefix(UPLINK_PREFIX).or_else(|| hook.strip_prefix(XDP_PREFIX))?;
    Some(name.replace(':', "."))
}

/// The hooks of a task's interface: what it sends, and what the host sends to it.
pub(crate) fn task_hooks(interface: &str) -> [String; 2] {
    let name = pin_name(interface);
    [format!("{TASK_PREFIX}{name}{TASK_IN}"), format!("{TASK_PREFIX}{name}{TASK_OUT}")]
}

/// Where a hook is and which program it holds, for people: `None` for the place of node-wide hooks, whose interfaces
/// have no fixed name.
pub fn describe_hook(hook: &str) -> (Option<String>, String) {
    if let Some(program) = hook.strip_prefix(CGROUP_PREFIX) {
        return (Some("cgroup".to_owned()), program.to_owned());
    }
    if let Some(interface) = uplink_interface(hook) {
        let xdp = hook.starts_with(XDP_PREFIX);
        return (Some(interface), if xdp { "uplink_xdp" } else { "uplink" }.to_owned());
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
