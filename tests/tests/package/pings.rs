//! Packets all the time, each of which is asked for again.

use std::{collections::BTreeSet, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lifetime, Process, Task, wait};
use nix::sys::signal::Signal;

/// A stream of pings, a hundred in a second. Ended on drop.
pub struct Pings {
    process: Process,
    log: PathBuf,
}

impl Pings {
    /// From a task to an address.
    pub fn start(from: &Task, to: Ipv4Addr) -> Result<Self> {
        let log = from.folder().join("pings");
        let mut command = from.command("ping")?;
        command.args(["-n", "-i", "0.01", &to.to_string()]);
        let records = from.node_folder().with_file_name("pids");
        let process = Process::start(command, Lifetime::Owner, &log, &records)?;
        let pings = Self { process, log };
        pings.wait_for(1)?;
        Ok(pings)
    }

    /// How many were never answered, of those up to the last that was; a hundred more are sent first.
    pub fn lost(mut self) -> Result<usize> {
        let last = self.answered()?.last().copied().context("no ping was answered")?;
        self.wait_for(last + 100)?;
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(10))?;
        let answered = self.answered()?;
        let last = answered.last().copied().context("no ping was answered")?;
        Ok(usize::try_from(last)? - answered.len())
    }

    fn wait_for(&self, number: u32) -> Result<()> {
        wait("pings to be answered", Duration::from_secs(20), || {
            ensure!(self.answered()?.last().is_some_and(|last| *last >= number), "not yet");
            Ok(())
        })
    }

    /// The numbers of those that were, from 1.
    fn answered(&self) -> Result<BTreeSet<u32>> {
        let text = std::fs::read_to_string(&self.log).context("what ping says")?;
        let numbers =
            text.lines().filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok());
        Ok(numbers.collect())
    }
}
