//! Figures for people.

/// Three digits that say something, more before the point where there are more; a dash for what is no number.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "-".to_owned(),
        _ if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.1 => format!("{value:.2}"),
        _ if size >= 0.000_1 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// A factor as a change, such as `+3.1 %`.
pub fn percent(factor: f64) -> String {
    if factor.is_finite() { format!("{:+.1} %", (factor - 1.0) * 100.0) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_that_say_something() {
        let cases = [
            (123_456.7, "123457"),
            (99.96, "100.0"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.01234, "0.0123"),
            (0.0, "0"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
            (0.000_01, "1.0e-5"),
            (-2.5, "-2.50"),
        ];
        for (value, wanted) in cases {
            assert_eq!(number(value), wanted);
        }
        assert_eq!(percent(1.031), "+3.1 %");
        assert_eq!(percent(0.5), "-50.0 %");
        assert_eq!(percent(f64::NAN), "-");
    }
}
