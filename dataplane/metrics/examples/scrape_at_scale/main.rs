//! What a scrape of a node with many endpoints costs: reading what the kernel counted (as root alone), putting names to it,
//! writing the text; and all of it over HTTP, by the listener that daemons have, asked by a client of the same machine.
//!
//! `cargo run --release -p mesh-metrics --example scrape_at_scale [ENDPOINTS]`
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]
#![expect(clippy::unwrap_used, reason = "a chore beside the tests")]

#[path = "../../tests/generated/mod.rs"]
mod generated;
mod kernel;
mod named;
mod whole;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mesh_agent::Snapshot;
use mesh_metrics::{Facts, Limits, Member, Metrics, text::Format};

const ROUNDS: usize = 101;

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    println!("{count} endpoints, {} services; of {ROUNDS} times", u32::div_ceil(count, 10));
    let node = nix::unistd::geteuid().is_root().then(|| kernel::Node::with(count));
    match &node {
        Some(node) => tell("what the kernel counted is read", || node.read()),
        None => println!("what the kernel counted is read: not tried, that needs root"),
    }
    let (view, tasks) = named::tasks(count);
    let nothing = Default::default();
    tell("names are put to it", || {
        mesh_agent::endpoint_counts(&view, &tasks, &nothing, &Default::default()).len()
    });
    let snapshot = generated::snapshot(count, "web.");
    for (limits, which) in [(1_000, "series for 1,000"), (usize::MAX, "series for each")] {
        let mut metrics = Metrics::new(Limits { endpoints: limits, services: limits });
        tell(&format!("the text is written, {which}"), || {
            let member = Member { snapshot: &snapshot, role: "worker", manager: None };
            let facts =
                Facts { version: "0", process: None, turned_away: 0, ready: true, member: Some(member) };
            metrics.text(Format::Prometheus, &facts).len()
        });
    }
    let Some(node) = node else { return };
    let rest = Snapshot { endpoints: Vec::new(), ..snapshot };
    let metrics = Metrics::new(Limits { endpoints: 0, services: 0 });
    let source = Arc::new(Mutex::new(whole::Source { node, view, tasks, rest, metrics }));
    let address = whole::listen(Arc::clone(&source));
    for (limits, which) in [(1_000, "series for 1,000"), (usize::MAX, "series for each")] {
        source.lock().unwrap().limit(limits);
        tell(&format!("all of it over HTTP, {which}"), || whole::scrape(address));
    }
}

/// How long it takes, and what it gives: bytes or entries.
fn tell(what: &str, mut work: impl FnMut() -> usize) {
    let mut times: Vec<Duration> = Vec::with_capacity(ROUNDS);
    let mut size = 0;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        size = work();
        times.push(begun.elapsed());
    }
    times.sort();
    let millis = |at: usize| times[at].as_secs_f64() * 1e3;
    println!(
        "{what}: a tenth within {:.1} ms, half {:.1} ms ({size})",
        millis(ROUNDS / 10),
        millis(ROUNDS / 2)
    );
}
