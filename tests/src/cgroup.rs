//! Places of one's own in the machine's tree of cgroups (v2).

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{leftovers::names, process::output_always, wait::wait};

/// A folder of the tree. Removed on drop, when what was in it has ended.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// One that is not there yet.
    pub fn make(name: &str) -> Result<Self> {
        let path = tree()?.context("cgroup v2 is not mounted")?.join(name);
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Removes those that a run left whose names begin so.
pub fn remove_all(beginning: &str) -> Result<()> {
    let Some(tree) = tree()? else { return Ok(()) };
    let ours = names(&tree).into_iter().filter(|name| name.starts_with(beginning));
    ours.map(|name| tree.join(name)).try_for_each(|path| remove(&path))
}

/// With those below it; processes that are still in one may be about to end.
fn remove(path: &Path) -> Result<()> {
    let mut remove = Command::new("find");
    remove.arg(path).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]);
    wait("a cgroup to be empty", Duration::from_secs(10), || output_always(&mut remove).map(drop))
}

/// Where the tree is mounted, if it is.
fn tree() -> Result<Option<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("what is mounted")?;
    let mut places = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(places.find(|words| words.get(2) == Some(&"cgroup2")).map(|words| PathBuf::from(words[1])))
}
