//! Results as a page of their own: no scripts, nothing loaded from elsewhere, readable in light and dark and on paper.

use std::fmt::Write as _;

use super::{
    Figure, Record, Suite, Target,
    compare::{Change, Comparison, Verdict},
    number::{number, percent},
    svg::{chart, escaped},
    table::{beside, met, quartiles},
};
use crate::stats::median;

const STYLE: &str = include_str!("page.css");

/// The page of a run, with what changed since another one if that is given.
pub fn page(record: &Record, comparison: Option<&Comparison>) -> String {
    let title = format!("meshd benches, {}", escaped(&record.date));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
    );
    page += &about(record);
    page += "<nav>";
    for suite in record.suites() {
        // Writing to a string does not fail.
        let _ = write!(page, "<a href=\"#{}\">{}</a> ", anchor(suite), suite.title());
    }
    page += "</nav>\n";
    if let Some(comparison) = comparison {
        page += &changes(comparison);
    }
    if !record.targets.is_empty() {
        page += &targets(&record.targets);
    }
    for suite in record.suites() {
        let _ = writeln!(page, "<h2 id=\"{}\">{}</h2>", anchor(suite), suite.title());
        record.figures.iter().filter(|figure| figure.suite == suite).for_each(|one| page += &figure(one));
    }
    page += &notes("Notes", &record.notes);
    page + "</body></html>\n"
}

fn about(record: &Record) -> String {
    let mut text = "<dl>".to_owned();
    let commit = if record.commit.is_empty() { "unknown" } else { &record.commit };
    for (what, said) in [("machine", record.machine.line().as_str()), ("commit", commit)] {
        let _ = write!(text, "<dt>{what}</dt><dd>{}</dd>", escaped(said));
    }
    text += "</dl>\n";
    if record.quick {
        text += "<p class=\"note\">A quick run: it shows that all works, hardly more.</p>\n";
    }
    text + "<p class=\"note\">Bars end at the median; the line over them holds the middle half of the rounds, \
            dots are rounds. Ratios are medians of the rounds' ratios.</p>\n"
}

fn figure(figure: &Figure) -> String {
    let (title, unit) = (escaped(&figure.title), escaped(&figure.unit));
    let mut text =
        format!("<h3>{title} <span>{unit}</span></h3>\n<div class=\"wide\">{}</div>\n", chart(figure));
    let base = figure.base();
    let to = base.map_or_else(String::new, |base| format!("to {}", base.title));
    text += &head(&["", "median", "quartiles", "rounds", &to, "processor time", "its ratio"]);
    for subject in &figure.subjects {
        let [ratio, cpu, cpu_ratio] = beside(subject, base);
        let (middle, rounds) = (number(median(&subject.values)), subject.values.len().to_string());
        text += &row(
            &[&subject.title, &middle, &quartiles(&subject.values), &rounds, &ratio, &cpu, &cpu_ratio],
            "",
        );
    }
    text + END
}

fn targets(targets: &[Target]) -> String {
    let mut text = "<h2>Targets</h2>\n".to_owned();
    text += &head(&["", "of", "wanted", "measured", ""]);
    for target in targets {
        let (bound, measured) = (target.bound.to_string(), format!("{:.2}", target.measured));
        text += &row(&[&target.what, &target.of, &bound, &measured, met(target)], met(target));
    }
    text + END
}

fn changes(comparison: &Comparison) -> String {
    let mut text = format!("<h2>What changed</h2>\n<p>{}</p>\n", escaped(&comparison.summary()));
    let differ = |verdict| matches!(verdict, Verdict::Changed | Verdict::Perhaps);
    let (different, rest): (Vec<&Change>, Vec<&Change>) =
        comparison.changes.iter().partition(|change| differ(change.verdict));
    text += &change_table(&different);
    if !rest.is_empty() {
        let _ = writeln!(
            text,
            "<details><summary>{} others</summary>{}</details>",
            rest.len(),
            change_table(&rest)
        );
    }
    text + &notes("", &comparison.notes)
}

fn change_table(changes: &[&Change]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut text = head(&["", "of", "then", "now", "change", "19 of 20 times within", ""]);
    for change in changes {
        let (low, high) = change.shift.interval;
        let within = format!("{} to {}", percent(low), percent(high));
        let (then, now, by) = (number(change.old), number(change.new), percent(change.shift.factor));
        let class = match change.verdict {
            Verdict::Changed if change.improved() => "better",
            Verdict::Changed => "worse",
            _ => "",
        };
        let what = format!("{}: {}", change.suite.title(), change.what);
        text += &row(&[&what, &change.of, &then, &now, &by, &within, &change.said()], class);
    }
    text + END
}

fn notes(title: &str, notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let title = if title.is_empty() { String::new() } else { format!("<h2>{title}</h2>\n") };
    let items: String = notes.iter().map(|note| format!("<li>{}</li>\n", escaped(note))).collect();
    format!("{title}<ul class=\"note\">{items}</ul>\n")
}

const END: &str = "</tbody></table></div>\n";

fn head(cells: &[&str]) -> String {
    let cells: String =
        cells.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escaped(cell))).collect();
    format!("<div class=\"wide\"><table><thead><tr>{cells}</tr></thead><tbody>\n")
}

/// The last cell is of that class.
fn row(cells: &[&str], class: &str) -> String {
    let (last, others) = cells.split_last().unwrap_or((&"", &[]));
    let others: String = others.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<tr>{others}<td{class}>{}</td></tr>\n", escaped(last))
}

fn anchor(suite: Suite) -> String {
    format!("{suite:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Better, Bound, Who, compare::compare, svg::tests::elements};

    fn record(by: f64) -> Record {
        let mut record = Record::begin("<b>\"&'".to_owned(), true).unwrap();
        for round in 0..6 {
            for suite in [Suite::Overlay, Suite::Dns] {
                let figure = Figure::new(suite, "k", "<i>rate", "1/s & more", Better::Higher).beside("base");
                let figure = record.figure(figure);
                figure.add(Who::peer("base", "\"base\""), 10.0 + f64::from(round), None);
                figure.add(Who::ours("ours", "ours</td>"), 20.0 * by + f64::from(round), Some(("us", 1.0)));
            }
        }
        let (what, of) = ("<script>".to_owned(), "x".to_owned());
        record.targets.push(Target { what, of, bound: Bound::AtMost(1.0), measured: 2.0 });
        record.note("</body> & \"so on\"");
        record
    }

    #[test]
    fn the_page_is_well_formed_whatever_is_in_it() {
        let (old, new) = (record(1.0), record(5.0));
        for comparison in [None, Some(compare(&old, &new))] {
            let page = page(&new, comparison.as_ref());
            let seen = elements(&page).unwrap();
            let count = |name: &str| seen.iter().filter(|seen| *seen == name).count();
            assert_eq!((count("svg"), count("script"), count("i"), count("b")), (2, 0, 0, 0));
            assert_eq!(count("details"), usize::from(comparison.is_some()));
            for wanted in ["&lt;script&gt;", "class=\"missed\"", "A quick run", "#overlay", "id=\"dns\""] {
                assert!(page.contains(wanted), "no {wanted}");
            }
            assert_eq!(page.contains("class=\"better\">changed: better"), comparison.is_some());
            assert!(
                !page.contains("http://") || page.matches("http://").count() == count("svg"),
                "loads from elsewhere"
            );
        }
    }

    #[test]
    fn the_style_is_no_markup() {
        assert!(!STYLE.contains('<') && !STYLE.contains('&') && !STYLE.contains("url("));
        assert!(STYLE.contains("prefers-color-scheme: dark"));
    }
}
