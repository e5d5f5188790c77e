//! How good it is meant to be, in the same run on the same machine.

use super::{Group, results::Results};
use crate::{load::Measure, path::Way, stats::median};

/// A ratio that is to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where both are measured.
    pub group: Group,
    /// By what.
    pub measure: Measure,
    /// Ours.
    pub way: Way,
    /// What it is compared with.
    pub base: Way,
    /// What the ratio is to be.
    pub bound: Bound,
}

/// On which side of a limit a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Not below.
    AtLeast(f64),
    /// Not above.
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

impl Bound {
    /// Whether `value` is on the right side; what is no number never is.
    pub fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(limit) => value >= limit,
            AtMost(limit) => value <= limit,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AtLeast(limit) => write!(f, "at least {limit}"),
            AtMost(limit) => write!(f, "at most {limit}"),
        }
    }
}

/// How one target was met.
#[derive(Debug)]
pub struct Outcome {
    /// What is compared, for people.
    pub what: String,
    /// What it is compared with.
    pub base: String,
    /// What came out.
    pub value: f64,
    /// What was wanted.
    pub bound: Bound,
}

impl Outcome {
    /// Whether it was.
    pub fn met(&self) -> bool {
        self.bound.holds(self.value)
    }
}

/// The outcome of every target for which there are figures.
pub fn outcomes(results: &Results) -> Vec<Outcome> {
    let ratios = all().into_iter().filter_map(|target| {
        let Target { group, measure, way, base, bound } = target;
        let value = results.ratio(group, measure, way, base)?;
        let what = format!("{}: {}", way.title(), measure.title());
        Some(Outcome { what, base: base.title().to_owned(), value, bound })
    });
    let programs = results.programs.iter().filter_map(|row| {
        let what = format!("{}: {}", row.program, row.what);
        let value = median(&row.nanoseconds);
        Some(Outcome { what, base: "ns a packet".to_owned(), value, bound: AtMost(row.at_most?) })
    });
    ratios.chain(programs).collect()
}

fn all() -> Vec<Target> {
    let target = |group, base, way, measure, bound| Target { group, measure, way, base, bound };
    let mut all = Vec::new();
    for (base, measure, bound) in [
        (Way::Underlay, Measure::Stream, AtLeast(0.98)),
        (Way::Underlay, Measure::UdpRoundTrip, AtMost(1.15)),
        (Way::Underlay, Measure::TcpRoundTrip, AtMost(1.15)),
        (Way::Underlay, Measure::UdpRate, AtLeast(0.78)),
        (Way::Underlay, Measure::KeepAlive, AtLeast(0.90)),
        (Way::Underlay, Measure::PerRequest, AtLeast(0.88)),
        (Way::Bridge, Measure::UdpRoundTrip, AtMost(0.85)),
        (Way::Bridge, Measure::TcpRoundTrip, AtMost(0.85)),
        (Way::Bridge, Measure::UdpRate, AtLeast(1.4)),
    ] {
        all.push(target(Group::Overlay, base, Way::Overlay, measure, bound));
    }
    for (way, base, bound) in [
        (Way::Near, Way::Straight, AtLeast(0.90)),
        (Way::Far, Way::Straight, AtLeast(0.70)),
        (Way::FarDirect, Way::Straight, AtLeast(0.80)),
        (Way::Far, Way::Dnat, AtLeast(1.25)),
        (Way::Far, Way::Haproxy, AtLeast(1.5)),
    ] {
        for measure in [Measure::KeepAlive, Measure::PerRequest] {
            all.push(target(Group::Published, base, way, measure, bound));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Sample;

    #[test]
    fn limits_count_as_reached() {
        assert!(AtLeast(0.98).holds(0.98) && !AtLeast(0.98).holds(0.979));
        assert!(AtMost(1.15).holds(1.15) && !AtMost(1.15).holds(1.151));
        assert!(!AtMost(1.0).holds(f64::NAN) && !AtLeast(1.0).holds(f64::NAN));
    }

    #[test]
    fn only_what_was_measured_has_an_outcome() {
        let mut results = Results::default();
        assert!(outcomes(&results).is_empty());
        for (way, value) in [(Way::Far, 60.0), (Way::Straight, 100.0)] {
            results.add(Group::Published, Measure::KeepAlive, way, Sample { value, cpu: 0.0 });
        }
        let outcomes = outcomes(&results);
        assert_eq!(outcomes.len(), 1);
        assert!(outcomes[0].value == 0.6 && !outcomes[0].met(), "{:?}", outcomes[0]);
    }
}
