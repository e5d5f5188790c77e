//! Tables in the look of docker's, and pages of fields and tables.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, presets};

/// Writes `text`, if there is any, to stdout as a line or lines, without colours when that is no terminal.
pub fn print(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    let written = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    match written {
        // Whoever reads has seen enough, as with `| head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// A table without borders.
#[derive(Debug)]
pub struct Table {
    table: comfy_table::Table,
}

impl Table {
    /// With a line of headings.
    pub fn new(headings: &[&str]) -> Self {
        let mut table = Self::bare();
        table.table.set_header(headings.iter().copied());
        table
    }

    fn bare() -> Self {
        let mut table = comfy_table::Table::new();
        // Colours are taken out again on the way to what is no terminal.
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .enforce_styling()
            .style_text_only();
        Self { table }
    }

    /// Adds a line.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.table.add_row(cells.into_iter().map(Into::into).collect::<Vec<Cell>>());
    }

    /// Whether it has no lines but its headings.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// As text, every line ended.
    pub fn render(mut self) -> String {
        self.table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 3));
        });
        let mut text = self.table.trim_fmt();
        text.push('\n');
        text
    }
}

/// A page: fields, then tables under headings.
#[derive(Debug)]
pub struct Page {
    fields: Table,
    sections: String,
}

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self { fields: Table::bare(), sections: String::new() }
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: impl Into<Cell>) -> &mut Self {
        self.fields.row([Cell::new(format!("{name}:")).add_attribute(Attribute::Bold), value.into()]);
        self
    }

    /// Adds a table, unless it is empty.
    pub fn section(&mut self, heading: &str, table: Table) -> &mut Self {
        if !table.is_empty() {
            self.lines(heading, &table.render());
        }
        self
    }

    /// Adds lines of text, unless there are none.
    pub fn lines(&mut self, heading: &str, text: &str) -> &mut Self {
        if !text.is_empty() {
            let indented = text.lines().map(|line| format!("  {line}\n"));
            self.sections.push_str(&format!("\n{heading}:\n{}", indented.collect::<String>()));
        }
        self
    }

    /// As text.
    pub fn render(self) -> String {
        self.fields.render() + &self.sections
    }
}

/// A state, in its colour.
pub fn state(text: &str) -> Cell {
    let cell = Cell::new(text);
    match text {
        "ready" | "active" => cell.fg(Color::Green),
        "down" | "left" => cell.fg(Color::Red),
        "unknown" | "draining" | "drain" | "pause" | "inactive" => cell.fg(Color::Yellow),
        _ => cell,
    }
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
