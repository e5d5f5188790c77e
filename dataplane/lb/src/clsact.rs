//! tc filters on the `clsact` queueing discipline: for the links of tasks, which come and go, and for kernels without links
//! for tc (before 6.6).
//!
//! A filter stays when its maker exits. Its mark is an empty folder beside the links' pins, named `<hook>@<ifindex>`,
//! so that a later daemon knows what to replace or remove.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    Link, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use crate::{
    error::Error,
    pins::{file, list},
};

/// Priority of our filters among others' on the same interface; the first, since we answer for few packets only.
const PRIORITY: u16 = 1;
/// `mesh` has no other filters at that priority.
const HANDLE: TcHandle = TcHandle::new(0, 0x6d65);

/// Attaches `program`, or replaces the one that this hook has.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    ifindex: u32,
    direction: TcAttachType,
    marks: &Path,
    hook: &str,
) -> Result<(), Error> {
    let refused = |source| Error::Attach { what: hook.to_owned(), target: interface.to_owned(), source };
    match tc::qdisc_add_clsact(interface) {
        // There already; or a qdisc of another kind is, which the next step finds.
        Err(e) if os_error(&e) == Some(libc::EEXIST) => {}
        other => other.map_err(|e| refused(io::Error::other(e)))?,
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let link = match program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options)) {
        Err(ProgramError::TcError(e)) if os_error(&e) == Some(libc::EEXIST) => {
            let old = SchedClassifierLink::attached(interface, direction, PRIORITY, HANDLE, None);
            program.attach_to_link(old.map_err(refused)?)
        }
        other => other,
    };
    let link = link.and_then(|id| program.take_link(id)).map_err(|e| refused(io::Error::other(e)))?;
    // Dropping it would detach the filter, which is to outlive this process.
    std::mem::forget(link);
    let mark = mark(marks, hook, direction, ifindex);
    match fs::create_dir(&mark) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(file("create", &mark)(e)),
        // What was on an earlier interface of this hook is no more of use.
        _ => {
            marks_of(marks, hook)?.iter().filter(|other| **other != mark).try_for_each(|other| detach(other))
        }
    }
}

/// Removes the filter that a mark stands for, and the mark.
pub(crate) fn detach(mark: &Path) -> Result<(), Error> {
    if let Some((ifindex, direction)) = parse(mark)
        && let Ok(interface) = nix::net::if_::if_indextoname(ifindex)
    {
        let interface = interface.to_string_lossy();
        let link = SchedClassifierLink::attached(&interface, direction, PRIORITY, HANDLE, None);
        let detached = link.map_err(io::Error::other).and_then(|l| l.detach().map_err(io::Error::other));
        if let Err(error) = detached {
            tracing::debug!(%interface, %error, "no filter to remove");
        }
    }
    fs::remove_dir(mark).map_err(file("remove", mark))
}

/// The marks of a hook, on whatever interface.
pub(crate) fn marks_of(marks: &Path, hook: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = list(marks)?;
    found.retain(|mark| hook_of(mark) == Some(hook));
    Ok(found)
}

/// The hook that a mark is of.
pub(crate) fn hook_of(mark: &Path) -> Option<&str> {
    mark.file_name()?.to_str()?.split_once('@').map(|(hook, _)| hook)
}

/// Gives the marks of a hook on an interface to another hook.
pub(crate) fn rename(marks: &Path, before: &str, hook: &str, ifindex: u32) -> Result<(), Error> {
    for old in marks_of(marks, before)? {
        if let Some((at, direction)) = parse(&old)
            && at == ifindex
        {
            fs::rename(&old, mark(marks, hook, direction, ifindex)).map_err(file("rename", &old))?;
        }
    }
    Ok(())
}

fn mark(marks: &Path, hook: &str, direction: TcAttachType, ifindex: u32) -> PathBuf {
    let direction = if matches!(direction, TcAttachType::Ingress) { "in" } else { "out" };
    marks.join(format!("{hook}@{ifindex}-{direction}"))
}

fn parse(mark: &Path) -> Option<(u32, TcAttachType)> {
    let (_, place) = mark.file_name()?.to_str()?.split_once('@')?;
    let (ifindex, direction) = place.split_once('-')?;
    let direction = if direction == "in" { TcAttachType::Ingress } else { TcAttachType::Egress };
    Some((ifindex.parse().ok()?, direction))
}

fn os_error(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(e) => e.raw_os_error(),
        TcError::IoError(e) => e.raw_os_error(),
        _ => None,
    }
}
