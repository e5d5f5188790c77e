//! Building the binaries that tests, demo and benches run.

use anyhow::{Context, Result};

use crate::command;

/// Builds meshd and meshctl.
pub fn binaries(release: bool) -> Result<()> {
    packages(&["meshd", "meshctl"], release)
}

/// Builds the named packages.
pub fn packages(names: &[&str], release: bool) -> Result<()> {
    let mut cargo = command::cargo("build");
    cargo.arg("--locked");
    for name in names {
        cargo.args(["-p", name]);
    }
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo).context("building; `cargo xtask setup` installs what is missing")
}
