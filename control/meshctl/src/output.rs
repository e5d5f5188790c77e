//! Where and how meshctl prints: on terminals as wide as they are and in colours, elsewhere plainly.

mod cell;
mod page;
mod table;

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};
use terminal_size::{Width, terminal_size_of};

pub use cell::{Cell, state};
pub use page::Page;
pub use table::Table;

/// When to print in colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorWhen {
    // No doc comments: they would make every verb's help the long one.
    #[default]
    Auto,
    Always,
    Never,
}

impl ColorWhen {
    /// Has all that is printed from now on follow it.
    pub fn apply(self) {
        match self {
            // Looks at NO_COLOR, CLICOLOR_FORCE and whether there is a terminal.
            Self::Auto => {}
            Self::Always => anstream::ColorChoice::Always.write_global(),
            Self::Never => anstream::ColorChoice::Never.write_global(),
        }
    }
}

/// Writes `text`, if there is any, to stdout as a line or lines, without colours when that is no terminal.
pub fn print(text: &str) -> Result<()> {
    write(anstream::stdout().lock(), text)
}

/// The same with what looks like colours as it is: what programs get is data.
pub fn print_data(text: &str) -> Result<()> {
    write(std::io::stdout().lock(), text)
}

fn write(mut out: impl Write, text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let written = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    match written {
        // Whoever reads has seen enough, as with `| head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// How many columns the terminal has that stdout is; none when it is no terminal, or one that does not tell.
pub fn terminal_width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(std::io::stdout())?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// The same of stderr.
pub fn error_width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(std::io::stderr())?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// `text` with its lines broken between words where they are longer than that; commands in it stay whole words.
pub fn wrapped(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return text.to_owned() };
    let lines = text.lines().flat_map(|line| table::wrap(line, columns));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether stdout is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// `text` on one line, with what would steer a terminal, or turn its reading direction, escaped.
pub fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let escaped = |c: char| if steers(c) { c.escape_default().collect() } else { vec![c] };
    text.chars().flat_map(escaped).collect()
}

/// The same with ends of lines and tabs as they are.
pub fn plain_lines(text: &str) -> String {
    let part = |part: &str| {
        let end = if part.ends_with(['\n', '\t']) { part.len() - 1 } else { part.len() };
        let (text, end) = part.split_at(end);
        plain(text) + end
    };
    text.split_inclusive(['\n', '\t']).map(part).collect()
}

/// Texts in one cell.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// An id as tables show it.
pub fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// A point in time, in seconds since 1970-01-01 UTC, as RFC 3339.
pub fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    let text = time.and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| seconds.to_string())
}

/// `yes` or `no`.
pub fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let text = "cannot remove network prod: it is used by service web\n  again";
        assert_eq!(
            wrapped(text, Some(30)),
            "cannot remove network prod: it\nis used by service web\n  again"
        );
        assert_eq!(wrapped(text, None), text);
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(
            plain("a\u{1b}]0;x\u{7}\n\u{9b}2J\u{202e}ä \\"),
            "a\\u{1b}]0;x\\u{7}\\n\\u{9b}2J\\u{202e}ä \\"
        );
    }
}
