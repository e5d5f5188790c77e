//! The project's chores, run as `cargo xtask CHORE`.

mod bench;
mod check;
mod command;
mod compile;
mod demo;
#[cfg(test)]
mod documented;
mod findings;
mod licences;
mod package;
mod progress;
mod setup;
mod test;
mod verifier_budget;
mod vm_test;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what building and testing need: Debian packages and the eBPF toolchain.
    ///
    /// As root it does so; otherwise it prints the exact commands. Does nothing when all is there.
    Setup {
        /// What benches compare meshd with, too: Docker, dnsmasq, and dnsperf to ask them.
        #[arg(long)]
        peers: bool,
    },
    /// Build meshd, meshctl and mesh-cni.
    Build {
        /// With optimizations.
        #[arg(long)]
        release: bool,
    },
    /// Three nodes, an overlay and a published service on this machine, shown with nginx, curl, dig and iperf3.
    Demo(demo::Options),
    /// Run every test, the clusters of network namespaces included (as root).
    Test(test::Options),
    /// Formatting, lints, documentation and licences; changes nothing.
    Check,
    /// Measure; medians and ratios are printed.
    Bench(bench::Options),
    /// The main job on Debian's kernel, in a virtual machine: every program before its verifier, then clusters, also
    /// over network cards.
    VmTest(vm_test::Options),
    /// Make the Debian package, and an archive of static programs for other distributions.
    Package(package::Options),
    /// Measure what each eBPF program costs the verifiers of this kernel and of Debian's; writes
    /// docs/verifier-budget.md (as root).
    VerifierBudget(verifier_budget::Options),
    /// What `vm-test` runs inside.
    #[command(hide = true)]
    VmGuest {
        /// The file that says what to do.
        order: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Setup { peers } => setup::run(peers),
        Chore::Build { release } => compile::binaries(release),
        Chore::Demo(options) => demo::run(&options),
        Chore::Test(options) => test::run(&options),
        Chore::Check => check::run(),
        Chore::Bench(options) => bench::run(&options),
        Chore::VmTest(options) => vm_test::run(&options),
        Chore::Package(options) => package::run(&options),
        Chore::VerifierBudget(options) => verifier_budget::run(&options),
        Chore::VmGuest { order } => vm_test::run_guest(&order),
    }
}
