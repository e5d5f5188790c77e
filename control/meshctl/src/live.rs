//! Views that stay on the terminal and change: its other screen, keys, and when to draw anew.

use std::{
    io::{Read, Write},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use terminal_size::terminal_size_of;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Columns and rows where a terminal does not tell its size.
const SIZE: (usize, usize) = (80, 24);
/// The key of Ctrl-C, where the terminal makes no signal of it.
const CTRL_C: u8 = 3;

/// What happens while a view is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is time to look again.
    Look,
    /// A key.
    Key(u8),
    /// The terminal has another size.
    Resized,
    /// Whoever looks has seen enough: q, Ctrl-C, or somebody ends the process.
    Quit,
}

/// The terminal's other screen, without a cursor, with keys told at once; on drop it is as before.
pub struct Screen {
    before: Option<Termios>,
    shown: Vec<String>,
    size: (usize, usize),
    keys: mpsc::Receiver<u8>,
    is_deaf: bool,
    resized: Signal,
    ends: [Signal; 3],
}

impl Screen {
    /// Takes the terminal of stdin and stdout.
    pub fn begin() -> Result<Self> {
        let follow = |kind| signal(kind).context("cannot wait for signals");
        let (resized, ends) = (
            follow(SignalKind::window_change())?,
            [
                follow(SignalKind::interrupt())?,
                follow(SignalKind::terminate())?,
                follow(SignalKind::hangup())?,
            ],
        );
        // Keys may come from elsewhere than a terminal; then there are none.
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).context("cannot have keys told at once")?;
        }
        let keys = keys();
        let screen = Self { before, shown: Vec::new(), size: (0, 0), keys, is_deaf: false, resized, ends };
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let told = terminal_size_of(std::io::stdout());
        told.map_or(SIZE, |(columns, rows)| (usize::from(columns.0), usize::from(rows.0)))
    }

    /// Shows these lines, which have to fit the size.
    pub fn show(&mut self, lines: Vec<String>) -> Result<()> {
        let size = self.size();
        if size != self.size {
            // A terminal of another size shows whatever it made of the lines.
            (self.size, self.shown) = (size, Vec::new());
            write("\x1b[2J")?;
        }
        write(&change(&self.shown, &lines))?;
        self.shown = lines;
        Ok(())
    }

    /// Waits for a key, a signal, or until then.
    pub async fn next(&mut self, until: Instant) -> Next {
        let [interrupt, terminate, hangup] = &mut self.ends;
        tokio::select! {
            key = self.keys.recv(), if !self.is_deaf => match key {
                Some(b'q' | b'Q' | CTRL_C) => Next::Quit,
                Some(key) => Next::Key(key),
                None => {
                    // Nobody can quit by a key any more.
                    self.is_deaf = true;
                    sleep_until(until.min(Instant::now() + Duration::from_secs(1))).await;
                    Next::Resized
                }
            },
            _ = self.resized.recv() => Next::Resized,
            _ = interrupt.recv() => Next::Quit,
            _ = terminate.recv() => Next::Quit,
            _ = hangup.recv() => Next::Quit,
            () = sleep_until(until) => Next::Look,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whatever fails here, there is nobody to tell.
        let _ = write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// The keys that are pressed.
fn keys() -> mpsc::Receiver<u8> {
    let (pressed, keys) = mpsc::channel(16);
    // It waits for ever; the process ends without it.
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes() {
            if key.is_err() || pressed.blocking_send(key.unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    keys
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to the terminal")
}

/// As much of the lines as fits.
pub fn fit(mut lines: Vec<String>, (columns, rows): (usize, usize)) -> Vec<String> {
    lines.truncate(rows);
    for line in &mut lines {
        *line = cut(line, columns);
    }
    lines
}

fn cut(line: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthChar;
    let mut left = columns;
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    line.chars().take_while(fits).collect()
}

/// What turns a terminal that shows `before` into one that shows `now`: only lines that differ are written.
fn change(before: &[String], now: &[String]) -> String {
    let mut text = String::new();
    for at in 0..before.len().max(now.len()) {
        let line = now.get(at).map_or("", String::as_str);
        if before.get(at).map(String::as_str) != Some(line) {
            // To the beginning of the line, and over what was there.
            text += &format!("\x1b[{};1H\x1b[2K{line}", at + 1);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let text = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let (before, now) = (text(&["a", "b", "c"]), text(&["a", "x"]));
        assert_eq!(change(&before, &before), "");
        assert_eq!(change(&before, &now), "\x1b[2;1H\x1b[2Kx\x1b[3;1H\x1b[2K");
        assert_eq!(change(&[], &text(&["a"])), "\x1b[1;1H\x1b[2Ka");
    }

    #[test]
    fn lines_are_cut_by_their_width() {
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(fit(lines(&["abcdef", "\u{4e2d}\u{6587}x", "third"]), (3, 2)), ["abc", "\u{4e2d}"]);
    }
}
