//! Figures as SVG, written by hand: a few lines on logarithmic axes need no library.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result};

use crate::measure::{Figures, at};

const WIDTH: f64 = 780.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// Told apart by people who do not see red and green, too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#555555"];

/// A line, or points alone.
struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
    dashed: bool,
}

struct Plot {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Powers of ten that the axes begin and end with.
    decades_x: (i32, i32),
    decades_y: (i32, i32),
    series: Vec<Series>,
}

/// Writes all plots into a folder.
pub fn write_all(figures: &Figures, folder: &Path) -> Result<()> {
    for (name, plot) in [
        ("gossip-convergence", convergence(figures)),
        ("gossip-scale", scale(figures)),
        ("gossip-bytes", bytes(figures)),
    ] {
        let path = folder.join(format!("{name}.svg"));
        std::fs::write(&path, plot.svg()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// What is read off networkdb's publication: medians when quiet, and the ninetieth percentile amid churn.
const NETWORKDB_QUIET: [(f64, f64); 3] = [(2.0, 200.0), (3.0, 200.0), (25.0, 800.0)];
const NETWORKDB_CHURN: [(f64, f64); 1] = [(25.0, 11_000.0)];

fn convergence(figures: &Figures) -> Plot {
    let worst_quiet = |nodes: u32| {
        let times = figures.quiet.iter().filter(|t| t.wire == "lan" && t.nodes == nodes);
        times.map(|t| t.p90).fold(0.0, f64::max)
    };
    let quiet = [2, 3, 5, 10, 25].map(|nodes| (f64::from(nodes), worst_quiet(nodes)));
    let churn = figures.churn.iter().filter(|t| t.wire == "lan" && t.what == "churn-goes-on");
    Plot {
        title: "One change, until the last node knows it",
        x: "nodes",
        y: "ms",
        decades_x: (0, 2),
        decades_y: (-1, 5),
        series: vec![
            Series { name: "meshd, quiet, p90 of the slowest kind", points: quiet.to_vec(), dashed: false },
            Series {
                name: "meshd, amid churn, p90",
                points: churn.map(|t| (f64::from(t.nodes), t.p90)).collect(),
                dashed: false,
            },
            Series { name: "networkdb, quiet", points: NETWORKDB_QUIET.to_vec(), dashed: true },
            Series { name: "networkdb, amid churn, p90", points: NETWORKDB_CHURN.to_vec(), dashed: true },
        ],
    }
}

fn scale(figures: &Figures) -> Plot {
    let by_size = |value: &dyn Fn(&crate::scale::Point) -> f64| -> Vec<(f64, f64)> {
        let points = figures.scale.iter().map(|p| (f64::from(p.nodes), value(p)));
        points.filter(|(_, y)| *y > 0.0).collect()
    };
    Plot {
        title: "Until every node knows, by the size of the cluster",
        x: "nodes, all on one network",
        y: "ms",
        decades_x: (0, 4),
        decades_y: (-1, 5),
        series: vec![
            Series { name: "a new task, median", points: by_size(&|p| at(&p.told, 0.5)), dashed: false },
            Series { name: "a new task, slowest", points: by_size(&|p| at(&p.told, 1.0)), dashed: true },
            Series { name: "a node's death, median", points: by_size(&|p| at(&p.death, 0.5)), dashed: false },
            Series { name: "a node's death, slowest", points: by_size(&|p| at(&p.death, 1.0)), dashed: true },
            Series { name: "a newcomer, slowest", points: by_size(&|p| at(&p.join, 1.0)), dashed: true },
            Series {
                name: "all started at once",
                points: by_size(&|p| p.formed.unwrap_or_default()),
                dashed: false,
            },
        ],
    }
}

fn bytes(figures: &Figures) -> Plot {
    let by_size = |value: &dyn Fn(&crate::scale::Point) -> f64| -> Vec<(f64, f64)> {
        figures.scale.iter().map(|p| (f64::from(p.nodes), value(p))).collect()
    };
    Plot {
        title: "What a node sends, by the size of the cluster",
        x: "nodes, all on one network",
        y: "bytes/s",
        decades_x: (0, 4),
        decades_y: (2, 6),
        series: vec![
            Series { name: "nothing happens", points: by_size(&|p| p.at_rest), dashed: false },
            Series { name: "ten changes a second", points: by_size(&|p| p.busy), dashed: false },
            Series { name: "nothing happens, 5 % loss", points: by_size(&|p| p.lossy), dashed: true },
        ],
    }
}

impl Plot {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |value: f64, (first, last): (i32, i32)| {
            (value.max(f64::MIN_POSITIVE).log10() - f64::from(first)) / f64::from(last - first)
        };
        let x = LEFT + share(x, self.decades_x).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
        let y = HEIGHT - BOTTOM - share(y, self.decades_y).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        (x, y)
    }

    fn svg(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.draw(&mut out);
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"##
        )?;
        writeln!(out, r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##)?;
        let title = self.title;
        writeln!(out, r##"<text x="{LEFT}" y="24" font-size="15">{title}</text>"##)?;
        self.grid(out)?;
        for (series, (number, colour)) in self.series.iter().zip(COLOURS.iter().enumerate()) {
            let dash = if series.dashed { r#" stroke-dasharray="5 4""# } else { "" };
            let places: Vec<(f64, f64)> = series.points.iter().map(|point| self.place(*point)).collect();
            let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let line = line.join(" ");
            writeln!(
                out,
                r##"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>"##
            )?;
            for (x, y) in places {
                writeln!(out, r##"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"##)?;
            }
            let (x, y) = (WIDTH - RIGHT + 12.0, TOP + 10.0 + 34.0 * number as f64);
            writeln!(out, r##"<path d="M{x} {y}h24" stroke="{colour}" stroke-width="2"{dash}/>"##)?;
            // Two lines at most.
            let (first, second) = series.name.split_once(", ").unwrap_or((series.name, ""));
            let (x, lower) = (x + 30.0, y + 14.0);
            writeln!(
                out,
                r##"<text x="{x}" y="{y}" dy="4">{first}</text><text x="{x}" y="{lower}" dy="4">{second}</text>"##
            )?;
        }
        writeln!(out, "</svg>")
    }

    fn grid(&self, out: &mut String) -> std::fmt::Result {
        let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for decade in self.decades_x.0..=self.decades_x.1 {
            let (x, _) = self.place((10f64.powi(decade), 1.0));
            writeln!(out, r##"<path d="M{x:.1} {TOP}V{bottom}" stroke="#dddddd"/>"##)?;
            let (text, y) = (label(decade), bottom + 18.0);
            writeln!(out, r##"<text x="{x:.1}" y="{y}" text-anchor="middle">{text}</text>"##)?;
        }
        for decade in self.decades_y.0..=self.decades_y.1 {
            let (_, y) = self.place((1.0, 10f64.powi(decade)));
            writeln!(out, r##"<path d="M{LEFT} {y:.1}H{end}" stroke="#dddddd"/>"##)?;
            let (text, x) = (label(decade), LEFT - 8.0);
            writeln!(out, r##"<text x="{x}" y="{y:.1}" dy="4" text-anchor="end">{text}</text>"##)?;
        }
        let (middle, below) = ((LEFT + end) / 2.0, HEIGHT - 12.0);
        let (x, y) = (self.x, self.y);
        writeln!(out, r##"<text x="{middle}" y="{below}" text-anchor="middle">{x}</text>"##)?;
        writeln!(out, r##"<text x="12" y="{TOP}" dy="-8">{y}</text>"##)
    }
}

fn label(decade: i32) -> String {
    if decade < 0 {
        format!("{:.*}", decade.unsigned_abs() as usize, 10f64.powi(decade))
    } else {
        10u64.pow(decade.unsigned_abs()).to_string()
    }
}
