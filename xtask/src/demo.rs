//! The main job, shown.

use anyhow::{Result, bail};
use clap::Args;
use mesh_tests::Prefix;

use crate::{command, progress};

/// How to show it.
#[derive(Args)]
pub struct Options {
    /// Leave the cluster up and print commands to play with it.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove what an earlier demo left, and do nothing else.
    #[arg(long)]
    down: bool,
}

/// Shows the main job.
pub fn run(options: &Options) -> Result<()> {
    command::need_root("demo")?;
    let prefix = Prefix::fixed("demo");
    progress::step("removing what earlier demos left", || mesh_tests::remove_all(&prefix))?;
    if options.down {
        return Ok(());
    }
    bail!("not there yet (keep: {})", options.keep);
}
