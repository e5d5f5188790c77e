//! Child processes: those that run and end, and those that live until they are dropped.

use std::{
    io::Read as _,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::interrupt;

/// How long a process gets to end in order before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Runs `command`; what it says is part of the error.
pub fn succeed(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// What `command` prints; what it says when it fails is part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    interrupt::check()?;
    output_always(command)
}

/// As [`output`], after Ctrl-C too: for cleaning up.
pub(crate) fn output_always(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        bail!("`{}`: {}: {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `count` lines of a file; empty when there is none.
pub fn lines_of(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// How long a [`Process`] lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is dropped, or the process that started it ends in whatever way.
    Owner,
    /// Until it is dropped; it survives the end of the process that started it, and the terminal's Ctrl-C.
    Detached,
}

/// A process that is ended on drop.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    record: PathBuf,
    keep: bool,
}

impl Process {
    /// Starts `command`. Its output goes to `log`; its pid is kept under `records`, for [`crate::remove_all`].
    pub fn start(mut command: Command, lifetime: Lifetime, log: &Path, records: &Path) -> Result<Self> {
        let what = line(&command);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("a second handle of the log")?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        match lifetime {
            Lifetime::Owner => {
                let parent = Pid::this();
                let die_with_owner = move || {
                    prctl::set_pdeathsig(Signal::SIGKILL)?;
                    // The owner may have ended before the line above.
                    if nix::unistd::getppid() == parent {
                        Ok(())
                    } else {
                        Err(nix::errno::Errno::ESRCH.into())
                    }
                };
                // SAFETY: the closure makes only system calls, allocates nothing and takes no lock.
                unsafe { command.pre_exec(die_with_owner) };
            }
            Lifetime::Detached => {
                command.process_group(0);
            }
        }
        let child = command.spawn().with_context(|| format!("cannot run {what}"))?;
        let record = records.join(child.id().to_string());
        let process = Self { what, child, record, keep: false };
        std::fs::write(&process.record, start_time(process.pid()).unwrap_or_default())
            .with_context(|| format!("cannot write {}", process.record.display()))?;
        Ok(process)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Leaves it running on drop.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.what))
    }

    /// Sends a signal; a process that has ended is no error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        kill(pid(self.pid())?, signal).with_context(|| format!("{signal} to {}", self.what))
    }

    /// Waits for its end.
    pub fn wait(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("`{}` does not end within {at_most:?}", self.what);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it in order (SIGTERM) and waits for that.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(GRACE)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(GRACE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.stop().or_else(|_| self.kill()) {
            eprintln!("{error:#}");
        }
        // The record may be gone with its folder.
        let _ = std::fs::remove_file(&self.record);
    }
}

pub(crate) fn pid(number: u32) -> Result<Pid> {
    i32::try_from(number).map(Pid::from_raw).with_context(|| format!("{number} is no pid"))
}

/// When the process started, in ticks since boot; tells one use of a pid from the next. None when it has ended, also
/// when nobody has waited for it yet.
pub(crate) fn start_time(pid: u32) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(format!("/proc/{pid}/stat")).ok()?.read_to_string(&mut text).ok()?;
    // The name in parentheses may hold anything; the fields after it are counted from the third.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" { None } else { fields.nth(18).map(str::to_owned) }
}
