//! Spans of time as people write them: `90s`, `30m`, `1h30m`, `2d`.

use thiserror::Error;

const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a time such as 30s, 10m, 1h30m or 2d")]
pub struct SecondsError(String);

/// Reads a span of time; whole seconds, at most `u32::MAX`. `0` needs no unit, other numbers do.
pub fn parse_seconds(text: &str) -> Result<u32, SecondsError> {
    let bad = || SecondsError(text.to_owned());
    if text == "0" {
        return Ok(0);
    }
    let mut total = 0u32;
    let mut units = UNITS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let number: u32 = number.parse().map_err(|_| bad())?;
        let unit = tail.chars().next().ok_or_else(bad)?;
        // Each unit once, the larger ones first.
        let (_, seconds) = units.find(|(letter, _)| *letter == unit).ok_or_else(bad)?;
        total = number.checked_mul(*seconds).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        rest = &tail[unit.len_utf8()..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

/// The text that [`parse_seconds`] reads.
pub fn format_seconds(seconds: u32) -> String {
    if seconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = seconds;
    for (letter, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{letter}", rest / size));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("30s", 30), ("90s", 90), ("1h30m", 5400), ("2d", 172_800)]
        {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for bad in
            ["", "30", "s", "1m1h", "1s1s", "-1s", "1.5s", "5000000000s", "99999999d", "1 s", "1ms", "1é"]
        {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(format_seconds(5400), "1h30m");
    }

    proptest! {
        #[test]
        fn text_round_trips(seconds: u32) {
            prop_assert_eq!(parse_seconds(&format_seconds(seconds)), Ok(seconds));
        }

        #[test]
        fn noise_never_panics(text in ".{0,20}") {
            let _ = parse_seconds(&text);
        }
    }
}
