//! `--format '{{.Name}}\t{{.ID}}'`: the part of Go's text/template that users of Docker's command line write.
//!
//! There are actions `{{pipeline}}`, `{{if}}`, `{{else}}`, `{{else if}}`, `{{range}}`, `{{with}}`, `{{end}}`, variables
//! (`{{$n := .Name}}`), comments, `{{-` and `-}}`; fields are those of `--format json`, in Go's spelling or in its own
//! (`.TaskCount` is `task_count`). `\t` and `\n` stand for a tab and the end of a line. No template can do more than read
//! what it is given: it ends, and touches nothing.

mod eval;
mod functions;
mod parse;

use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

use parse::Node;

/// Why a template cannot be used, or cannot be filled in. Nothing was printed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// An action without an end.
    #[error("a {{{{ has no }}}}")]
    Open,
    /// A text in quotes without an end.
    #[error("a quote is not closed in {{{{{0}}}}}")]
    Quote(String),
    /// What stands in an action makes no sense there.
    #[error("{found:?} makes no sense in {{{{{action}}}}}")]
    Unexpected {
        /// What was read.
        found: String,
        /// The action that it stands in.
        action: String,
    },
    /// A block without its end.
    #[error("{{{{{0}}}}} has no {{{{end}}}}")]
    Block(&'static str),
    /// An end, or else, of nothing.
    #[error("{{{{{0}}}}} belongs to no if, range or with")]
    NoBlock(&'static str),
    /// Parentheses or blocks in one another, too many of them.
    #[error("it nests too deeply")]
    Deep,
    /// There is no such function.
    #[error("there is no function {0}; there are {all}", all = functions::NAMES.join(", "))]
    Function(String),
    /// A variable that was not set.
    #[error("variable ${0} was not set")]
    Variable(String),
    /// What is there has no such field.
    #[error(
        "there is no field .{field}; there are {there}. For a key that may be missing write {{{{index .Labels \"key\"}}}}"
    )]
    Field {
        /// As it was asked for.
        field: String,
        /// Those that there are.
        there: String,
    },
    /// What is there has no fields at all.
    #[error("{value} has no field .{field}")]
    NoFields {
        /// As it was asked for.
        field: String,
        /// What has none.
        value: String,
    },
    /// A function was given what it cannot use.
    #[error("{function} needs {needs}")]
    Argument {
        /// The function.
        function: &'static str,
        /// What it wants.
        needs: &'static str,
    },
    /// What is no list cannot be gone through.
    #[error("range needs a list, not {0}")]
    NoList(String),
}

/// A template that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
    /// With a line of headings.
    table: bool,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { nodes: parse::parse(text.trim_start_matches(|c| table && c == ' '))?, table })
    }
}

impl Template {
    /// Whether it asks for a table.
    pub fn is_table(&self) -> bool {
        self.table
    }

    /// Filled in with `value`; texts of it pass through `shown` on their way.
    pub fn fill(&self, value: &Value, shown: fn(&str) -> String) -> Result<String, TemplateError> {
        eval::fill(&self.nodes, value, shown)
    }

    /// What stands over each of its columns, which tabs divide: the name of the first field there.
    pub fn headings(&self) -> Vec<String> {
        let mut headings = vec![String::new()];
        for node in &self.nodes {
            match node {
                Node::Text(text) => headings.extend(text.matches('\t').map(|_| String::new())),
                node => {
                    if let (Some(heading), Some(field)) = (headings.last_mut(), parse::first_field(node))
                        && heading.is_empty()
                    {
                        *heading = words(field).to_uppercase();
                    }
                }
            }
        }
        headings
    }
}

/// `TaskCount` and `task_count` as `Task Count` and `task count`.
fn words(field: &str) -> String {
    let mut words = String::new();
    let mut last = None;
    for c in field.chars() {
        if c.is_uppercase() && last.is_some_and(char::is_lowercase) {
            words.push(' ');
        }
        words.push(if c == '_' { ' ' } else { c });
        last = Some(c);
    }
    words
}

#[cfg(test)]
mod tests;
