//! The results as tables for people and as JSON.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::{
    Group,
    results::Results,
    targets::{Bound, Outcome, outcomes},
};
use crate::{
    load::Sample,
    path::Way,
    stats::{median, percentile},
};

/// Tables, one for each group, and one of the targets.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    for group in [Group::Overlay, Group::Published] {
        if let Some(table) = end_to_end(results, group) {
            let _ = writeln!(text, "{table}\n");
        }
    }
    if !results.programs.is_empty() {
        let _ = writeln!(text, "{}\n", programs(results));
    }
    let outcomes = outcomes(results);
    if !outcomes.is_empty() {
        let _ = writeln!(text, "{}", targets(&outcomes));
    }
    for note in &results.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// What all ways of a group are compared with in its table.
fn base(group: Group) -> Way {
    if group == Group::Published { Way::Straight } else { Way::Underlay }
}

fn end_to_end(results: &Results, group: Group) -> Option<Table> {
    let base = base(group);
    let ratio = format!("to {}", base.title());
    let mut table = table(&["measure", "way", "median", "lowest", "highest", &ratio, "processor time"]);
    let measured = results.samples.iter().filter(|((of, _), _)| *of == group);
    let mut empty = true;
    for ((_, measure), ways) in measured {
        for (way, samples) in ways {
            let values = values(samples);
            let (unit, scale) = measure.cpu_unit();
            let ratio = results.ratio(group, *measure, *way, base);
            table.add_row([
                measure.title().to_owned(),
                way.title().to_owned(),
                format!("{:.2}", median(&values)),
                format!("{:.2}", percentile(&values, 0.0)),
                format!("{:.2}", percentile(&values, 1.0)),
                ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                format!("{:.2} {unit}", median(&processor_times(samples)) * scale),
            ]);
            empty = false;
        }
    }
    align(&mut table, 2..7);
    if empty { None } else { Some(table) }
}

/// The programs' costs.
pub fn programs(results: &Results) -> Table {
    let mut table = table(&["program", "path", "ns a packet", "lowest", "highest"]);
    for row in &results.programs {
        let times = &row.nanoseconds;
        let figures = [median(times), percentile(times, 0.0), percentile(times, 1.0)];
        let names = [row.program.to_owned(), row.what.to_owned()];
        table.add_row(names.into_iter().chain(figures.map(|ns| format!("{ns:.0}"))));
    }
    align(&mut table, 2..5);
    table
}

fn targets(outcomes: &[Outcome]) -> Table {
    let mut table = table(&["target", "of", "wanted", "measured", ""]);
    for outcome in outcomes {
        table.add_row([
            outcome.what.clone(),
            outcome.base.clone(),
            outcome.bound.to_string(),
            format!("{:.2}", outcome.value),
            if outcome.met() { "met" } else { "missed" }.to_owned(),
        ]);
    }
    align(&mut table, 3..4);
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn align(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Everything, sample by sample.
pub fn json(results: &Results) -> Result<Value> {
    let end_to_end: Vec<Value> = results
        .samples
        .iter()
        .flat_map(|((group, measure), ways)| {
            ways.iter().map(|(way, samples)| {
                let (group_key, base) = (key(*group), base(*group));
                let processor_times = processor_times(samples);
                json!({
                    "group": group_key,
                    "measure": measure.key(),
                    "way": way.key(),
                    "median": number(median(&values(samples))),
                    "values": values(samples),
                    "processor_seconds_per_unit": number(median(&processor_times)),
                    "processor_seconds_per_unit_values": processor_times,
                    "base": base.key(),
                    "ratio": results.ratio(*group, *measure, *way, base).map(number),
                })
            })
        })
        .collect();
    let programs = results.programs.iter().map(|row| {
        json!({
            "program": row.program,
            "path": row.what,
            "median_ns": number(median(&row.nanoseconds)),
            "values_ns": row.nanoseconds,
        })
    });
    let targets = outcomes(results).into_iter().map(|outcome| {
        let (bound, limit) = match outcome.bound {
            Bound::AtLeast(limit) => ("at_least", limit),
            Bound::AtMost(limit) => ("at_most", limit),
        };
        json!({
            "target": outcome.what,
            "of": outcome.base,
            bound: limit,
            "measured": number(outcome.value),
            "met": outcome.met(),
        })
    });
    Ok(json!({
        "machine": machine()?,
        "end_to_end": end_to_end,
        "programs": programs.collect::<Vec<Value>>(),
        "targets": targets.collect::<Vec<Value>>(),
        "notes": results.notes,
    }))
}

fn key(group: Group) -> &'static str {
    match group {
        Group::Programs => "programs",
        Group::Overlay => "overlay",
        Group::Published => "published",
    }
}

/// What figures depend on.
fn machine() -> Result<Value> {
    let system = nix::sys::utsname::uname().context("uname")?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    Ok(json!({
        "kernel": system.release().to_string_lossy(),
        "architecture": system.machine().to_string_lossy(),
        "processor": model.map_or("", |(_, name)| name.trim()),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
    }))
}

/// JSON has no NaN.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

fn values(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.value).collect()
}

fn processor_times(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Measure;

    #[test]
    fn figures_and_targets_are_told_both_ways() {
        let mut results = Results { notes: vec!["mind this".to_owned()], ..Results::default() };
        for (way, value) in [(Way::Underlay, 10.0), (Way::Overlay, 9.9), (Way::Bridge, 9.0)] {
            let sample = Sample { value, cpu: 0.25 };
            results.add(Group::Overlay, Measure::Stream, way, sample);
        }
        let text = text(&results);
        for wanted in ["| meshd overlay", "0.99", "250.00 ms/GB", "at least 0.98", "met", "note: mind this"] {
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
        let json = json(&results).unwrap();
        assert_eq!(json["end_to_end"].as_array().unwrap().len(), 3);
        assert_eq!(json["end_to_end"][1]["ratio"], 0.99);
        assert_eq!(json["targets"][0]["met"], true);
        assert!(json["machine"]["processors"].as_u64().unwrap() > 0);
    }
}
