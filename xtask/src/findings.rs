//! What was seen, one line each.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

use crate::progress::step;

#[derive(Default)]
pub struct Findings(Vec<Finding>);

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// What should be so.
    pub what: String,
    /// What was seen.
    pub seen: String,
    /// Whether it was so.
    pub so: bool,
}

impl Findings {
    /// Looks at `what`; an error is a finding too, and the show goes on.
    pub fn look(&mut self, what: &str, look: impl FnOnce() -> Result<String>) {
        let (seen, so) = match step(what, look) {
            Ok(seen) => (seen, true),
            Err(error) => (format!("{error:#}"), false),
        };
        self.push(Finding { what: what.to_owned(), seen, so });
    }

    /// Adds what was found elsewhere.
    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// All of them, in their order.
    pub fn all(&self) -> &[Finding] {
        &self.0
    }

    /// Whether there is something, and all of it was as it should be.
    pub fn all_so(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|finding| finding.so)
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["shown", "seen", ""]);
        for finding in &self.0 {
            let mark = if finding.so { "ok" } else { "FAILED" };
            table.add_row([finding.what.as_str(), finding.seen.as_str(), mark]);
        }
        table
    }
}
