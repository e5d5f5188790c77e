//! What was measured, sample by sample.

use std::collections::BTreeMap;

use super::Group;
use crate::{
    load::{Measure, Sample},
    path::Way,
    programs::Row,
    stats::median_ratio,
};

/// The samples of each way.
type Ways = Vec<(Way, Vec<Sample>)>;

/// Everything that was measured. Samples of one round have the same place in their lists.
#[derive(Default)]
pub struct Results {
    /// End to end.
    pub samples: BTreeMap<(Group, Measure), Ways>,
    /// By test runs.
    pub programs: Vec<Row>,
    /// What a reader should know, such as what could not be measured.
    pub notes: Vec<String>,
}

impl Results {
    /// Adds what a round brought.
    pub fn add(&mut self, group: Group, measure: Measure, way: Way, sample: Sample) {
        let ways = self.samples.entry((group, measure)).or_default();
        match ways.iter_mut().find(|(known, _)| *known == way) {
            Some((_, samples)) => samples.push(sample),
            None => ways.push((way, vec![sample])),
        }
    }

    /// The median of the rounds' ratios of one way to another, if both were measured.
    pub fn ratio(&self, group: Group, measure: Measure, way: Way, base: Way) -> Option<f64> {
        let values = |way| -> Option<Vec<f64>> {
            let (_, samples) =
                self.samples.get(&(group, measure))?.iter().find(|(known, _)| *known == way)?;
            Some(samples.iter().map(|sample| sample.value).collect())
        };
        Some(median_ratio(&values(way)?, &values(base)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut results = Results::default();
        for (mesh, base) in [(10.0, 10.0), (30.0, 60.0), (4.0, 5.0)] {
            for (way, value) in [(Way::Overlay, mesh), (Way::Underlay, base)] {
                results.add(Group::Overlay, Measure::Stream, way, Sample { value, cpu: 0.0 });
            }
        }
        let ratio = |way, base| results.ratio(Group::Overlay, Measure::Stream, way, base);
        assert_eq!(ratio(Way::Overlay, Way::Underlay), Some(0.8));
        assert_eq!(ratio(Way::Overlay, Way::Bridge), None);
    }
}
