//! All figures of one run of the bench, and how they are kept.

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    convergence::{self, Change},
    scale::{self, Point},
    wire::Wire,
};

/// How long it takes until all know, over many seeds, in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Times {
    /// What was measured.
    pub what: String,
    /// The wire: `instant` or `lan`.
    pub wire: String,
    /// How many nodes.
    pub nodes: u32,
    /// How many seeds.
    pub seeds: u32,
    /// The median.
    pub p50: f64,
    /// Nine of ten are quicker.
    pub p90: f64,
    /// The slowest.
    pub max: f64,
}

/// What `bench` writes and `plot` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// One change in a quiet cluster.
    pub quiet: Vec<Times>,
    /// A new entry amid churn.
    pub churn: Vec<Times>,
    /// By size.
    pub scale: Vec<Point>,
}

impl Figures {
    /// Those kept in a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Keeps them in a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("figures")?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }
}

/// At a share of sorted values.
pub fn at(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.max(1) - 1).copied().unwrap_or_default()
}

/// The curve as a table, as the documentation has it.
pub fn table(points: &[Point]) -> String {
    let mut text = String::from(
        "| nodes | new task | its end | death | newcomer | at rest | ten changes a second | 5 % loss | memory a pair |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let times = |sorted: &[f64]| match sorted.is_empty() {
        true => String::new(),
        false => format!("{}, {}", short(at(sorted, 0.5)), short(at(sorted, 1.0))),
    };
    let rate = |bytes: f64, packets: f64| format!("{:.1} KB/s, {packets:.0}/s", bytes / 1000.0);
    for p in points {
        let row = [
            p.nodes.to_string(),
            times(&p.told),
            times(&p.ended),
            times(&p.death),
            times(&p.join),
            rate(p.at_rest, p.packets_at_rest),
            rate(p.busy, p.packets_busy),
            format!("{:.1} KB/s", p.lossy / 1000.0),
            if p.nodes < 500 { String::new() } else { format!("{:.0} B", p.memory) },
        ];
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

/// Milliseconds, in as many digits as say something.
fn short(millis: f64) -> String {
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}

const WIRES: [&str; 2] = ["instant", "lan"];

fn wire(name: &str) -> Wire {
    if name == "instant" { Wire::instant() } else { Wire::lan() }
}

/// networkdb's scenarios at its sizes.
pub fn scenarios(seeds: u32) -> Result<Figures> {
    let mut figures = Figures::default();
    for wire_name in WIRES {
        for nodes in [2, 3, 5, 10, 25] {
            for change in Change::ALL.into_iter().filter(|change| nodes >= change.least_nodes()) {
                let one = |seed| convergence::quiet(change, nodes, wire(wire_name), seed);
                figures.quiet.push(times(change.name(), wire_name, nodes, seeds, one)?);
            }
        }
        for nodes in [5, 10, 25] {
            for (what, before) in [("churn-begins", 0), ("churn-goes-on", 2)] {
                let one =
                    |seed| convergence::churn(nodes, wire(wire_name), seed, Duration::from_secs(before));
                figures.churn.push(times(what, wire_name, nodes, seeds, one)?);
            }
        }
        eprintln!("wire {wire_name} measured");
    }
    Ok(figures)
}

/// One point of the curve by size.
pub fn point(options: scale::Options) -> Result<Point> {
    scale::measure(options, Wire::lan(), 1)
}

/// One measurement over many seeds, on all processors.
fn times(
    what: &str,
    wire: &str,
    nodes: u32,
    seeds: u32,
    one: impl Fn(u64) -> Result<Duration> + Sync,
) -> Result<Times> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds as usize
                {
                    let took =
                        one(seed as u64).with_context(|| format!("{what}, {nodes} nodes, seed {seed}"));
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                }
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<Duration> = all.into_iter().collect::<Result<_>>()?;
    let mut sorted: Vec<f64> = all.iter().map(|took| took.as_secs_f64() * 1000.0).collect();
    sorted.sort_by(f64::total_cmp);
    Ok(Times {
        what: what.to_owned(),
        wire: wire.to_owned(),
        nodes,
        seeds,
        p50: at(&sorted, 0.5),
        p90: at(&sorted, 0.9),
        max: at(&sorted, 1.0),
    })
}
