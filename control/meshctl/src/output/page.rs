//! Pages: fields, then tables under headings.

use super::{Cell, Table, plain, terminal_width};

/// How far what is under a heading stands to the right.
const INDENT: usize = 2;

/// See the module.
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
        self.fields.row([Cell::new(format!("{name}:")).bold(), value.into()]);
        self
    }

    /// Adds a table, unless it is empty.
    pub fn section(&mut self, heading: &str, table: Table) -> &mut Self {
        if !table.is_empty() {
            let width = terminal_width().map(|width| width.saturating_sub(INDENT));
            self.indented(heading, &table.render_within(width));
        }
        self
    }

    /// Adds lines of text, unless there are none.
    pub fn lines(&mut self, heading: &str, text: &str) -> &mut Self {
        let lines: Vec<_> = text.lines().map(plain).collect();
        self.indented(heading, &lines.join("\n"));
        self
    }

    fn indented(&mut self, heading: &str, text: &str) {
        if !text.is_empty() {
            let indented = text.lines().map(|line| match line {
                "" => "\n".to_owned(),
                line => format!("{:INDENT$}{line}\n", ""),
            });
            self.sections.push_str(&format!("\n{heading}:\n{}", indented.collect::<String>()));
        }
    }

    /// As text.
    pub fn render(self) -> String {
        self.fields.render() + &self.sections
    }
}
