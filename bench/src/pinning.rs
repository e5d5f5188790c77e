//! One processor for each end.

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The processors for client and server: different ones where there are two.
#[derive(Debug, Clone, Copy)]
pub struct Processors {
    /// For the client.
    pub client: usize,
    /// For the server.
    pub server: usize,
}

impl Processors {
    /// The first two of those that this process may use.
    pub fn pick() -> Result<Self> {
        let ours = sched_getaffinity(Pid::from_raw(0)).context("this process's processors")?;
        let mut free = (0..CpuSet::count()).filter(|&cpu| ours.is_set(cpu).unwrap_or(false));
        let client = free.next().context("no processor")?;
        Ok(Self { client, server: free.next().unwrap_or(client) })
    }
}

/// Keeps the calling thread on `processor`.
pub fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).context("no such processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pinning to processor {processor}"))
}
