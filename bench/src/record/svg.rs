//! A chart for each figure: a bar to the median of each subject, a line over the middle half of its values, a dot for
//! each of them.

use std::fmt::Write as _;

use super::{Figure, Subject, number::number};
use crate::stats::{median, quantile};

/// Of a chart, in its own units.
const WIDTH: f64 = 760.0;
const LABELS: f64 = 230.0;
const FIGURES: f64 = 90.0;
const ROW: f64 = 26.0;
const AXIS: f64 = 22.0;
/// With more values dots would be a smear.
const MOST_DOTS: usize = 60;
/// Of a label, in characters.
const LABEL: usize = 36;

/// The chart of a figure.
pub fn chart(figure: &Figure) -> String {
    let height = ROW * figure.subjects.len() as f64 + AXIS;
    let highest = figure.subjects.iter().flat_map(shown).fold(0.0, f64::max);
    let (top, step) = scale(highest);
    let x = |value: f64| LABELS + (value / top).clamp(0.0, 1.0) * (WIDTH - LABELS - FIGURES);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#,
        escaped(&described(figure))
    );
    let bottom = height - AXIS + 2.0;
    let mut tick = 0.0;
    while tick <= top * 1.001 {
        let (at, text) = (round(x(tick)), escaped(&number(tick)));
        // Writing to a string does not fail.
        let _ = write!(svg, r#"<line class="grid" x1="{at}" y1="0" x2="{at}" y2="{}"/>"#, round(bottom));
        let _ = write!(svg, r#"<text class="tick" x="{at}" y="{}">{text}</text>"#, round(bottom + 14.0));
        tick += step;
    }
    for (row, subject) in figure.subjects.iter().enumerate() {
        svg += &bar(subject, ROW * row as f64, &x);
    }
    svg + "</svg>"
}

fn bar(subject: &Subject, y: f64, x: &impl Fn(f64) -> f64) -> String {
    let (values, middle) = (&subject.values, y + ROW / 2.0);
    let of = if subject.ours { "ours" } else { "peer" };
    let (zero, end) = (x(0.0), x(median(values)));
    let label: String = subject.title.chars().take(LABEL).collect();
    let mut svg = format!(
        r#"<g class="{of}"><title>{}</title><text class="label" x="{}" y="{}">{}</text>"#,
        escaped(&said(subject)),
        round(LABELS - 8.0),
        round(middle + 4.0),
        escaped(&label)
    );
    let _ = write!(
        svg,
        r#"<rect x="{}" y="{}" width="{}" height="{}" rx="2"/>"#,
        round(zero),
        round(y + 5.0),
        round((end - zero).max(0.5)),
        round(ROW - 10.0)
    );
    if values.len() > 1 {
        let (low, high) = (x(quantile(values, 0.25)), x(quantile(values, 0.75)));
        let at = round(middle);
        let _ = write!(
            svg,
            r#"<line class="spread" x1="{}" y1="{at}" x2="{}" y2="{at}"/>"#,
            round(low),
            round(high)
        );
        for value in values.iter().take(MOST_DOTS) {
            let _ = write!(svg, r#"<circle cx="{}" cy="{at}" r="2.2"/>"#, round(x(*value)));
        }
    }
    let _ = write!(
        svg,
        r#"<text class="value" x="{}" y="{}">{}</text></g>"#,
        round(WIDTH - FIGURES + 10.0),
        round(middle + 4.0),
        escaped(&number(median(values)))
    );
    svg
}

/// The values that are to be seen: a few far away would make all others small.
fn shown(subject: &Subject) -> impl Iterator<Item = f64> {
    [median(&subject.values), quantile(&subject.values, 0.9)].into_iter().filter(|value| value.is_finite())
}

/// The axis' end and the distance of its lines, both round numbers.
fn scale(highest: f64) -> (f64, f64) {
    if !(highest.is_finite() && highest > 0.0) {
        return (1.0, 0.5);
    }
    let raw = highest / 4.0;
    let size = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * size).find(|step| *step >= raw);
    let step = step.unwrap_or(raw);
    ((highest / step).ceil() * step, step)
}

/// The chart in words.
fn described(figure: &Figure) -> String {
    let subjects: Vec<String> = figure.subjects.iter().map(said).collect();
    format!("{}, {}: {}", figure.title, figure.unit, subjects.join("; "))
}

fn said(subject: &Subject) -> String {
    format!("{} {}", subject.title, number(median(&subject.values)))
}

/// Coordinates with a digit behind the point.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Text that is no markup; characters that XML does not have are left out.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::{Better, Suite, Who};

    /// The names of a text's elements, which have to be well formed: closed in order, attributes quoted and given once, nothing
    /// but the five entities.
    pub fn elements(text: &str) -> Result<Vec<String>, String> {
        let (mut open, mut seen, mut rest) = (Vec::<String>::new(), Vec::new(), text);
        while let Some(at) = rest.find('<') {
            entities(&rest[..at])?;
            let end = rest[at..].find('>').ok_or("an element does not end")? + at;
            let inside = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if inside.starts_with('!') {
                continue;
            }
            if let Some(name) = inside.strip_prefix('/') {
                let last = open.pop().ok_or(format!("{name} ends, but none began"))?;
                if last != name {
                    return Err(format!("{name} ends within {last}"));
                }
                continue;
            }
            let (inside, alone) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
            let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
            attributes_of(attributes).map_err(|error| format!("{name}: {error}"))?;
            seen.push(name.to_owned());
            if !alone {
                open.push(name.to_owned());
            }
        }
        entities(rest)?;
        if open.is_empty() { Ok(seen) } else { Err(format!("{open:?} do not end")) }
    }

    fn attributes_of(mut text: &str) -> Result<(), String> {
        let mut names = std::collections::BTreeSet::new();
        while !text.trim().is_empty() {
            let (name, rest) = text.trim_start().split_once("=\"").ok_or(format!("no value: {text}"))?;
            let (value, rest) = rest.split_once('"').ok_or(format!("{name} does not end"))?;
            entities(value)?;
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') || !names.insert(name.to_owned())
            {
                return Err(format!("{name} is no name, or there twice"));
            }
            text = rest;
        }
        Ok(())
    }

    fn entities(text: &str) -> Result<(), String> {
        for part in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|entity| part.starts_with(entity));
            if !known {
                return Err(format!("&{part} is no entity"));
            }
        }
        if text.contains('\0') { Err("a character that XML has not".to_owned()) } else { Ok(()) }
    }

    #[test]
    fn ill_formed_text_is_seen() {
        for bad in
            ["<a><b></a></b>", "<a>", "</a>", "<a b=1/>", r#"<a b="1" b="2"/>"#, "a & b", "<a b=\"&x;\"/>"]
        {
            assert!(elements(bad).is_err(), "{bad}");
        }
        assert_eq!(elements(r#"<a><b c="1&lt;"/>&amp;</a>"#).unwrap(), ["a", "b"]);
    }

    #[test]
    fn charts_are_well_formed_whatever_is_in_them() {
        let hostile = "<script>alert('\"1&2\"')</script>\u{0}\u{1b}";
        let mut figure = Figure::new(Suite::Overlay, "k", hostile, "µs", Better::Lower);
        for (key, values) in [("a", vec![1.0, 2.0, 300.0]), ("b", vec![0.0]), ("c", vec![1e-9, 1e14])] {
            for value in values {
                figure.add(Who::ours(key, hostile), value, None);
            }
        }
        let svg = chart(&figure);
        let seen = elements(&svg).unwrap();
        assert_eq!(seen.iter().filter(|name| *name == "rect").count(), 3);
        assert_eq!(seen.iter().filter(|name| *name == "circle").count(), 5);
        assert!(!svg.contains("<script") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let empty = chart(&Figure::new(Suite::Overlay, "k", "t", "u", Better::Lower));
        elements(&empty).unwrap();
    }

    #[test]
    fn bars_are_as_long_as_values_are_large() {
        let mut figure = Figure::new(Suite::Overlay, "k", "t", "u", Better::Lower);
        figure.add(Who::peer("a", "a"), 100.0, None);
        figure.add(Who::ours("b", "b"), 50.0, None);
        let svg = chart(&figure);
        let width = |class: &str| -> f64 {
            let group = svg.split_once(&format!("<g class=\"{class}\">")).unwrap().1;
            group.split_once("width=\"").unwrap().1.split('"').next().unwrap().parse().unwrap()
        };
        assert!((width("peer") / width("ours") - 2.0).abs() < 0.01, "{svg}");
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(scale(100.0), (100.0, 25.0));
        assert_eq!(scale(37.0), (40.0, 10.0));
        assert_eq!(scale(0.0), (1.0, 0.5));
        assert_eq!(scale(f64::NAN), (1.0, 0.5));
        let (top, step) = scale(1e14);
        assert!(top >= 1e14 && top / step <= 5.0);
    }
}
