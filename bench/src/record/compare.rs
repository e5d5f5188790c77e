//! What is different between two runs, beyond what rounds differ among themselves.
//!
//! Machines have moods that last longer than a run. So where a figure has a base, ratios to it are compared, each of one
//! round; what has none is compared as it is, and said to be.

use super::{Better, Figure, Record, Subject, Suite};
use crate::stats::{ERROR, Shift, median, ratios, shift, together};

/// Two runs side by side.
#[derive(Debug)]
pub struct Comparison {
    /// All that both measured.
    pub changes: Vec<Change>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// One figure of one subject in both.
#[derive(Debug)]
pub struct Change {
    /// Of which suite.
    pub suite: Suite,
    /// Figure and subject, for people.
    pub what: String,
    /// What ratios are to, or the unit.
    pub of: String,
    /// Medians.
    pub old: f64,
    /// See `old`.
    pub new: f64,
    /// How they differ.
    pub shift: Shift,
    /// What that says.
    pub verdict: Verdict,
    /// Which way is the good one.
    pub better: Better,
}

/// What can be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there; of twenty such verdicts one is expected to be wrong.
    Changed,
    /// It would be, had only this been looked at: among many, some look so by chance.
    Perhaps,
    /// No more than rounds differ among themselves.
    Noise,
    /// So few rounds show nothing, however much they differ.
    TooFew,
}

impl Verdict {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Perhaps => "perhaps",
            Self::Noise => "within noise",
            Self::TooFew => "too few rounds",
        }
    }
}

impl Change {
    /// Whether a difference is for the better.
    pub fn improved(&self) -> bool {
        (self.new > self.old) == (self.better == Better::Higher)
    }

    /// For people, with the direction where there is one.
    pub fn said(&self) -> String {
        let title = self.verdict.title();
        match self.verdict {
            Verdict::Changed | Verdict::Perhaps if self.improved() => format!("{title}: better"),
            Verdict::Changed | Verdict::Perhaps => format!("{title}: worse"),
            _ => title.to_owned(),
        }
    }
}

impl Comparison {
    /// How many have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().filter(|change| change.verdict == verdict).count()
    }

    /// In one sentence.
    pub fn summary(&self) -> String {
        let count = |verdict| self.count(verdict);
        let mut text = format!(
            "Of {} figures {} changed, {} perhaps, {} are within noise",
            self.changes.len(),
            count(Verdict::Changed),
            count(Verdict::Perhaps),
            count(Verdict::Noise)
        );
        let few = count(Verdict::TooFew);
        if few > 0 {
            text += &format!(
                ", {few} have too few rounds to say (four of each, at least; more among many figures)"
            );
        }
        text + "."
    }
}

/// Compares `new` with `old`.
pub fn compare(old: &Record, new: &Record) -> Comparison {
    let mut notes = new.machine.differs(&old.machine);
    notes.iter_mut().for_each(|note| *note = format!("another machine: {note}"));
    if old.quick || new.quick {
        notes.push("a quick run is among them: it shows that all works, hardly more".to_owned());
    }
    let (mut changes, mut missing) = (Vec::new(), Vec::new());
    for figure in &old.figures {
        match new.figures.iter().find(|other| (other.suite, &other.key) == (figure.suite, &figure.key)) {
            Some(other) if other.unit == figure.unit => changes.extend(both(figure, other)),
            Some(_) => notes.push(format!("{} is in another unit now, so it is not compared", figure.title)),
            None => missing.push(figure.title.as_str()),
        }
    }
    if !missing.is_empty() {
        notes.push(format!("measured then, not now: {}", missing.join("; ")));
    }
    let told: Vec<usize> = (0..changes.len()).filter(|&index| changes[index].shift.can_tell()).collect();
    let chances: Vec<f64> = told.iter().map(|&index| changes[index].shift.p).collect();
    for (index, adjusted) in told.into_iter().zip(together(&chances)) {
        changes[index].verdict = match changes[index].shift.p {
            _ if adjusted <= ERROR => Verdict::Changed,
            p if p <= ERROR => Verdict::Perhaps,
            _ => Verdict::Noise,
        };
    }
    Comparison { changes, notes }
}

/// What both have, value by value and processor time by processor time.
fn both(old: &Figure, new: &Figure) -> Vec<Change> {
    let mut changes = Vec::new();
    for was in &old.subjects {
        let Some(is) = new.subject(&was.key) else { continue };
        let values = |subject: &Subject| Some(subject.values.clone());
        let times = |subject: &Subject| subject.cpu().map(|cpu| cpu.values.clone());
        changes.extend(one(old, new, (was, is), "", &new.unit, new.better, values));
        let unit = is.cpu().map_or("", |cpu| cpu.unit.as_str());
        changes.extend(one(old, new, (was, is), ", processor time", unit, Better::Lower, times));
    }
    changes
}

fn one(
    old: &Figure,
    new: &Figure,
    (was, is): (&Subject, &Subject),
    of_what: &str,
    unit: &str,
    better: Better,
    series: impl Fn(&Subject) -> Option<Vec<f64>>,
) -> Option<Change> {
    let (before, after) = (series(was)?, series(is)?);
    // Ratios of rounds, where both runs have them.
    let by_base = || {
        let (then, now) = (old.base()?, new.base()?);
        let (base_then, base_now) = (series(then)?, series(now)?);
        let paired = then.key == now.key && is.key != now.key;
        let whole = base_then.len() == before.len() && base_now.len() == after.len();
        let positive = base_then.iter().chain(&base_now).all(|value| *value > 0.0);
        let to = format!("to {}", now.title);
        (paired && whole && positive).then(|| (to, ratios(&before, &base_then), ratios(&after, &base_now)))
    };
    let (of, old_values, new_values) = by_base().unwrap_or((unit.to_owned(), before, after));
    Some(Change {
        suite: new.suite,
        what: format!("{}, {}{of_what}", new.title, is.title),
        of,
        old: median(&old_values),
        new: median(&new_values),
        shift: shift(&old_values, &new_values),
        verdict: Verdict::TooFew,
        better,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Who;

    /// Rounds whose moods differ widely, ours `share` of the base in each, give or take a per cent.
    fn record(share: f64, rounds: usize, mood: f64) -> Record {
        let mut record = Record::begin(String::new(), false).unwrap();
        for round in 0..rounds {
            let base = mood * (1.0 + (round % 3) as f64);
            let ours = base * share * (1.0 + 0.01 * ((round * 7 % 5) as f64 - 2.0) / 2.0);
            let figure = Figure::new(Suite::Overlay, "rate", "rate", "1/s", Better::Higher).beside("base");
            let figure = record.figure(figure);
            figure.add(Who::peer("base", "underlay"), base, None);
            figure.add(Who::ours("mesh", "overlay"), ours, Some(("us", 1.0)));
        }
        record
    }

    fn verdicts(old: &Record, new: &Record) -> Vec<(String, String)> {
        compare(old, new).changes.iter().map(|change| (change.what.clone(), change.said())).collect()
    }

    #[test]
    fn a_change_is_seen_through_moods() {
        let old = record(0.9, 7, 100.0);
        let seen = verdicts(&old, &record(0.8, 7, 90.0));
        assert_eq!(seen[0], ("rate, underlay".to_owned(), "within noise".to_owned()));
        assert_eq!(seen[1], ("rate, overlay".to_owned(), "changed: worse".to_owned()));
        assert_eq!(seen[2], ("rate, overlay, processor time".to_owned(), "within noise".to_owned()));
        assert_eq!(verdicts(&record(0.8, 7, 90.0), &old)[1].1, "changed: better");
        let seen = verdicts(&old, &record(0.901, 7, 110.0));
        assert!(seen.iter().all(|(_, said)| said == "within noise"), "{seen:?}");
    }

    #[test]
    fn few_rounds_and_many_figures_are_minded() {
        let seen = verdicts(&record(0.9, 3, 100.0), &record(0.1, 3, 100.0));
        assert!(seen.iter().all(|(_, said)| said == "too few rounds"), "{seen:?}");
        // One among many whose rounds differ: with five rounds it could be chance.
        let (mut old, mut new) = (record(0.9, 5, 100.0), record(0.8, 5, 100.0));
        for number in 0..40 {
            for (record, shift) in [(&mut old, 0.0), (&mut new, 0.5)] {
                for round in 0..5 {
                    let key = format!("other{number}");
                    let figure = Figure::new(Suite::Mesh, &key, &key, "1/s", Better::Higher);
                    record.alone(figure, 100.0 + f64::from(round) + shift);
                }
            }
        }
        let comparison = compare(&old, &new);
        assert_eq!(comparison.count(Verdict::Changed), 0);
        let overlay = comparison.changes.iter().find(|change| change.what == "rate, overlay").unwrap();
        assert_eq!(overlay.said(), "perhaps: worse");
        assert!(comparison.summary().contains("1 perhaps"), "{}", comparison.summary());
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let old = record(0.9, 5, 1.0);
        let mut new = record(0.9, 5, 1.0);
        new.figures[0].unit = "1000/s".to_owned();
        new.machine.kernel = "6.99".to_owned();
        let notes = compare(&old, &new).notes.join("\n");
        assert!(notes.contains("another unit") && notes.contains("kernel: 6.99, then"), "{notes}");
        new.figures.clear();
        assert!(compare(&old, &new).notes.join("\n").contains("not now: rate"));
    }
}
