//! Measures a cluster of namespaces on this machine. Started by `cargo xtask bench`, which builds it and meshd with
//! optimizations.
//!
//! What is compared runs in alternation within one cluster, client and server pinned to a processor each, since this
//! machine's moods change more between minutes than between paths. Medians are printed, and of ratios the medians of
//! the rounds' ratios.

mod attach;
mod cni;
mod control;
mod cpu;
mod datapath;
mod dns;
mod idle;
mod load;
mod loss;
mod path;
mod peers;
mod pinning;
mod programs;
mod stats;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures a cluster of namespaces on this machine.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The data path beside its peers: programs by test runs, the overlay and published ports end to end.
    Datapath(datapath::Options),
    /// Names asked from inside a task, beside Docker's embedded DNS and dnsmasq.
    Dns(dns::Options),
    /// How soon a new task is reached and an ended one no more.
    Attach(attach::Options),
    /// What container runtimes wait for: the CNI plugin beside Debian's bridge plugin, Docker beside its own bridge.
    Cni(cni::Options),
    /// What meshd uses of processor and memory when nothing happens.
    Idle(idle::Options),
    /// Changes a second with 1, 3 and 5 managers, time to a new leader and to all agents, what a large state costs.
    Control(control::Options),
    /// How many requests fail when tasks are replaced or killed, and when a node is lost.
    Loss(loss::Options),
}

fn main() -> Result<()> {
    mesh_tests::interrupt::catch()?;
    match Cli::parse().what {
        What::Datapath(options) => datapath::run(&options),
        What::Dns(options) => dns::run(&options),
        What::Attach(options) => attach::run(&options),
        What::Cni(options) => cni::run(&options),
        What::Idle(options) => idle::run(&options),
        What::Control(options) => control::run(&options),
        What::Loss(options) => loss::run(&options),
    }
}
