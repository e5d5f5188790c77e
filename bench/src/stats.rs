//! Medians, spreads, and whether two lots of values differ.

mod rank_sum;

pub use rank_sum::{ERROR, Shift, shift, together};

/// The median, of an even number of values the middle of the two in the middle; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which `share` of all lie, drawn straight between the two nearest; NaN of nothing.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (sorted.get(place.floor() as usize), sorted.get(place.ceil() as usize));
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * place.fract(),
        _ => f64::NAN,
    }
}

/// One of the values, below which about `share` of all lie; NaN of nothing.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Ratios of what was measured in the same round. Where there are not as many of both, that of the medians.
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    if values.len() != base.len() {
        return vec![median(values) / median(base)];
    }
    values.iter().zip(base).map(|(value, base)| value / base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_of_the_road() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0, 5.0], 1.0), 5.0);
        assert_eq!(quantile(&[5.0, 1.0, 2.0, 3.0, 4.0], 0.25), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.75), 1.75);
        assert_eq!(quantile(&[7.0], 0.25), 7.0);
        assert!(median(&[]).is_nan() && percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(median(&ratios(&[2.0, 9.0, 4.0], &[1.0, 3.0, 2.0])), 2.0);
        assert_eq!(ratios(&[2.0, 4.0, 6.0], &[2.0]), [2.0]);
    }
}
