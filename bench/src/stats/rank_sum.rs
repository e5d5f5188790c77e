//! The rank sum test (Mann and Whitney 1947; Wilcoxon 1945), which asks nothing of how values are distributed, and the
//! shift between two lots with its interval (Hodges and Lehmann 1963), by factors.

/// Beyond so many of either, the distribution is near enough a normal one.
const EXACT: usize = 40;
/// How often an interval may miss the truth, and a difference be seen where there is none.
pub const ERROR: f64 = 0.05;

/// How a new lot of values lies to an old one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// By what the old values are to be multiplied: the median of all quotients. NaN where a value is not above zero.
    pub factor: f64,
    /// In which the true factor lies, 19 times of 20; without limits when there are too few values to say.
    pub interval: (f64, f64),
    /// How likely lots that differ as much as these are, or more, when there is no difference.
    pub p: f64,
    /// The least that `p` could be with so many values.
    pub least_p: f64,
}

impl Shift {
    /// Whether so many values could show a difference at all.
    pub fn can_tell(&self) -> bool {
        self.least_p <= ERROR
    }
}

/// How `new` lies to `old`.
pub fn shift(old: &[f64], new: &[f64]) -> Shift {
    let wins: f64 = new
        .iter()
        .flat_map(|new| old.iter().map(move |old| if new > old { 1.0 } else { f64::from(new == old) / 2.0 }))
        .sum();
    let pairs = old.len() * new.len();
    let least = Chances::of(old.len(), new.len());
    // Where values are equal, the larger chance: rather no difference seen than one that is none.
    let fewer = wins.min(pairs as f64 - wins).ceil() as usize;
    let p = (2.0 * least.at_most(fewer)).min(1.0);
    let (factor, interval) = factor(old, new, &least);
    Shift { factor, interval, p, least_p: (2.0 * least.at_most(0)).min(1.0) }
}

fn factor(old: &[f64], new: &[f64], chances: &Chances) -> (f64, (f64, f64)) {
    if old.iter().chain(new).any(|value| *value <= 0.0) {
        return (f64::NAN, (f64::NEG_INFINITY, f64::INFINITY));
    }
    let mut quotients: Vec<f64> = new.iter().flat_map(|new| old.iter().map(move |old| new / old)).collect();
    quotients.sort_by(f64::total_cmp);
    let outside = (0..quotients.len() / 2).take_while(|&k| 2.0 * chances.at_most(k) <= ERROR).count();
    let interval = match outside {
        0 => (f64::NEG_INFINITY, f64::INFINITY),
        k => (quotients[k - 1], quotients[quotients.len() - k]),
    };
    (super::median(&quotients), interval)
}

/// How many of all pairs the new lot wins, by chance alone.
enum Chances {
    /// The chance of at most so many, for each number.
    Exact(Vec<f64>),
    /// Of a normal distribution.
    Normal { mean: f64, deviation: f64 },
}

impl Chances {
    fn of(n: usize, m: usize) -> Self {
        if n <= EXACT && m <= EXACT {
            return Self::Exact(exact(n, m));
        }
        let (n, m) = (n as f64, m as f64);
        Self::Normal { mean: n * m / 2.0, deviation: (n * m * (n + m + 1.0) / 12.0).sqrt() }
    }

    fn at_most(&self, wins: usize) -> f64 {
        match self {
            Self::Exact(chances) => chances.get(wins).copied().unwrap_or(1.0),
            Self::Normal { mean, deviation } => normal((wins as f64 + 0.5 - mean) / deviation),
        }
    }
}

/// Counts in how many orders of `n` and `m` values the one lot wins so many pairs: the coefficients of the Gaussian
/// binomial, built factor by factor.
fn exact(n: usize, m: usize) -> Vec<f64> {
    let pairs = n * m;
    let mut orders = vec![0.0; pairs + 1];
    orders[0] = 1.0;
    for factor in 1..=n {
        // Times 1 - q^(m + factor), then by 1 - q^factor.
        for wins in (m + factor..=pairs).rev() {
            orders[wins] -= orders[wins - m - factor];
        }
        for wins in factor..=pairs {
            orders[wins] += orders[wins - factor];
        }
    }
    let all: f64 = orders.iter().sum();
    let mut sum = 0.0;
    orders
        .iter()
        .map(|count| {
            sum += count;
            sum / all
        })
        .collect()
}

/// The normal distribution (Abramowitz and Stegun 26.2.17; wrong by less than 1e-7).
fn normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let tail = density * series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// Chances that stand together (Benjamini and Hochberg 1995): of those that are at most 0.05 afterwards, one in twenty is
/// expected to be by chance, however many were looked at.
pub fn together(chances: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|a, b| chances[*b].total_cmp(&chances[*a]));
    let mut adjusted = vec![1.0; chances.len()];
    let mut least: f64 = 1.0;
    for (before, index) in order.into_iter().enumerate() {
        let rank = chances.len() - before;
        least = least.min(chances[index] * chances.len() as f64 / rank as f64);
        adjusted[index] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, wanted: f64) {
        assert!((value - wanted).abs() < 1e-4, "{value} is not {wanted}");
    }

    #[test]
    fn chances_are_those_of_the_books() {
        // All of one lot above the other: 2 of 252 orders, 2 of 20.
        near(shift(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]).p, 2.0 / 252.0);
        near(shift(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).p, 0.1);
        // Tables for 5 and 5: at most 2 is 0.032 two-sided, at most 3 is 0.056.
        let chances = exact(5, 5);
        near(2.0 * chances[2], 8.0 / 252.0);
        near(2.0 * chances[3], 14.0 / 252.0);
        near(chances[25], 1.0);
        // By counting all orders of 2 and 3: 1, 1, 2, 2, 2, 1, 1 of ten.
        for (wins, sum) in [1.0, 2.0, 4.0, 6.0, 8.0, 9.0, 10.0].into_iter().enumerate() {
            near(exact(2, 3)[wins], sum / 10.0);
        }
    }

    #[test]
    fn the_normal_distribution_takes_over_smoothly() {
        near(normal(0.0), 0.5);
        near(normal(-1.96), 0.025);
        near(normal(1.96), 0.975);
        let normal = Chances::Normal { mean: 800.0, deviation: (40.0 * 40.0 * 81.0 / 12.0_f64).sqrt() };
        let exact = Chances::of(40, 40);
        for wins in [500, 600, 700, 800] {
            assert!((normal.at_most(wins) - exact.at_most(wins)).abs() < 0.003, "{wins}");
        }
        assert!(matches!(Chances::of(41, 3), Chances::Normal { .. }));
    }

    #[test]
    fn equal_values_are_no_difference() {
        let shift = shift(&[2.0; 5], &[2.0; 5]);
        assert_eq!((shift.p, shift.factor), (1.0, 1.0));
        assert!(shift.can_tell() && shift.interval.0 <= 1.0 && shift.interval.1 >= 1.0);
    }

    #[test]
    fn a_difference_is_seen_where_one_lies_outside_the_interval() {
        let old = [100.0, 102.0, 98.0, 101.0, 99.0];
        for (by, seen) in [(1.0, false), (1.01, false), (1.1, true), (0.9, true)] {
            let new = old.map(|value| value * by + 0.1);
            let shift = shift(&old, &new);
            let outside = shift.interval.0 > 1.0 || shift.interval.1 < 1.0;
            assert_eq!(outside, seen, "{by}: {shift:?}");
            assert_eq!(shift.p <= ERROR, seen, "{by}: {shift:?}");
            assert!((shift.factor - by).abs() < 0.01, "{by}: {shift:?}");
        }
    }

    #[test]
    fn three_values_tell_nothing() {
        let shift = shift(&[1.0, 1.1, 1.2], &[5.0, 5.1, 5.2]);
        assert!(!shift.can_tell() && shift.interval.1.is_infinite(), "{shift:?}");
        let none = super::shift(&[], &[1.0]);
        assert!(!none.can_tell() && none.p == 1.0, "{none:?}");
    }

    #[test]
    fn no_factor_of_what_may_be_nothing() {
        let shift = shift(&[0.0; 6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(shift.factor.is_nan() && shift.p < 0.01, "{shift:?}");
    }

    #[test]
    fn many_looks_want_more() {
        let chances = [0.01, 0.04, 0.03, 0.5];
        let adjusted = together(&chances);
        for (value, wanted) in adjusted.iter().zip([0.04, 0.053_333, 0.053_333, 0.5]) {
            near(*value, wanted);
        }
        assert!(together(&[]).is_empty());
    }
}
