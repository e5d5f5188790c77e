//! What a scrape of a node with many endpoints costs: how long its text takes, and how long it is.
//!
//! `cargo run --release -p mesh-metrics --example scrape_at_scale [ENDPOINTS]`
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../tests/generated/mod.rs"]
mod generated;

use std::time::{Duration, Instant};

use mesh_metrics::{Facts, Limits, Member, Metrics, text::Format};

const ROUNDS: usize = 21;

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let snapshot = generated::snapshot(count, "web.");
    for (limits, all) in [(1_000, false), (usize::MAX, true)] {
        let mut metrics = Metrics::new(Limits { endpoints: limits, services: limits });
        let mut times: Vec<Duration> = Vec::new();
        let mut length = 0;
        for _ in 0..ROUNDS {
            let member = Member { snapshot: &snapshot, role: "worker", manager: None };
            let facts = Facts { version: "0", process: None, turned_away: 0, ready: true, member: Some(member) };
            let begun = Instant::now();
            length = metrics.text(Format::Prometheus, &facts).len();
            times.push(begun.elapsed());
        }
        times.sort();
        println!(
            "{count} endpoints, {}: median {:?}, slowest {:?}, {} KiB",
            if all { "series for each" } else { "series for 1,000" },
            times[ROUNDS / 2],
            times[ROUNDS - 1],
            length / 1024
        );
    }
}
