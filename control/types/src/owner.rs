//! Who attached a task: what runtimes call it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of the longest owner.
const MAX: usize = 255;

/// The name by which whoever attached a task asks for it again, such as `cni:prod/4f1e.../eth0` or `docker:9a0c...`: 1 to
/// 255 printable characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

/// The text is no owner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("owner {0:?}: 1 to {MAX} bytes of printable characters are allowed")]
pub struct OwnerError(String);

impl Owner {
    /// Checks `text`; the error names it.
    pub fn new(text: impl Into<String>) -> Result<Self, OwnerError> {
        let text = text.into();
        match text.is_empty() || text.len() > MAX || text.chars().any(char::is_control) {
            true => Err(OwnerError(text)),
            false => Ok(Self(text)),
        }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Owner {
    type Err = OwnerError;
    fn from_str(text: &str) -> Result<Self, OwnerError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Owner {
    type Error = OwnerError;
    fn try_from(text: String) -> Result<Self, OwnerError> {
        Self::new(text)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_printable() {
        for ok in ["cni:prod/0a1b/eth0", "docker:x", "a b", &"x".repeat(255)] {
            assert_eq!(Owner::new(ok).unwrap().as_str(), ok);
        }
        for bad in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(Owner::new(bad).is_err(), "{bad:?}");
        }
    }
}
