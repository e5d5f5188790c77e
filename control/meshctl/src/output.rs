//! Tables in the look of docker's, and pages of fields and tables.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Width, presets};

/// Columns between cells.
const PADDING: u16 = 3;

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

    /// As text, every line ended. On a terminal that is too narrow, cells wrap between words, never inside one: an id
    /// stays whole.
    pub fn render(mut self) -> String {
        let mut words = vec![0; self.table.column_count()];
        for row in self.table.header().into_iter().chain(self.table.row_iter()) {
            for (longest, cell) in words.iter_mut().zip(row.cell_iter()) {
                let cell = cell.content();
                let lengths = cell.split_whitespace().map(|word| word.chars().count());
                *longest = lengths.chain([*longest]).max().unwrap_or_default();
            }
        }
        for (column, word) in self.table.column_iter_mut().zip(words) {
            let width = u16::try_from(word).unwrap_or(u16::MAX).saturating_add(PADDING);
            column
                .set_padding((0, PADDING))
                .set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
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
        "ready" | "active" | "healthy" | "alive" => cell.fg(Color::Green),
        "down" | "left" | "unreachable" | "unhealthy" => cell.fg(Color::Red),
        "unknown" | "suspect" | "unattended" | "starting" | "catching up" | "draining" | "drain"
        | "pause" | "inactive" => cell.fg(Color::Yellow),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_breaks_no_word() {
        let mut table = Table::new(&["ID", "PORTS"]);
        table.row(["2svc00000000", "*:80->80/tcp, *:8053->53/udp"]);
        table.table.set_width(34);
        assert_eq!(
            table.render(),
            "ID             PORTS\n2svc00000000   *:80->80/tcp,\n               *:8053->53/udp\n"
        );
    }

    #[test]
    fn times() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
    }
}
