//! Checks that change nothing: formatting, lints, documentation, licences.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    command::{self, cargo, output, workspace},
    licences,
};

type Check = fn() -> Result<()>;

/// Runs all checks, and at the end says which failed.
pub fn run() -> Result<()> {
    let checks: [(&str, Check); 6] = [
        ("formatting", formatting),
        ("formatting of the eBPF programs", ebpf_formatting),
        ("lints", lints),
        ("lints of the eBPF programs", ebpf_lints),
        ("documentation", documentation),
        ("licences and advisories", dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        eprintln!("check: {name}");
        if let Err(error) = check() {
            eprintln!("check: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("all checks passed");
    Ok(())
}

fn formatting() -> Result<()> {
    command::run(cargo("fmt").args(["--all", "--check"]))
}

fn ebpf_formatting() -> Result<()> {
    command::run(ebpf("fmt").args(["--", "--check"]))
}

fn lints() -> Result<()> {
    command::run(cargo("clippy").args(["--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// For the host's target, since clippy of the BPF target needs the standard library's source for its own compiler.
fn ebpf_lints() -> Result<()> {
    command::run(ebpf("clippy").args(["--locked", "--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    let mut doc = cargo("doc");
    command::run(doc.args(["--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn dependencies() -> Result<()> {
    if output(Command::new("cargo-deny").arg("--version")).is_none() {
        eprintln!("check: cargo-deny is not installed; looking at licences only, not at advisories");
        return licences::check();
    }
    command::run(cargo("deny").args(["--locked", "check", "licenses", "bans", "sources"]))?;
    // The advisories' database is of no use when it is old, so it may be fetched; without a network it is left out.
    let fetched = command::run(cargo("deny").args(["fetch", "db"]));
    if fetched.is_err() {
        eprintln!("check: no advisory database without a network; left out");
        return Ok(());
    }
    command::run(cargo("deny").args(["--locked", "check", "--disable-fetch", "advisories"]))
}

fn ebpf(subcommand: &str) -> Command {
    let mut command = cargo(subcommand);
    command.current_dir(workspace().join("ebpf/programs"));
    command
}
