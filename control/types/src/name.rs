//! Names of networks, services, tasks, nodes and aliases.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::TaskId;

/// A name people give: a DNS-safe text of 1 to 63 characters `[A-Za-z0-9_.-]`, first and last a letter or digit, and
/// between dots labels that are not empty and have no hyphen first or last (RFC 1123 section 2.1). What people say goes
/// through [`Name::new`]; what is read from files and messages through [`Name::known`].
///
/// Names compare without regard to case in DNS (RFC 4343); the store keeps them as written and refuses two that differ
/// only in case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing given.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than one DNS label may be.
    #[error("name {0:?} is longer than 63 characters")]
    TooLong(String),
    /// A character outside the allowed set, or a first or last character that is no letter or digit.
    #[error(
        "name {0:?}: only letters, digits, '_', '.' and '-' are allowed, a letter or digit first and last"
    )]
    Character(String),
    /// Nothing between two dots, or a hyphen beside one: nobody could ask for it.
    #[error("name {0:?}: two dots need something between them, and no '-' may stand beside a dot")]
    Label(String),
}

impl Name {
    /// Checks `text`; the error names it.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let name = Self::known(text)?;
        match name
            .0
            .split('.')
            .any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-'))
        {
            true => Err(NameError::Label(name.0)),
            false => Ok(name),
        }
    }

    /// As [`Name::new`], but labels are not looked at: managers and nodes may keep names such as `a..b`, which were taken
    /// once. Nobody can ask for them, but what has them has to be read, and removed.
    pub fn known(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 63 {
            return Err(NameError::TooLong(text));
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !inner || !edge(text.chars().next()) || !edge(text.chars().next_back()) {
            return Err(NameError::Character(text));
        }
        Ok(Self(text))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// As [`Name::known`]: for what is kept.
impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::known(text)
    }
}

impl From<TaskId> for Name {
    fn from(id: TaskId) -> Self {
        Self(id.to_string())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_swarm_accepts() {
        for ok in ["web", "web-1", "web_1", "a.b", "A9", "x", "a--b", "a_.b", "shop_web_1.3f2a"] {
            assert!(Name::new(ok).is_ok(), "{ok}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in ["", "-web", "web-", "we b", "wéb", "a/b", ".a", "a.", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
            assert!(Name::known(bad).is_err(), "{bad}");
        }
        for bad in ["a..b", "a.-b", "a-.b", "a...b"] {
            let error = Name::new(bad).unwrap_err();
            assert_eq!(error, NameError::Label(bad.to_owned()));
            assert!(error.to_string().contains(bad), "{error}");
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_a_name_before_is_read() {
        for text in ["a..b", "a-.b", "web"] {
            let read: Name = serde_json::from_value(text.into()).unwrap();
            assert_eq!(read.as_str(), text);
        }
        assert!(serde_json::from_value::<Name>("-a".into()).is_err());
    }
}
