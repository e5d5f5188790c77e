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
    /// TCP throughput and round trips over the overlay, beside the underlay and a Linux bridge with VXLAN.
    Overlay,
    /// How soon a new task is reached and an ended one no more.
    Attach,
    /// What meshd uses of processor and memory when nothing happens.
    Idle,
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<()> {
    command::need_root("bench")?;
    setup::run_quietly()?;
    compile::packages(&["meshd", "meshctl", "mesh-bench"], true)?;
    let what = match options.what {
        What::Overlay => "overlay",
        What::Attach => "attach",
        What::Idle => "idle",
    };
    let program = command::workspace().join("target/release/mesh-bench");
    command::run(Command::new(program).arg(what).args(&options.rest))
}
