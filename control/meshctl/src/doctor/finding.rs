//! What a check found.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::output::plain;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be looked at.
    Unchecked,
    /// May hurt.
    Warning,
    /// Something does not work.
    Failure,
}

/// One line of the doctor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: String,
    /// How it is.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What helps; null where nothing has to be done.
    pub cure: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: impl Into<String>, what: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Ok, what: what.into(), cure: None }
    }

    /// It cannot be known, for this reason.
    pub fn unchecked(check: impl Into<String>, why: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Unchecked, what: why.into(), cure: None }
    }

    /// It may hurt.
    pub fn warning(check: impl Into<String>, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Warning, what: what.into(), cure: Some(cure.into()) }
    }

    /// Something does not work.
    pub fn failure(check: impl Into<String>, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Failure, what: what.into(), cure: Some(cure.into()) }
    }
}

/// For people: a line each, the cure below, and a summary.
pub fn page(findings: &[Finding], well: usize) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    for Finding { check, level, what, cure } in findings {
        let (word, colour) = match level {
            Level::Ok => ("ok     ", AnsiColor::Green),
            Level::Unchecked => ("unknown", AnsiColor::Blue),
            Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Failure => ("FAILURE", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        text += &format!("{style}{word}{style:#}  {:width$}  {}\n", plain(check), plain(what));
        if let Some(cure) = cure {
            text += &format!("{:9}{:width$}  -> {}\n", "", "", plain(cure));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let many = |level, what| match count(level) {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    text += &format!(
        "\n{well} ok, {}, {}, {} cannot be checked\n",
        many(Level::Warning, "warning"),
        many(Level::Failure, "failure"),
        count(Level::Unchecked)
    );
    text
}
