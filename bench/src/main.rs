//! Measures a cluster of namespaces on this machine. Started by `cargo xtask bench`, which builds it and meshd with
//! optimizations.
//!
//! What is compared runs in alternation within one cluster, client and server pinned to a processor each, since this
//! machine's moods change more between minutes than between paths. Medians are printed, and of ratios the medians of
//! the rounds' ratios.

mod attach;
mod idle;
mod overlay;
mod ping_pong;
mod pinning;
mod stats;
mod vxlan_bridge;

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
    /// TCP throughput and round trips: underlay, overlay, Linux bridge with VXLAN.
    Overlay(overlay::Options),
    /// How soon a new task is reached and an ended one no more.
    Attach(attach::Options),
    /// What meshd uses of processor and memory when nothing happens.
    Idle(idle::Options),
}

fn main() -> Result<()> {
    mesh_tests::interrupt::catch()?;
    match Cli::parse().what {
        What::Overlay(options) => overlay::run(&options),
        What::Attach(options) => attach::run(&options),
        What::Idle(options) => idle::run(&options),
    }
}
