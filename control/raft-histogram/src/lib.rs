//! Stands in for the crate of this name, by which openraft counts batch sizes and latencies (`[patch.crates-io]` in the
//! workspace's manifest).
//!
//! That one computes tables for sixteen scales when the first histogram is made and keeps them for ever: 26 MiB of every
//! manager's memory, of which openraft uses two kilobytes. This one counts by powers of two: what it tells of a
//! distribution is right to a factor of two. It has what openraft asks for and no more; drop it once the other makes its
//! tables when they are asked for.

use std::{fmt, marker::PhantomData};

/// One bucket for zero and one for each bit length.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each order of magnitude were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    buckets: [u64; BUCKETS],
    of: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], of: PhantomData }
    }
}

impl<T> Histogram<T> {
    /// One without values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value as often as `count` says.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bits] = self.buckets[bits].saturating_add(count);
    }

    /// Values that were recorded.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The largest value of the bucket below whose end at least `permille` of a thousand values are; zero without values.
    fn permille(&self, permille: u64) -> u64 {
        let wanted = u128::from(self.total()) * u128::from(permille);
        let mut below = 0;
        for (bits, &count) in self.buckets.iter().enumerate() {
            below += u128::from(count) * 1000;
            if below > 0 && below >= wanted {
                return if bits == 0 { 0 } else { u64::MAX >> (BUCKETS - 1 - bits) };
            }
        }
        0
    }

    /// What values are like.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }
}

/// How many values there are, and below which value how many of a hundred of them lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, .. } = self;
        write!(f, "{samples} samples, p50 {p50}, p90 {p90}, p99 {p99}")
    }
}

/// Histograms for people.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()>(Vec<(String, Histogram<T>)>);

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> AsciiChart<T> {
    /// One without histograms.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }

    /// As text, a line each.
    #[must_use]
    pub fn detailed(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            self.0.iter().try_for_each(|(name, of)| writeln!(f, "{name}: {}", of.percentile_stats()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_to_a_factor_of_two() {
        let mut histogram = Histogram::<()>::new();
        for value in 1..=1000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        for (said, value) in [(stats.p1, 10), (stats.p50, 500), (stats.p90, 900), (stats.p99_9, 999)] {
            assert!((value..value * 2).contains(&said), "{said} of {value}");
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.total(), histogram.percentile_stats().p50), (0, 0));
        histogram.record(0);
        assert_eq!(histogram.percentile_stats().p99_9, 0);
        histogram.record_n(u64::MAX, u64::MAX);
        assert_eq!(histogram.percentile_stats().p99_9, u64::MAX);
    }

    #[test]
    fn a_chart_has_a_line_for_each() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(3, 5);
        let chart = AsciiChart::new().add("one", histogram).add("none", Histogram::new());
        assert_eq!(
            chart.detailed().to_string(),
            "one: 5 samples, p50 3, p90 3, p99 3\nnone: 0 samples, p50 0, p90 0, p99 0\n"
        );
    }
}
