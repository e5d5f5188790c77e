//! Results as tables for a terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::{
    Record, Subject, Suite, Target,
    compare::{Comparison, Verdict},
    number::{number, percent},
};
use crate::stats::{median, quantile, ratios};

/// Tables, one for each suite, one of the targets, and the notes.
pub fn text(record: &Record) -> String {
    let quick = if record.quick { "; a quick run, which shows that all works, hardly more" } else { "" };
    let mut text = format!("{}{quick}\n\n", record.machine.line());
    for suite in record.suites() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}\n\n{}\n", suite.title(), figures(record, suite));
    }
    if !record.targets.is_empty() {
        let _ = writeln!(text, "Targets\n\n{}\n", targets(&record.targets));
    }
    for note in &record.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// The figures of one suite.
pub fn figures(record: &Record, suite: Suite) -> Table {
    let mut table = table(&[
        "measure",
        "of",
        "median",
        "quartiles",
        "rounds",
        "to the base",
        "processor time",
        "to the base's",
    ]);
    for figure in record.figures.iter().filter(|figure| figure.suite == suite) {
        for (row, subject) in figure.subjects.iter().enumerate() {
            let [ratio, cpu, cpu_ratio] = beside(subject, figure.base());
            table.add_row([
                if row == 0 { format!("{}, {}", figure.title, figure.unit) } else { String::new() },
                subject.title.clone(),
                number(median(&subject.values)),
                quartiles(&subject.values),
                subject.values.len().to_string(),
                ratio,
                cpu,
                cpu_ratio,
            ]);
        }
    }
    align(&mut table, 2..8);
    table
}

/// Ratio to the base, processor time, and its ratio; empty where there is none, "base" for the base itself.
pub fn beside(subject: &Subject, base: Option<&Subject>) -> [String; 3] {
    let is_base = base.is_some_and(|base| base.key == subject.key);
    let base = base.filter(|_| !is_base);
    let ratio = |values: &[f64], base: &[f64]| {
        let ratio = median(&ratios(values, base));
        if ratio.is_finite() { format!("{ratio:.2}") } else { String::new() }
    };
    let cpu = subject.cpu();
    let cpu_ratio = base.and_then(|base| Some(ratio(&cpu?.values, &base.cpu()?.values)));
    [
        match base {
            Some(base) => ratio(&subject.values, &base.values),
            None if is_base => "base".to_owned(),
            None => String::new(),
        },
        cpu.map(|cpu| format!("{} {}", number(median(&cpu.values)), cpu.unit)).unwrap_or_default(),
        cpu_ratio.unwrap_or_default(),
    ]
}

/// In which the middle half of the values lies; empty for a single one.
pub fn quartiles(values: &[f64]) -> String {
    if values.len() < 2 {
        return String::new();
    }
    format!("{} to {}", number(quantile(values, 0.25)), number(quantile(values, 0.75)))
}

fn targets(targets: &[Target]) -> Table {
    let mut table = table(&["target", "of", "wanted", "measured", ""]);
    for target in targets {
        table.add_row([
            target.what.clone(),
            target.of.clone(),
            target.bound.to_string(),
            format!("{:.2}", target.measured),
            met(target).to_owned(),
        ]);
    }
    align(&mut table, 3..4);
    table
}

/// Whether a target was reached, for people.
pub fn met(target: &Target) -> &'static str {
    if target.met() { "met" } else { "missed" }
}

/// What changed between two runs: all that did or perhaps did, and how much the rest is.
pub fn changes(comparison: &Comparison) -> String {
    let mut table = table(&["figure", "of", "then", "now", "change", "19 of 20 times within", ""]);
    let mut shown = 0;
    let differ = |verdict| matches!(verdict, Verdict::Changed | Verdict::Perhaps);
    for change in comparison.changes.iter().filter(|change| differ(change.verdict)) {
        let (low, high) = change.shift.interval;
        table.add_row([
            change.what.clone(),
            change.of.clone(),
            number(change.old),
            number(change.new),
            percent(change.shift.factor),
            format!("{} to {}", percent(low), percent(high)),
            change.said(),
        ]);
        shown += 1;
    }
    align(&mut table, 2..6);
    let mut text = String::new();
    if shown > 0 {
        let _ = writeln!(text, "{table}\n");
    }
    let _ = writeln!(text, "{}", comparison.summary());
    for note in &comparison.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Better, Bound, Figure, Who, compare::compare};

    #[test]
    fn figures_targets_and_notes_are_told() {
        let mut record = Record::begin(String::new(), false).unwrap();
        for (ours, base) in [(9.9, 10.0), (19.8, 20.0), (9.0, 10.0)] {
            let figure = Figure::new(Suite::Overlay, "s", "TCP stream", "Gbit/s", Better::Higher).beside("u");
            let figure = record.figure(figure);
            figure.add(Who::peer("u", "underlay"), base, Some(("ms/GB", 100.0)));
            figure.add(Who::ours("o", "meshd overlay"), ours, Some(("ms/GB", 250.0)));
        }
        let (what, of) = ("TCP stream".to_owned(), "underlay".to_owned());
        record.targets.push(Target { what, of, bound: Bound::AtLeast(0.98), measured: 0.99 });
        record.note("mind this");
        let said = text(&record);
        for wanted in [
            "Overlay\n",
            "| meshd overlay",
            "TCP stream, Gbit/s",
            "9.90",
            "9.45 to 14.9",
            "0.99",
            "250 ms/GB",
            "2.50",
            "at least 0.98",
            "met",
            "note: mind this",
        ] {
            assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
        }
    }

    #[test]
    fn only_what_changed_is_listed() {
        let record = |by: f64| {
            let mut record = Record::begin(String::new(), false).unwrap();
            for round in 0..8 {
                for (key, by) in [("slower", by), ("as-ever", 1.0)] {
                    let figure = Figure::new(Suite::Attach, key, key, "ms", Better::Lower);
                    record.alone(figure, 100.0 * by + f64::from(round));
                }
            }
            record
        };
        let said = changes(&compare(&record(1.0), &record(1.5)));
        assert!(said.contains("| slower, meshd") && said.contains("changed: worse"), "{said}");
        assert!(
            !said.contains("as-ever") && said.contains("1 changed, 0 perhaps, 1 are within noise"),
            "{said}"
        );
        let same = changes(&compare(&record(1.0), &record(1.0)));
        assert!(same.starts_with("Of 2 figures 0 changed"), "{same}");
    }
}
