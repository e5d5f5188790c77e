//! What stands in one place of a table.

use anstyle::{AnsiColor, Style};

use super::plain;

/// A text and how it looks. What would steer a terminal is escaped: names and labels come from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
    /// Not to be broken between its words.
    pub(super) whole: bool,
}

impl Cell {
    /// In no colour.
    pub fn new(value: impl ToString) -> Self {
        Self { text: plain(&value.to_string()), style: Style::new(), whole: false }
    }

    /// In this colour.
    pub fn colour(self, colour: AnsiColor) -> Self {
        Self { style: self.style.fg_color(Some(colour.into())), ..self }
    }

    /// On one line, whatever blanks are in it.
    pub fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// In bold.
    pub fn bold(self) -> Self {
        Self { style: self.style.bold(), ..self }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A state, in its colour.
pub fn state(text: &str) -> Cell {
    let cell = Cell::new(text);
    match text {
        "ready" | "active" | "healthy" | "alive" => cell.colour(AnsiColor::Green),
        "down" | "left" | "unreachable" | "unhealthy" => cell.colour(AnsiColor::Red),
        "unknown" | "suspect" | "unattended" | "starting" | "catching up" | "draining" | "drain"
        | "pause" | "inactive" => cell.colour(AnsiColor::Yellow),
        _ => cell,
    }
}
