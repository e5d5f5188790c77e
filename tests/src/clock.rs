//! A node whose time of day is wrong, and jumps while its daemon runs.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{node::Node, process::succeed};

/// Stands before the C library's calls; see there.
const SOURCE: &str = include_str!("clock.c");

/// The time of day that a node's daemon sees, and what it starts. Other clocks are the machine's. Linux has one time of day for
/// all namespaces, so a library stands between the daemon and it.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// A clock that is right, for a daemon that has not been started yet.
    pub fn of(node: &Node) -> Result<Self> {
        let folder = node.folder();
        let (source, library, offset) =
            (folder.join("clock.c"), folder.join("clock.so"), folder.join("clock"));
        fs::write(&source, SOURCE).with_context(|| source.display().to_string())?;
        let mut compile = Command::new("cc");
        succeed(compile.args(["-O1", "-fPIC", "-shared", "-o"]).arg(&library).arg(&source))?;
        fs::write(&offset, 0i64.to_ne_bytes()).with_context(|| offset.display().to_string())?;
        Ok(Self { library, offset })
    }

    /// Starts the node's daemon by this clock and waits until it answers.
    pub fn start(&self, node: &Node) -> Result<()> {
        let mut daemon = node.meshd()?;
        daemon.env("LD_PRELOAD", &self.library).env("CLOCK_FILE", &self.offset);
        node.start_as(daemon)
    }

    /// Sets the clock ahead of the machine's, from this moment on.
    pub fn ahead(&self, by: Duration) -> Result<()> {
        self.set(i64::try_from(by.as_secs()).context("such a clock")?)
    }

    /// Sets the clock behind the machine's, from this moment on.
    pub fn behind(&self, by: Duration) -> Result<()> {
        self.set(-i64::try_from(by.as_secs()).context("such a clock")?)
    }

    /// Sets the clock right.
    pub fn right(&self) -> Result<()> {
        self.set(0)
    }

    fn set(&self, offset: i64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.offset);
        let written = file.and_then(|file| file.write_all_at(&offset.to_ne_bytes(), 0));
        written.with_context(|| self.offset.display().to_string())
    }
}
