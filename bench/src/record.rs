//! What a run measured, in one shape for all suites: tables, JSON, a page with charts and comparisons are made of it.

mod compare;
mod file;
mod machine;
mod number;
mod page;
mod svg;
mod table;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::stats::{median, ratios};

pub use compare::compare;
pub use file::{file_name, write};
pub use machine::Machine;
pub use page::page;
pub use table::{changes, text};

/// Names the format among other JSON.
pub const FORMAT: &str = "meshd-bench";
/// Raised when a field changes its meaning, or an old program could not read it.
pub const VERSION: u32 = 1;

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Nanoseconds a packet of each program, by test runs.
    Programs,
    /// Task to task on different nodes.
    Overlay,
    /// Published ports.
    Mesh,
    /// Names asked from inside a task.
    Dns,
    /// Managers: changes a second, new leaders, large states.
    Control,
    /// How soon a new task is reached and an ended one no more.
    Attach,
    /// The CNI plugin.
    Cni,
    /// Containers of a Docker engine.
    Docker,
    /// What meshd uses when nothing happens.
    Idle,
    /// Requests that fail when something ends.
    Loss,
    /// Lists of flows, and what watching costs.
    Seeing,
}

impl Suite {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Programs => "Programs by test runs",
            Self::Overlay => "Overlay",
            Self::Mesh => "Published ports",
            Self::Dns => "Names",
            Self::Control => "Control plane",
            Self::Attach => "Attach and end",
            Self::Cni => "CNI plugin",
            Self::Docker => "Docker's containers",
            Self::Idle => "Idle",
            Self::Loss => "Requests that fail",
            Self::Seeing => "Flows and what happens",
        }
    }
}

/// Which way is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// Everything that one run measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// When it began, RFC 3339 in UTC.
    pub date: String,
    /// Of the sources that were measured; empty when unknown, `-dirty` behind it when they were changed.
    pub commit: String,
    /// Whether little was measured, to see that all of it works.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was aimed at, and reached.
    pub targets: Vec<Target>,
    /// What a reader should know, such as what was left out.
    pub notes: Vec<String>,
}

/// One measure of several subjects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The suite that it is of.
    pub suite: Suite,
    /// For programs; one of its suite.
    pub key: String,
    /// For people, without the unit.
    pub title: String,
    /// Of the values.
    pub unit: String,
    /// Which way is the good one.
    pub better: Better,
    /// The key of the subject that the others are compared with, if there is one. It need not have been measured.
    pub base: Option<String>,
    /// Who was measured.
    pub subjects: Vec<Subject>,
}

/// What was measured of one way, program or peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// For programs; one of its figure.
    pub key: String,
    /// For people.
    pub title: String,
    /// Whether it is meshd's.
    pub ours: bool,
    /// A value for each round. Where all subjects have as many, those of one round have the same place.
    pub values: Vec<f64>,
    /// Processor time for each unit of work, with a value for each of the others.
    pub cpu: Option<Cpu>,
}

/// Processor time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Such as `us/packet`.
    pub unit: String,
    /// One for each of the subject's values.
    pub values: Vec<f64>,
}

/// What was aimed at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What is compared, for people.
    pub what: String,
    /// What it is compared with, or the unit.
    pub of: String,
    /// What was wanted.
    pub bound: Bound,
    /// What came out.
    pub measured: f64,
}

/// On which side of a limit a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Not below.
    AtLeast(f64),
    /// Not above.
    AtMost(f64),
}

impl Bound {
    /// Whether `value` is on the right side; what is no number never is.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
            Self::AtMost(limit) => write!(f, "at most {limit}"),
        }
    }
}

impl Target {
    /// Whether it was reached.
    pub fn met(&self) -> bool {
        self.bound.holds(self.measured)
    }
}

impl Record {
    /// An empty one, of this machine and this moment.
    pub fn begin(commit: String, quick: bool) -> anyhow::Result<Self> {
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            date: file::now()?,
            commit,
            quick,
            machine: Machine::this()?,
            figures: Vec::new(),
            targets: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The figure of that suite and key; the one given when there is none yet.
    pub fn figure(&mut self, new: Figure) -> &mut Figure {
        let known = self.figures.iter().position(|known| known.suite == new.suite && known.key == new.key);
        let index = known.unwrap_or_else(|| {
            self.figures.push(new);
            self.figures.len() - 1
        });
        &mut self.figures[index]
    }

    /// Adds a value that has no peer; `key` is the figure's, the subject is meshd.
    pub fn alone(&mut self, new: Figure, value: f64) {
        self.figure(new).add(Who::ours("meshd", "meshd"), value, None);
    }

    /// The median of the rounds' ratios of two subjects, if both were measured.
    pub fn ratio(&self, suite: Suite, figure: &str, subject: &str, base: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|known| known.suite == suite && known.key == figure)?;
        Some(median(&ratios(&figure.subject(subject)?.values, &figure.subject(base)?.values)))
    }

    /// Notes something once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The suites that have figures, in their order.
    pub fn suites(&self) -> Vec<Suite> {
        let mut suites: Vec<Suite> = self.figures.iter().map(|figure| figure.suite).collect();
        suites.sort();
        suites.dedup();
        suites
    }
}

/// Names a subject.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    key: &'a str,
    title: &'a str,
    ours: bool,
}

impl<'a> Who<'a> {
    /// Of meshd.
    pub fn ours(key: &'a str, title: &'a str) -> Self {
        Self { key, title, ours: true }
    }

    /// What meshd is compared with.
    pub fn peer(key: &'a str, title: &'a str) -> Self {
        Self { key, title, ours: false }
    }
}

impl Figure {
    /// One without values.
    pub fn new(
        suite: Suite,
        key: impl Into<String>,
        title: impl Into<String>,
        unit: &str,
        better: Better,
    ) -> Self {
        let (key, title, unit) = (key.into(), title.into(), unit.to_owned());
        Self { suite, key, title, unit, better, base: None, subjects: Vec::new() }
    }

    /// Compared with the subject of that key.
    pub fn beside(self, base: &str) -> Self {
        Self { base: Some(base.to_owned()), ..self }
    }

    /// Adds a value, and processor time with its unit. What is no number is left out.
    pub fn add(&mut self, who: Who<'_>, value: f64, cpu: Option<(&str, f64)>) {
        if !value.is_finite() {
            return;
        }
        let known = self.subjects.iter().position(|known| known.key == who.key);
        let index = known.unwrap_or_else(|| {
            let (key, title) = (who.key.to_owned(), who.title.to_owned());
            self.subjects.push(Subject { key, title, ours: who.ours, values: Vec::new(), cpu: None });
            self.subjects.len() - 1
        });
        let subject = &mut self.subjects[index];
        if let Some((unit, seconds)) = cpu.filter(|(_, seconds)| seconds.is_finite()) {
            let empty = Cpu { unit: unit.to_owned(), values: Vec::new() };
            let times = &mut subject.cpu.get_or_insert(empty).values;
            // One that came without would put the others in wrong places.
            if times.len() == subject.values.len() {
                times.push(seconds);
            }
        }
        subject.values.push(value);
    }

    /// The subject of that key.
    pub fn subject(&self, key: &str) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.key == key)
    }

    /// The subject that the others are compared with, if it was measured.
    pub fn base(&self) -> Option<&Subject> {
        self.subject(self.base.as_deref()?)
    }
}

impl Subject {
    /// Processor times, if each value has one.
    pub fn cpu(&self) -> Option<&Cpu> {
        self.cpu.as_ref().filter(|cpu| cpu.values.len() == self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_as_reached() {
        assert!(Bound::AtLeast(0.98).holds(0.98) && !Bound::AtLeast(0.98).holds(0.979));
        assert!(Bound::AtMost(1.15).holds(1.15) && !Bound::AtMost(1.15).holds(1.151));
        assert!(!Bound::AtMost(1.0).holds(f64::NAN) && !Bound::AtLeast(1.0).holds(f64::NAN));
    }

    #[test]
    fn values_come_together_and_ratios_are_of_the_same_round() {
        let mut record = Record::begin(String::new(), false).unwrap();
        let figure = || Figure::new(Suite::Overlay, "rate", "rate", "1/s", Better::Higher).beside("base");
        for (ours, base) in [(10.0, 10.0), (30.0, 60.0), (4.0, 5.0)] {
            record.figure(figure()).add(Who::ours("mesh", "meshd"), ours, Some(("us", 1.0)));
            record.figure(figure()).add(Who::peer("base", "a base"), base, None);
        }
        record.figure(figure()).add(Who::peer("base", "a base"), f64::NAN, None);
        assert_eq!(record.figures.len(), 1);
        assert_eq!(record.ratio(Suite::Overlay, "rate", "mesh", "base"), Some(0.8));
        assert_eq!(record.ratio(Suite::Overlay, "rate", "mesh", "other"), None);
        let mesh = record.figures[0].subject("mesh").unwrap();
        assert_eq!(mesh.cpu().unwrap().values, [1.0; 3]);
        assert!(record.figures[0].base().unwrap().cpu().is_none());
    }
}
