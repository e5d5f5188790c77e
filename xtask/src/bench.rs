//! Measuring: builds what is measured with optimizations and hands over to the bench program.

use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{command, compile, setup};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// What to measure.
    what: What,
    /// Passed on, such as `--rounds 5`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The data path beside its peers; `programs`, `overlay` and `published` behind it choose parts.
    Datapath,
    /// The part of `datapath` between tasks of two nodes.
    Overlay,
    /// Names asked from inside a task, beside Docker's embedded DNS and dnsmasq.
    Dns,
    /// In virtual time: how soon all nodes know a change, beside networkdb's figures, and by the size of the cluster; the
    /// plots of docs/img. Takes no root.
    Gossip,
    /// How soon a new task is reached and an ended one no more.
    Attach,
    /// Containers, one at a time and 200 at once: the CNI plugin beside Debian's bridge plugin, Docker's on the mesh beside its
    /// own bridge; `plugins` and `docker` behind it choose parts.
    Cni,
    /// What meshd uses of processor and memory when nothing happens.
    Idle,
    /// Changes a second with 1, 3 and 5 managers, time to a new leader and to all agents, what a large state costs.
    Control,
    /// How many requests fail when tasks are replaced or killed, and when a node is lost.
    Loss,
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<()> {
    if matches!(options.what, What::Gossip) {
        return gossip(&options.rest);
    }
    command::need_root("bench")?;
    setup::run_quietly()?;
    compile::packages(&["meshd", "meshctl", "mesh-cni", "mesh-bench"], true)?;
    let what = match options.what {
        What::Datapath => &["datapath"] as &[&str],
        What::Overlay => &["datapath", "overlay"],
        What::Dns => &["dns"],
        What::Attach => &["attach"],
        What::Cni => &["cni"],
        What::Idle => &["idle"],
        What::Control => &["control"],
        What::Loss => &["loss"],
        What::Gossip => &[],
    };
    let program = command::workspace().join("target/release/mesh-bench");
    command::run(Command::new(program).args(what).args(&options.rest))
}

fn gossip(rest: &[String]) -> Result<()> {
    compile::packages(&["mesh-gossip-simulation"], true)?;
    let program = command::workspace().join("target/release/mesh-gossip-simulation");
    command::run(Command::new(program).current_dir(command::workspace()).arg("bench").args(rest))
}
