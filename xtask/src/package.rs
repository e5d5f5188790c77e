//! What people install: a Debian package, and an archive of static binaries for other distributions.

mod archive;
mod contents;
mod deb;
mod needs;
mod static_build;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::contents::Programs;
use crate::{
    command::{output, workspace},
    compile, setup,
};

/// What is made, and of what.
#[derive(Args)]
pub struct Options {
    /// Of binaries without optimizations, quickly: for tests.
    #[arg(long)]
    debug: bool,
    /// Make only this.
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// Where to [default: target/package].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Version of the package [default: the workspace's].
    #[arg(long)]
    version: Option<String>,
    /// Take the binaries in this folder, whatever they are linked with, instead of building them.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The Debian package.
    Deb,
    /// The archive for other distributions.
    Tarball,
}

/// What both kinds are told.
struct Making {
    out: PathBuf,
    version: String,
    /// Rather quick to make than small.
    quick: bool,
    /// When the last commit was made, for every file's time: the same commit makes the same files.
    epoch: String,
}

/// Makes the packages and prints their paths.
pub fn run(options: &Options) -> Result<()> {
    let making = Making {
        out: options.out.clone().unwrap_or_else(|| workspace().join("target/package")),
        version: options.version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        quick: options.debug,
        epoch: epoch(),
    };
    std::fs::create_dir_all(&making.out).with_context(|| making.out.display().to_string())?;
    if options.binaries.is_none() {
        setup::run_quietly()?;
    }
    for kind in [Kind::Deb, Kind::Tarball] {
        if options.only.is_some_and(|only| only != kind) {
            continue;
        }
        let folder = match (&options.binaries, kind) {
            (Some(folder), _) => folder.clone(),
            (None, Kind::Deb) => built(options.debug)?,
            (None, Kind::Tarball) => static_build::run(options.debug)?,
        };
        let programs = Programs::of(&folder)?;
        let made = match kind {
            Kind::Deb => deb::make(&making, &programs)?,
            Kind::Tarball => archive::make(&making, &programs)?,
        };
        println!("{}", made.display());
    }
    Ok(())
}

fn built(debug: bool) -> Result<PathBuf> {
    compile::packages(&contents::PROGRAMS, !debug)?;
    Ok(workspace().join("target").join(if debug { "debug" } else { "release" }))
}

fn epoch() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let commit = || output(Command::new("git").current_dir(workspace()).args(["log", "-1", "--format=%ct"]));
    given.or_else(commit).map_or_else(|| "0".to_owned(), |text| text.trim().to_owned())
}

/// Removes a folder that an earlier run left, and makes it anew.
fn empty(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", folder.display())
        }
        _ => std::fs::create_dir_all(folder).with_context(|| folder.display().to_string()),
    }
}
