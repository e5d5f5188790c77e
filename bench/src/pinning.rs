//! One processor for each end.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The uplink of a test node.
const UPLINK: &str = "eth0";

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
    keep(Pid::from_raw(0), processor)
}

/// Keeps a process of one thread on `processor`.
pub fn pin_process(pid: u32, processor: usize) -> Result<()> {
    keep(Pid::from_raw(pid.try_into().context("no pid")?), processor)
}

fn keep(thread: Pid, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).context("no such processor")?;
    sched_setaffinity(thread, &set).with_context(|| format!("pinning to processor {processor}"))
}

/// Lets a node receive on its own processor, as a machine of its own would: otherwise the sender's processor does the
/// receiver's work too, and acknowledgements that are handled on the other one put the flow's packets out of order.
pub fn receive_on(node: &Path, processor: usize) -> Result<()> {
    let name = node.file_name().with_context(|| format!("{} names no namespace", node.display()))?;
    let set = format!("echo {:x} > /sys/class/net/{UPLINK}/queues/rx-0/rps_cpus", 1u64 << processor);
    // `ip netns exec` mounts the /sys of the namespace.
    let status = Command::new("ip").args(["netns", "exec"]).arg(name).args(["sh", "-c", &set]).status();
    let status = status.context("run ip netns exec")?;
    ensure!(status.success(), "receive packet steering on {}: {status}", name.to_string_lossy());
    Ok(())
}
