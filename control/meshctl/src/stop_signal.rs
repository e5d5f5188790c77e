//! Signals by name or number.

use std::{fmt, str::FromStr};

use nix::sys::signal::Signal;

/// A signal that somebody names: `TERM`, `SIGTERM`, `term` or `15`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(pub Signal);

impl FromStr for StopSignal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a signal such as TERM, QUIT or 15");
        if let Ok(number) = text.parse::<i32>() {
            return Signal::try_from(number).map(Self).map_err(|_| bad());
        }
        let name = text.to_ascii_uppercase();
        let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
        name.parse().map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(text.parse(), Ok(StopSignal(Signal::SIGTERM)), "{text}");
        }
        for bad in ["", "SIG", "FOO", "0", "99", "-15"] {
            assert!(bad.parse::<StopSignal>().is_err(), "{bad}");
        }
    }
}
