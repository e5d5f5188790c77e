//! The programs without their counters of tasks and services, which only this bench builds; and the usual ones, loaded in the
//! same way with the same maps.

use std::{
    env, fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use aya::programs::SchedClassifier;

use super::{bpf::Program, object};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object with the toolchain that `dataplane/lb/build.rs` takes.
pub fn build() -> Result<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository's folder")?;
    let target = root.join("target/bench/uncounted");
    let distribution = Path::new("/usr/bin/cargo").exists() && Path::new("/usr/bin/rustc").exists();
    let mut cargo = Command::new(if distribution { "/usr/bin/cargo" } else { "rustup" });
    if !distribution {
        cargo.args(["run", "nightly", "cargo"]);
    }
    // What this bench's own cargo has set is for its compiler.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO") && text != "CARGO_HOME")
            || (text.starts_with("RUST") && text != "RUSTUP_HOME")
        {
            cargo.env_remove(&name);
        }
    }
    if distribution {
        cargo.env("RUSTC", "/usr/bin/rustc");
    }
    let built = cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", path_with_linker()?)
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(root.join("ebpf/programs"))
        .args(["build", "--quiet", "--locked", "--release", "--features", "uncounted"])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "the programs without counters do not compile: {said}");
    let file = target.join(TARGET).join("release/mesh-ebpf");
    fs::read(&file).with_context(|| file.display().to_string())
}

/// `PATH` with cargo's folder of programs, where bpf-linker is.
fn path_with_linker() -> Result<std::ffi::OsString> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo"))).context("no home folder")?;
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(env::split_paths(&path).chain([home.join("bin")])).context("PATH")
}

/// Loads a tc program of an object with the maps pinned below `pins`, the folder of a running daemon.
pub fn load(object: &[u8], pins: &Path, name: &str) -> Result<Program> {
    let mut ebpf = object::with_maps(pins, object)?;
    let program = ebpf.program_mut(name).with_context(|| format!("there is no program {name}"))?;
    let program: &mut SchedClassifier =
        program.try_into().with_context(|| format!("{name} is no tc program"))?;
    program.load().with_context(|| format!("loading {name}"))?;
    let fd = program.fd().with_context(|| format!("loading {name}"))?.as_fd().try_clone_to_owned();
    Ok(Program::from(fd.context("a program's descriptor")?))
}
