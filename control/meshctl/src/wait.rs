//! `--wait`: until every node that is there follows a change.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{ProgressRequest, ProgressResponse};
use mesh_types::parse_seconds;
use tokio::time::{Instant, sleep};

use crate::{
    daemon::{Daemon, answer},
    failure::Failure,
    output::{list, plain},
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How many nodes a line names.
const NAMED: usize = 10;

/// Options of the verbs that change what nodes do.
#[derive(Debug, Clone, clap::Args)]
pub struct Wait {
    /// Wait until the data path of every node that is there follows the change; a terminal shows how many do
    #[arg(long)]
    wait: bool,
    /// Longest wait; the change stays when it is over
    #[arg(long, requires = "wait", value_name = "TIME", default_value = "2m", value_parser = parse_seconds)]
    timeout: u32,
}

impl Wait {
    /// Waits, if it is wanted, for the state's `version`, by which the change was made.
    pub async fn finish(&self, daemon: &Daemon, version: u64) -> Result<()> {
        if !self.wait {
            return Ok(());
        }
        let end = Instant::now() + Duration::from_secs(self.timeout.into());
        let mut line = Line::new();
        loop {
            let asked = answer(daemon.control().get_progress(ProgressRequest { version })).await;
            let progress =
                Progress::new(asked.context("the change is made; cannot tell which nodes follow it")?);
            line.show(&progress.text());
            if progress.late.is_empty() {
                line.end();
                progress.tell_of_those_away();
                return Ok(());
            }
            if Instant::now() >= end {
                line.end();
                return Err(
                    Failure::NotProgrammed { text: progress.text(), late: named(&progress.late) }.into()
                );
            }
            sleep(LOOK).await;
        }
    }
}

/// How far it is.
struct Progress {
    programmed: usize,
    /// Those that are there, and do not follow yet.
    late: Vec<String>,
    /// Those that are not there: they follow when they are back.
    away: Vec<String>,
}

impl Progress {
    fn new(answer: ProgressResponse) -> Self {
        let (programmed, rest): (Vec<_>, Vec<_>) = answer.nodes.into_iter().partition(|node| node.programmed);
        let (late, away): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|node| matches!(node.status.as_str(), "ready" | "unknown"));
        let names =
            |nodes: Vec<mesh_api::v1::NodeProgress>| nodes.into_iter().map(|node| node.name).collect();
        Self { programmed: programmed.len(), late: names(late), away: names(away) }
    }

    fn text(&self) -> String {
        format!("{} of {} nodes programmed", self.programmed, self.programmed + self.late.len())
    }

    fn tell_of_those_away(&self) {
        if !self.away.is_empty() {
            let (are, they) =
                if self.away.len() == 1 { ("is", "it follows") } else { ("are", "they follow") };
            anstream::eprintln!("meshctl: {} {are} away; {they} when back", named(&self.away));
        }
    }
}

fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = plain(&list(names.iter().take(NAMED)));
    if more > 0 { format!("{named} and {more} more") } else { named }
}

/// A line of a terminal that is written again and again; nothing elsewhere.
struct Line {
    shown: Option<String>,
    terminal: bool,
}

impl Line {
    fn new() -> Self {
        Self { shown: None, terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, text: &str) {
        if self.terminal && self.shown.as_deref() != Some(text) {
            // To the beginning of the line, and what was there away. Whoever has closed stderr misses nothing.
            let _ = write!(io::stderr(), "\r\u{1b}[2K{text}").and_then(|()| io::stderr().flush());
            self.shown = Some(text.to_owned());
        }
    }

    fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ = writeln!(io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::v1::NodeProgress;

    use super::*;

    #[test]
    fn who_is_away_is_not_waited_for() {
        let node = |name: &str, programmed, status: &str| NodeProgress {
            name: name.to_owned(),
            programmed,
            status: status.to_owned(),
            ..NodeProgress::default()
        };
        let nodes = vec![
            node("n1", true, "ready"),
            node("n2", false, "ready"),
            node("n3", false, "down"),
            node("n4", false, "unattended"),
            node("n5", true, "unknown"),
        ];
        let progress = Progress::new(ProgressResponse { nodes });
        assert_eq!(progress.text(), "2 of 3 nodes programmed");
        assert_eq!(
            (progress.late, progress.away),
            (vec!["n2".to_owned()], vec!["n3".to_owned(), "n4".to_owned()])
        );
    }

    #[test]
    fn many_are_counted() {
        let names: Vec<_> = (0..12).map(|n| format!("n{n}")).collect();
        assert!(named(&names).ends_with("n9 and 2 more"));
    }
}
