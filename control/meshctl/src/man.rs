//! `meshctl man`: for those who package meshd.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::CommandFactory;

use crate::cli::Cli;

/// Write the manual pages of all verbs into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl man /usr/local/share/man/man1")]
pub struct Args {
    /// Folder, which is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Needs no daemon.
pub fn run(args: &Args) -> Result<()> {
    let what = || format!("cannot write manual pages into {}", args.folder.display());
    fs::create_dir_all(&args.folder).with_context(what)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).with_context(what)
}
