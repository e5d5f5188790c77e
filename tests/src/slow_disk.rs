//! A disk that takes long: strace holds up whoever waits for it.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{Lifetime, Node, Process, wait};

const SOON: Duration = Duration::from_secs(5);

/// Each time that a node's daemon waits for the disk takes long, until this is dropped.
#[derive(Debug)]
pub struct SlowDisk {
    _strace: Process,
}

impl SlowDisk {
    /// From now on `delay` each time.
    pub fn of(node: &Node, delay: Duration) -> Result<Self> {
        let pid = node.pid()?;
        let mut command = Command::new("strace");
        command.args([
            "--follow-forks",
            "--quiet=all",
            "--attach",
            &pid.to_string(),
            "--trace=fsync,fdatasync",
        ]);
        command.arg(format!("--inject=fsync,fdatasync:delay_enter={}", delay.as_micros()));
        let log = node.folder().join("strace");
        let mut strace = Process::start(command, Lifetime::Owner, &log, &node.records())?;
        wait("strace to hold every thread", SOON, || {
            ensure!(strace.ended()?.is_none(), "strace has ended: {}", fs::read_to_string(&log)?);
            for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the daemon's threads")? {
                let status = fs::read_to_string(thread?.path().join("status"))?;
                ensure!(!status.contains("TracerPid:\t0\n"), "not yet: {status}");
            }
            Ok(())
        })?;
        Ok(Self { _strace: strace })
    }
}
