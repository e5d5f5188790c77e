//! What building and testing need, and how to get it on Debian.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::command::{self, is_root, line, output};

/// Programs that the build, the tests, the demo and the benches call.
const TOOLS: &[&str] = &[
    "bind9-dnsutils",
    "busybox-static",
    "chromium",
    "chromium-driver",
    "clang-22",
    "cmake",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dbus-daemon",
    "debootstrap",
    "dnsperf",
    "docker-compose",
    "docker.io",
    "ethtool",
    "gcc",
    "gir1.2-nm-1.0",
    "golang-go",
    "haproxy",
    "iperf3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "libc6-dev",
    "libfaketime",
    "llvm-22-dev",
    "musl-tools",
    "nftables",
    "nginx-light",
    "podman",
    "procps",
    "prometheus",
    "python3-dbus",
    "python3-gi",
    "python3-nftables",
    "runc",
    "socat",
    "strace",
    "systemd",
    "tcpdump",
    "tmux",
    "tshark",
    "util-linux",
    "wrk",
];

/// What benches compare meshd with, and what asks it. A bench whose peer is missing says so and goes on with the others.
const PEERS: &[&str] = &["dnsmasq-base", "ipvsadm"];

/// A compiler with the standard library's source, which the BPF target is built from.
const COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

const BPF_LINKER_VERSION: &str = "0.13.0";

/// Installs what is missing; without root, says with which commands.
pub fn run_quietly() -> Result<()> {
    carry_out(missing()?)
}

/// Installs those of these Debian packages that are missing, as [`run_quietly`] does.
pub fn packages(names: &[&str]) -> Result<()> {
    carry_out(installation(&missing_packages(names)?))
}

fn carry_out(missing: Vec<Command>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        let lines: Vec<String> = missing.iter().map(shell_line).collect();
        bail!("some tools are missing; as root run:\n\n  {}\n", lines.join("\n  "));
    }
    for mut command in missing {
        eprintln!("setup: {}", shell_line(&command));
        command::run(&mut command)?;
    }
    Ok(())
}

/// Installs what benches compare meshd with, as [`run_quietly`] does.
pub fn peers() -> Result<()> {
    packages(PEERS)
}

/// As [`run_quietly`], and says what is there.
pub fn run(with_peers: bool) -> Result<()> {
    run_quietly()?;
    if with_peers {
        peers()?;
    }
    match toolchain() {
        Some(toolchain) => println!("all there; the eBPF programs are built by {toolchain}"),
        None => bail!("still no compiler with the standard library's source, which the eBPF programs need"),
    }
    Ok(())
}

/// The commands that install what is missing.
fn missing() -> Result<Vec<Command>> {
    let mut wanted = TOOLS.to_vec();
    if toolchain().is_none() {
        wanted.extend(COMPILER);
    }
    let mut commands = installation(&missing_packages(&wanted)?);
    if !output(Command::new("bpf-linker").arg("--version")).is_some_and(|v| v.contains(BPF_LINKER_VERSION)) {
        commands.push(bpf_linker());
    }
    if output(Command::new("cargo-nextest").args(["nextest", "--version"])).is_none() {
        commands.push(cargo_install(&["cargo-nextest", "--locked"]));
    }
    Ok(commands)
}

/// The commands that install `packages`.
fn installation(packages: &[&str]) -> Vec<Command> {
    if packages.is_empty() {
        return Vec::new();
    }
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    install.args(packages);
    vec![apt(&["update"]), install]
}

fn missing_packages<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!(
            "this is not Debian; install what these packages hold by other means, and \
             `rustup toolchain install nightly --component rust-src`: {}",
            wanted.join(" ")
        );
    }
    // Unknown packages make dpkg-query fail, but it prints those that it knows.
    let listing = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("cannot run dpkg-query")?;
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let installed = |name: &str| listing.lines().any(|l| l.split_once(' ') == Some((name, "installed")));
    Ok(wanted.iter().copied().filter(|name| !installed(name)).collect())
}

/// The compiler that can build for BPF, if one is there.
pub fn toolchain() -> Option<String> {
    let source = |rustc: &mut Command| {
        let root = output(rustc.args(["--print", "sysroot"]))?;
        let library = Path::new(root.trim()).join("lib/rustlib/src/rust/library/core");
        library.exists().then(|| root.trim().to_owned())
    };
    if source(&mut Command::new("/usr/bin/rustc")).is_some() && Path::new("/usr/bin/cargo").exists() {
        return Some("Debian's rustc (/usr/bin/rustc)".to_owned());
    }
    source(Command::new("rustup").args(["run", "nightly", "rustc"]))
        .map(|root| format!("rustup's nightly ({root})"))
}

/// A command of apt that asks nothing.
pub fn apt(words: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn bpf_linker() -> Command {
    // After the packages are in place this is what `llvm-config-22 --prefix` prints.
    let prefix = output(Command::new("llvm-config-22").arg("--prefix"));
    let prefix = prefix.as_deref().map_or("/usr/lib/llvm-22", str::trim).to_owned();
    let mut command = cargo_install(&["bpf-linker", "--version", BPF_LINKER_VERSION]);
    command.args(["--no-default-features", "--features", "llvm-22"]);
    command.env("LLVM_PREFIX", &prefix).env("LLVM_SYS_221_PREFIX", prefix);
    command
}

fn cargo_install(words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // Outside the workspace, so that its configuration does not bear on the tool.
    command.arg("install").args(words).current_dir("/");
    command
}

fn shell_line(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={} ", key.to_string_lossy(), value?.to_string_lossy())));
    variables.collect::<String>() + &line(command)
}
