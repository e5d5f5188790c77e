//! What a check found.

use anstyle::AnsiColor;
use serde::Serialize;

use crate::output::{Cell, Table, terminal_width};

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

/// For people: a line each, the cure below, and a summary; as wide as the terminal.
pub fn page(findings: &[Finding], well: usize) -> String {
    page_within(findings, well, terminal_width())
}

/// The same with as many columns as given.
fn page_within(findings: &[Finding], well: usize, columns: Option<usize>) -> String {
    let mut table = Table::bare();
    for Finding { check, level, what, cure } in findings {
        let (word, colour) = match level {
            Level::Ok => ("ok", AnsiColor::Green),
            Level::Unchecked => ("unknown", AnsiColor::Blue),
            Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Failure => ("FAILURE", AnsiColor::Red),
        };
        let start = [Cell::new(word).colour(colour), Cell::new(check).whole()];
        table.row(start.into_iter().chain([Cell::new(what)]));
        if let Some(cure) = cure {
            table.row([String::new(), String::new(), format!("-> {cure}")]);
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let many = |level, what| match count(level) {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    table.render_within(columns)
        + &format!(
            "\n{well} ok, {}, {}, {} cannot be checked\n",
            many(Level::Warning, "warning"),
            many(Level::Failure, "failure"),
            count(Level::Unchecked)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stay_within_the_terminal() {
        let long = "tcp 2377 of n2 is not reached from here; something between the two nodes drops it, or a firewall";
        let findings = [
            Finding::ok("kernel", "6.1.0"),
            Finding::failure("ports n2", long, "let it pass, on both nodes and on all that is between them"),
        ];
        let text = page_within(&findings, 1, Some(50));
        let expected = "\
ok       kernel    6.1.0
FAILURE  ports n2  tcp 2377 of n2 is not reached
                   from here; something between
                   the two nodes drops it, or a
                   firewall
                   -> let it pass, on both nodes
                   and on all that is between them

1 ok, 0 warnings, 1 failure, 0 cannot be checked
";
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
        let whole = page_within(&findings, 1, None);
        assert_eq!(whole.lines().count(), 5, "what is no terminal gets a line for each: {whole}");
    }
}
