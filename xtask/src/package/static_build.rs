//! Programs that need nothing of the system that they run on: linked with musl.
//!
//! With rustup's standard library for musl where it is installed; else with Debian's compiler, which also builds the eBPF
//! programs and brings the standard library's source.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::contents::PROGRAMS;
use crate::command::{self, output, workspace};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// For this target alone: the eBPF programs, which a build script builds, have flags of their own.
const FLAGS: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS";

/// Builds the programs; the folder that they are in.
pub fn run(debug: bool) -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "static programs are made on x86_64 only; `cargo xtask package --only deb` makes the Debian package"
        );
    }
    let mut cargo = compiler()?;
    cargo.args(["--locked", "--target", TARGET]);
    if !debug {
        cargo.arg("--release");
    }
    for name in PROGRAMS {
        cargo.args(["-p", name]);
    }
    command::run(cargo.current_dir(workspace())).context("building static programs")?;
    Ok(folder().join(TARGET).join(if debug { "debug" } else { "release" }))
}

/// Its own, so that the other builds' dependencies stay as they are.
fn folder() -> PathBuf {
    workspace().join("target/static")
}

fn compiler() -> Result<Command> {
    let installed =
        output(Command::new("rustup").args(["target", "list", "--installed"])).unwrap_or_default();
    let mut cargo = if installed.lines().any(|line| line == TARGET) {
        let mut cargo = command::cargo("build");
        cargo.env(FLAGS, "-C target-feature=+crt-static");
        cargo
    } else if Path::new("/usr/lib/rustlib/src/rust/library/std").exists() {
        debians()?
    } else {
        bail!(
            "no standard library for musl: `rustup target add {TARGET}`, or `apt-get install rustc-web cargo-web rust-web-src`"
        );
    };
    // C of dependencies, such as cryptography.
    cargo.env("CC_x86_64_unknown_linux_musl", "musl-gcc").env("CARGO_TARGET_DIR", folder());
    Ok(cargo)
}

/// Debian's compiler, which builds the standard library along.
fn debians() -> Result<Command> {
    let libraries = unwinder()?;
    let mut cargo = Command::new("/usr/bin/cargo");
    // musl-gcc brings the start files; it cannot link static programs that may be loaded anywhere.
    let flags = format!(
        "-C link-self-contained=no -C target-feature=+crt-static -C relocation-model=static -L native={}",
        libraries.display()
    );
    cargo.arg("build").args(["-Z", "build-std=std,panic_unwind"]);
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env(FLAGS, flags);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER", "musl-gcc");
    // What started this chore was another cargo's compiler.
    cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    Ok(cargo)
}

/// A folder with `libunwind.a`, which Rust's standard library asks for: GCC's, and what it lacks with musl.
fn unwinder() -> Result<PathBuf> {
    let libraries = folder().join("unwinder");
    super::empty(&libraries)?;
    let gcc = output(Command::new("gcc").arg("-print-file-name=libgcc_eh.a")).context("gcc is not there")?;
    let (library, object) = (libraries.join("libunwind.a"), libraries.join("find_object.o"));
    std::fs::copy(gcc.trim(), &library).with_context(|| gcc.trim().to_owned())?;
    let source = workspace().join("packaging/static/find_object.c");
    command::run(
        Command::new("musl-gcc").args(["-O2", "-Wall", "-Werror", "-c"]).arg(source).arg("-o").arg(&object),
    )?;
    command::run(Command::new("ar").arg("r").arg(&library).arg(&object).stderr(std::process::Stdio::null()))?;
    Ok(libraries)
}
