//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! Sources: prometheus.io/docs/instrumenting/exposition_formats, and the OpenMetrics specification of 2020.

use std::fmt::{self, Write as _};

/// Which text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus' own, which everything reads.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// What a client accepts by its `Accept` header: OpenMetrics 1.0 where it names that, and not with less weight than plain
    /// text.
    pub fn accepted(accept: &str) -> Self {
        let (mut open, mut plain) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1000, None);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", q)) => {
                        weight = q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32)
                    }
                    Some(("version", text)) => version = Some(text.trim_matches('"')),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if version.is_none_or(|v| v == "1.0.0") => {
                    open = open.max(weight)
                }
                "text/plain" | "text/*" | "*/*" => plain = plain.max(weight),
                _ => {}
            }
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// What the text is, for `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What kind of numbers a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
    /// Always 1: what matters are the labels; its sample ends in `_info`.
    Info,
}

/// Samples of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name without what [`Kind`] adds.
    pub name: &'static str,
    /// See there.
    pub kind: Kind,
    /// What is counted, in one line.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// The units that names end in.
const UNITS: [&str; 2] = ["seconds", "bytes"];

impl Family {
    /// The name that is asked for: with `_total` or `_info`, but nothing for the parts of histograms.
    pub fn sample_name(&self) -> String {
        format!("{}{}", self.name, self.suffix())
    }

    fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }

    /// `seconds` or `bytes`, where the name ends so.
    pub fn unit(&self) -> Option<&'static str> {
        UNITS.into_iter().find(|unit| self.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }
}

/// The labels of a sample, ready to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    /// Each name with its value, whatever characters that has.
    pub fn new(names: &[&str], values: &[&str]) -> Self {
        let mut text = String::new();
        for (name, value) in names.iter().zip(values) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape(&mut text, value);
            text.push('"');
        }
        Self(text)
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            // Nothing that a line reader could take for an end, nor what hides in a terminal.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

/// A sample's number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any other.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Real(value) if value.is_nan() => f.write_str("NaN"),
            Self::Real(value) if value.is_infinite() => {
                f.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Real(value) => value.fmt(f),
        }
    }
}

/// Writes families one after the other; all samples of one together, as both formats want.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    out: String,
    begun: Vec<&'static str>,
}

/// The samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    writer: &'a mut Writer,
    family: &'static Family,
    headed: bool,
}

impl Writer {
    /// Begins a text.
    pub fn new(format: Format) -> Self {
        Self { format, out: String::with_capacity(64 * 1024), begun: Vec::new() }
    }

    /// The next family. One without samples leaves no line. A family that was there already gets no more samples: what
    /// reads the text would refuse all of it.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        Samples { writer: self, family, headed: false }
    }

    /// One sample of a family without labels.
    pub fn single(&mut self, family: &'static Family, value: impl Into<Value>) {
        self.family(family).add(&Labels::default(), value);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

impl Samples<'_> {
    /// One sample.
    pub fn add(&mut self, labels: &Labels, value: impl Into<Value>) {
        if self.head() {
            self.line(self.family.suffix(), &labels.0, value.into());
        }
    }

    /// One sample, whose labels have these values.
    pub fn with(&mut self, values: &[&str], value: impl Into<Value>) {
        self.add(&Labels::new(self.family.labels, values), value);
    }

    /// A histogram: how many there are up to each bound (and no other), one more for those above all, and their sum.
    pub fn histogram(&mut self, values: &[&str], bounds: &[f64], buckets: &[u64], sum: f64) {
        if !self.head() {
            return;
        }
        let labels = Labels::new(self.family.labels, values).0;
        let separator = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        let bounds = bounds.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
        for (bound, many) in bounds.zip(buckets) {
            count += many;
            self.line("_bucket", &format!("{labels}{separator}le=\"{bound}\""), Value::Whole(count));
        }
        self.line("_sum", &labels, Value::Real(sum));
        self.line("_count", &labels, Value::Whole(count));
    }

    fn line(&mut self, suffix: &str, labels: &str, value: Value) {
        let out = &mut self.writer.out;
        out.push_str(self.family.name);
        out.push_str(suffix);
        if !labels.is_empty() {
            out.push('{');
            out.push_str(labels);
            out.push('}');
        }
        out.push(' ');
        match value {
            // Most samples are whole, and the general way takes three times as long.
            Value::Whole(number) => push_whole(out, number),
            // A String takes whatever is written to it.
            Value::Real(_) => drop(write!(out, "{value}")),
        }
        out.push('\n');
    }

    /// Whether samples may follow: writes what stands before them.
    fn head(&mut self) -> bool {
        if self.headed {
            return true;
        }
        if self.writer.begun.contains(&self.family.name) {
            return false;
        }
        self.writer.begun.push(self.family.name);
        self.headed = true;
        let Family { name, kind, help, .. } = *self.family;
        let open = self.writer.format == Format::OpenMetrics;
        // In OpenMetrics a family is called without what its samples' names end in.
        let named = if open { name.to_owned() } else { self.family.sample_name() };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info if open => "info",
            Kind::Info => "gauge",
        };
        let mut escaped = String::new();
        escape(&mut escaped, help);
        let out = &mut self.writer.out;
        let _ = writeln!(out, "# HELP {named} {}", if open { &escaped } else { help });
        let _ = writeln!(out, "# TYPE {named} {kind}");
        if let Some(unit) = self.family.unit().filter(|_| open) {
            let _ = writeln!(out, "# UNIT {named} {unit}");
        }
        true
    }
}

/// In decimal.
fn push_whole(out: &mut String, mut number: u64) {
    // As many digits as the largest has.
    let mut digits = [0; 20];
    let mut begin = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        begin -= 1;
        if number == 0 {
            break;
        }
    }
    let text = digits.get(begin..).and_then(|digits| std::str::from_utf8(digits).ok());
    out.push_str(text.unwrap_or_default());
}

#[cfg(test)]
mod tests;
