//! Ways to say which network namespace is meant.

use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result};

use crate::failure::Failure;

/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/var/run/netns";

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// That of a process, with which the task ends.
    Pid(u32),
    /// The one that a file stands for.
    Path(PathBuf),
}

/// A number is a pid, a text with a slash a path, anything else a name under `/var/run/netns`. It has to be there.
pub fn find(text: &str) -> Result<Namespace> {
    if let Ok(pid) = text.parse::<u32>() {
        if pid == 0 || !Path::new(&format!("/proc/{pid}")).exists() {
            return Err(Failure::Namespace(format!("no process has the pid {pid}")).into());
        }
        return Ok(Namespace::Pid(pid));
    }
    let path = path(text)?;
    if !path.exists() {
        return Err(Failure::Namespace(path.display().to_string()).into());
    }
    Ok(Namespace::Path(path))
}

/// The absolute path that a path or a name means. Links before the last part are resolved, so that attach and detach
/// name the same file; the last part stays, since in /proc it is a link to no path.
pub fn path(text: &str) -> Result<PathBuf> {
    let given = if text.contains('/') { PathBuf::from(text) } else { Path::new(NAMED).join(text) };
    let whole = absolute(&given).with_context(|| format!("{} is no path", given.display()))?;
    let (Some(folder), Some(file)) = (whole.parent(), whole.file_name()) else { return Ok(whole) };
    Ok(folder.canonicalize().map_or_else(|_| whole.clone(), |folder| folder.join(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let own = std::process::id();
        assert_eq!(find(&own.to_string()).unwrap(), Namespace::Pid(own));
        let by_path = format!("/proc/{own}/ns/net");
        assert_eq!(find(&by_path).unwrap(), Namespace::Path(by_path.into()));
        assert!(path("red").unwrap().ends_with("netns/red"));
        assert!(path("a/b").unwrap().is_absolute());
    }

    #[test]
    fn what_is_not_there_is_named() {
        for text in ["0", "4294967295", "no-such-namespace", "/no/such/namespace"] {
            assert!(format!("{:#}", find(text).unwrap_err()).contains(text), "{text}");
        }
    }
}
