//! The key that unlocks managers when they start.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::base36::{self, Fault};

const PREFIX: &str = "MESHKEY";
const VERSION: &str = "1";

/// A key of 256 random bits, written down by people: `MESHKEY-1-<50 digits and small letters>`.
#[derive(Clone)]
pub struct UnlockKey([u8; 32]);

/// Why a text is no unlock key. Nothing of it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnlockKeyError {
    /// It does not begin as unlock keys of this version do.
    #[error("an unlock key begins with {PREFIX}-{VERSION}-, this does not")]
    Prefix,
    /// Too short or too long.
    #[error(
        "the unlock key has {found} characters behind {PREFIX}-{VERSION}- instead of {expected}: was it cut off?"
    )]
    Length {
        /// Characters it should have.
        expected: usize,
        /// Characters it has.
        found: usize,
    },
    /// Mistyped.
    #[error("the unlock key is mistyped: it has only the characters 0-9 and a-z")]
    Mistyped,
}

impl UnlockKey {
    /// A new one, from the operating system's randomness.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for UnlockKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for UnlockKey {}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnlockKey({PREFIX}-{VERSION}-***)")
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{VERSION}-{}", base36::encode(&self.0))
    }
}

impl FromStr for UnlockKey {
    type Err = UnlockKeyError;

    fn from_str(text: &str) -> Result<Self, UnlockKeyError> {
        let rest = text.trim().strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'));
        let rest = rest.and_then(|rest| rest.strip_prefix(VERSION)).and_then(|rest| rest.strip_prefix('-'));
        let rest = rest.ok_or(UnlockKeyError::Prefix)?;
        base36::decode(rest).map(Self).map_err(|fault| match fault {
            Fault::Length(found) => UnlockKeyError::Length { expected: base36::len(32), found },
            Fault::Character(_) | Fault::Overflow => UnlockKeyError::Mistyped,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_mistyped_is_named_and_not_shown() {
        let key = UnlockKey::from_bytes([7; 32]);
        let text = key.to_string();
        assert_eq!("SWMKEY-1-x".parse::<UnlockKey>(), Err(UnlockKeyError::Prefix));
        let cut = &text[..text.len() - 2];
        assert_eq!(cut.parse::<UnlockKey>(), Err(UnlockKeyError::Length { expected: 50, found: 48 }));
        assert_eq!(text.to_uppercase().parse::<UnlockKey>(), Err(UnlockKeyError::Mistyped));
        assert!(!format!("{key:?}").contains(&text[12..]));
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 32], noise in ".{0,80}") {
            let key = UnlockKey::from_bytes(bytes);
            prop_assert_eq!(format!(" {key}\n").parse::<UnlockKey>().unwrap(), key);
            let _ = noise.parse::<UnlockKey>();
        }
    }
}
