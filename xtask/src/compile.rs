//! Building the binaries that tests, demo and benches run.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;

/// Builds meshd, meshctl and mesh-cni.
pub fn binaries(release: bool) -> Result<()> {
    packages(&["meshd", "meshctl", "mesh-cni"], release)
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

/// Builds the test target `target` of `package`; the program.
pub fn test(package: &str, target: &str) -> Result<PathBuf> {
    let mut cargo = command::cargo("test");
    cargo.args(["--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(["-p", package, "--test", target]);
    let built = cargo.stderr(Stdio::inherit()).output();
    let built = built.with_context(|| format!("cannot run {}", command::line(&cargo)))?;
    if !built.status.success() {
        bail!("`{}` failed: {}", command::line(&cargo), built.status);
    }
    let text = String::from_utf8_lossy(&built.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages
        .filter(|message| message["target"]["name"] == *target)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next().with_context(|| format!("cargo has built no test {target} of {package}"))
}
