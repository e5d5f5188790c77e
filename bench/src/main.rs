//! Measures clusters of namespaces on this machine. Started by `cargo xtask bench`, which builds it and meshd with
//! optimizations.
//!
//! What is compared runs in alternation within one cluster, client and server pinned to a processor each, since this
//! machine's moods change more between minutes than between paths. Medians are told, and of ratios the medians of
//! the rounds' ratios. All suites fill one [`record::Record`]; tables, JSON, the page and comparisons are made of it.

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
mod record;
mod run;
mod seeing;
mod stats;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use run::Job;

/// Measures clusters of namespaces on this machine; without a name: programs, overlay, mesh, dns, control and attach.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    several: run::Several,
    #[command(flatten)]
    telling: run::Telling,
    #[command(subcommand)]
    what: Option<What>,
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
    /// What packets pay for being counted and while somebody watches, and how long lists of a million flows take.
    Seeing(seeing::Options),
    /// What changed between two runs, by their files; measures nothing.
    Compare(run::Files),
}

fn main() -> ExitCode {
    match carry_out() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out() -> Result<()> {
    mesh_tests::interrupt::catch()?;
    let Cli { several, telling, what } = Cli::parse();
    let Some(what) = what else { return telling.run(&several.jobs(), several.quick()) };
    several.unused()?;
    let job = match what {
        What::Datapath(options) => {
            Job::of_root("the data path", move |record| datapath::run(&options, record))
        }
        What::Dns(options) => Job::of_root("names", move |record| dns::run(&options, record)),
        What::Attach(options) => Job::of_root("attach", move |record| attach::run(&options, record)),
        What::Cni(options) => Job::of_root("containers", move |record| cni::run(&options, record)),
        What::Idle(options) => Job::of_root("idle", move |record| idle::run(&options, record)),
        What::Loss(options) => Job::of_root("loss", move |record| loss::run(&options, record)),
        What::Seeing(options) => Job::of_root("seeing", move |record| seeing::run(&options, record)),
        What::Control(options) => return telling.run(&control::jobs(options), false),
        What::Compare(files) => return files.compare(),
    };
    telling.run(&[job], false)
}
