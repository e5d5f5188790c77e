//! Named network namespaces that are removed on drop.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::process::{output_always, succeed};

/// A network namespace under `/run/netns`, deleted on drop.
///
/// Programs enter by `setns` alone: `ip netns exec` would also put another `/sys` over cgroups and bpffs.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    keep: bool,
}

impl NetNs {
    /// Makes the namespace; its loopback is up.
    pub fn create(name: &str) -> Result<Self> {
        succeed(Command::new("ip").args(["netns", "add", name]))?;
        let ns = Self { name: name.to_owned(), keep: false };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Leaves the namespace in place on drop.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// What tells it from every other namespace.
    pub fn inode(&self) -> Result<u64> {
        let path = self.path();
        Ok(std::fs::metadata(&path).with_context(|| path.display().to_string())?.ino())
    }

    /// A command that runs `program` inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        Self::command_at(&self.path(), program)
    }

    /// A command that runs `program` in the network namespace that the file at `path` stands for.
    pub fn command_at(path: &Path, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        enter(&mut command, vec![(open(path)?, CloneFlags::CLONE_NEWNET)]);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs iproute2 commands inside, one a line, without the word `ip`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        let mut child = ip
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run ip")?;
        let mut stdin = child.stdin.take().context("ip has no standard input")?;
        stdin.write_all(format!("{lines}\n").as_bytes()).context("talking to ip")?;
        drop(stdin);
        let output = child.wait_with_output().context("waiting for ip")?;
        if !output.status.success() {
            bail!("ip in {}: {}: {lines}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Runs `work` on a thread inside; sockets that it makes stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Self::run_at(&self.path(), work)
    }

    /// As [`NetNs::run`], in the network namespace that the file at `path` stands for.
    pub fn run_at<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = open(path)?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || -> Result<T> {
                setns(&file, CloneFlags::CLONE_NEWNET).context("setns")?;
                Ok(work())
            });
            thread.join().map_err(|_| anyhow!("the work inside {} panicked", path.display()))?
        })
    }
}

pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = output_always(Command::new("ip").args(["netns", "delete", &self.name]))
        {
            eprintln!("{error:#}");
        }
    }
}

/// Makes `command` enter the namespaces, in their order, before it runs its program.
pub(crate) fn enter(command: &mut Command, namespaces: Vec<(File, CloneFlags)>) {
    let enter = move || {
        for (file, kind) in &namespaces {
            setns(file, *kind)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::output;

    #[test]
    fn is_entered_and_removed() {
        let name = format!("mt{}-unit", std::process::id());
        let ns = NetNs::create(&name).unwrap();
        let links = output(ns.command("ip").unwrap().args(["-o", "link"])).unwrap();
        assert_eq!(links.lines().count(), 1, "{links}");
        let inside = ns.run(|| std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()).unwrap();
        assert_eq!(inside, ns.inode().unwrap());
        let path = ns.path();
        assert!(ns.ip("link set nothing up").is_err());
        drop(ns);
        assert!(!path.exists());
    }
}
