//! Building the binaries that tests, demo and benches run.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

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

/// Builds the named test targets of `package`; the programs, in the same order.
pub fn tests(package: &str, targets: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = command::cargo("test");
    cargo.args(["--locked", "--no-run", "--message-format=json-render-diagnostics", "-p", package]);
    for target in targets {
        cargo.args(["--test", target]);
    }
    let built = cargo.stderr(Stdio::inherit()).output();
    let built = built.with_context(|| format!("cannot run {}", command::line(&cargo)))?;
    if !built.status.success() {
        bail!("`{}` failed: {}", command::line(&cargo), built.status);
    }
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |target: &&str| {
        let mut of_target = messages.iter().filter(|message| message["target"]["name"] == **target);
        let program = of_target.find_map(|message| message["executable"].as_str());
        program.map(PathBuf::from).with_context(|| format!("cargo has built no test {target}"))
    };
    targets.iter().map(program).collect()
}
