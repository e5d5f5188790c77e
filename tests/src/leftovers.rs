//! Names of what a run makes on this machine, and the removal of what an earlier run left.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};

use crate::{
    cgroup,
    process::{pid, start_time, succeed},
    wait::wait,
};

const FOLDER: &str = "/run/meshd-tests";
const BPFFS: &str = "/sys/fs/bpf";

/// What the names of a run's namespaces, folders and pins begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// One that no other test uses: `mt`, this process and a count.
    pub fn unique() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("mt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A fixed one, of letters.
    pub fn fixed(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The folder for states, sockets and logs.
    pub fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0)
    }

    /// The namespace of `role`.
    pub fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.0)
    }

    /// The bpffs folder of `role`.
    pub fn bpf(&self, role: &str) -> PathBuf {
        Path::new(BPFFS).join(self.namespace(role))
    }

    /// The process that made it, for a unique one.
    fn owner(&self) -> Option<u32> {
        self.0.strip_prefix("mt")?.split('-').next()?.parse().ok()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Removes what runs left whose process is gone without having cleaned up.
pub(crate) fn sweep() -> Result<()> {
    let owners = names(Path::new(FOLDER)).into_iter().map(Prefix);
    for prefix in owners.filter(|prefix| prefix.owner().is_some_and(|owner| start_time(owner).is_none())) {
        remove_all(&prefix)?;
    }
    Ok(())
}

/// Ends the processes and removes the namespaces, pins and folders of `prefix`, whoever made them.
pub fn remove_all(prefix: &Prefix) -> Result<()> {
    let folder = prefix.folder();
    let records = folder.join("pids");
    for record in names(&records) {
        let Ok(number) = record.parse::<u32>() else { continue };
        let started = std::fs::read_to_string(records.join(&record)).ok();
        if started.is_some() && started == start_time(number) {
            end(number)?;
        }
    }
    let ours = format!("{prefix}-");
    for name in names(Path::new("/run/netns")).into_iter().filter(|name| name.starts_with(&ours)) {
        succeed(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    for name in names(Path::new(BPFFS)).into_iter().filter(|name| name.starts_with(&ours)) {
        remove_folder(&Path::new(BPFFS).join(name))?;
    }
    cgroup::remove_all(&ours)?;
    remove_folder(&folder)
}

/// Ends a process that need not be our child.
fn end(number: u32) -> Result<()> {
    let gone = || {
        anyhow::ensure!(start_time(number).is_none(), "process {number} is still there");
        Ok(())
    };
    // It may end by itself meanwhile.
    let _ = kill(pid(number)?, Signal::SIGTERM);
    if wait("a process to end", Duration::from_secs(5), gone).is_err() {
        let _ = kill(pid(number)?, Signal::SIGKILL);
        wait("a killed process to end", Duration::from_secs(5), gone)?;
    }
    Ok(())
}

/// Removes a folder with all in it; none there is no error.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The names in a folder, in order; none when there is no such folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
