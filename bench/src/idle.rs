//! What meshd uses of processor and memory when nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use mesh_tests::{Cluster, TaskSpec};

use crate::record::{Better, Figure, Record, Suite, Who};

/// How long to look.
#[derive(Args)]
pub struct Options {
    /// Seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

impl Options {
    /// Half a minute, or hardly any time.
    pub fn of(quick: bool) -> Self {
        Self { seconds: if quick { 2 } else { 30 } }
    }
}

/// Measures.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let cluster = Cluster::start(3)?;
    cluster[0].ctl(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--subnet",
        "10.10.3.0/24",
        "--attachable",
        "idle",
    ])?;
    cluster.wait_for_view()?;
    let mut tasks = Vec::new();
    for node in cluster.nodes() {
        let name = format!("task-{}", node.name());
        tasks.push(node.run_idle(&TaskSpec { name: &name, network: "idle", ..TaskSpec::default() })?);
    }
    // What starting has stirred up settles.
    std::thread::sleep(Duration::from_secs(5));
    let pids = cluster.nodes().iter().map(mesh_tests::Node::pid).collect::<Result<Vec<u32>>>()?;
    let before = pids.iter().map(|&pid| processor_time(pid)).collect::<Result<Vec<f64>>>()?;
    let length = Duration::from_secs(options.seconds);
    std::thread::sleep(length);
    mesh_tests::interrupt::check()?;
    for ((node, &pid), before) in cluster.nodes().iter().zip(&pids).zip(before) {
        let share = (processor_time(pid)? - before) / length.as_secs_f64() * 100.0;
        for (key, title, unit, value) in [
            ("processor", "of a processor", "%", share),
            ("memory", "resident memory", "MiB", resident(pid)?),
        ] {
            let figure = Figure::new(Suite::Idle, key, title, unit, Better::Lower);
            record.figure(figure).add(Who::ours(&node.name(), &node.name()), value, None);
        }
    }
    Ok(())
}

/// Seconds of processor time that the process has used.
pub fn processor_time(pid: u32) -> Result<f64> {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("meshd ended")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("/proc/PID/stat has too few fields")?;
    Ok((user + system) / TICKS)
}

/// MiB of memory that the process holds.
pub fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("meshd ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kilobytes / 1024.0)
}
