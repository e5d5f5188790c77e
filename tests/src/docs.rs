//! The documentation's blocks of commands, and what becomes of each of them: no block is only hoped to be right.
//!
//! The first line of a fence says what a block is:
//!
//! | info string | means |
//! |---|---|
//! | `console` | is run: lines `n1$ COMMAND` and `client$ COMMAND` on the machine of that name; what follows is what it prints |
//! | `console any-numbers` | the same; where the page has a number, another may be printed |
//! | `console refused` | the same; each command has to fail |
//! | `LANGUAGE file=NAME` | is a file of that name for the commands after it, in every machine's working folder |
//! | `LANGUAGE tried-by=tests/tests/NAME` | another test does the same: the block's verbs and long options are in it |
//! | `LANGUAGE not-run="REASON"` | is not run |
//! | `text drawing` | is no command |
//!
//! Blocks by indentation cannot say it, and are therefore not taken. `<!-- n1$ COMMAND -->` is run, too, and not shown.

mod engines;
mod links;
mod machines;
mod output;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::leftovers::names;

/// From this line on a page is made from the command line's own help, whose examples have their own test.
const MADE: &str = "<!-- From here on made from";

/// One page of the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its path below the repository.
    pub path: String,
    /// Its blocks and its commands that are not shown, in order.
    pub blocks: Vec<Block>,
}

/// A block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line that it begins at, from 1.
    pub line: usize,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is run.
    Run(Vec<Step>),
    /// It is written to a file.
    File {
        /// The file's name.
        name: String,
        /// What is in it.
        text: String,
    },
    /// Tests do the same: their paths below the repository, without `.rs`, and the lines that they have to have the words of.
    TriedBy {
        /// The tests, or the helpers that they use.
        tests: Vec<String>,
        /// The lines of the block.
        lines: Vec<String>,
    },
    /// It is not run.
    NotRun {
        /// Why.
        reason: String,
        /// The lines of the block. Those of this repository's chores are at least read by them (`xtask/src/documented.rs`).
        lines: Vec<String>,
    },
    /// It is a drawing.
    Drawing,
}

/// A command, and what it has to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line that it stands at, from 1.
    pub line: usize,
    /// Where it is run: `n1`, `n2`, ... or `client`.
    pub machine: String,
    /// The command line, for a shell.
    pub command: String,
    /// The lines that it has to print; none: whatever it prints. `...` stands for anything.
    pub prints: Vec<String>,
    /// How what is printed is compared, and how the command has to end.
    pub manner: Manner,
}

/// See [`Step::manner`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// It succeeds, and prints what stands there.
    #[default]
    Exactly,
    /// It succeeds, and prints what stands there, but for numbers.
    AnyNumbers,
    /// It fails, and says what stands there.
    Refused,
}

/// README.md and the pages of docs/, in order.
pub fn pages() -> Result<Vec<Page>> {
    let mut paths = vec!["README.md".to_owned()];
    let pages = names(&repository().join("docs"));
    paths.extend(pages.into_iter().filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    paths.iter().map(|path| Page::read(path)).collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository().join(path)).with_context(|| format!("cannot read {path}"))
}

impl Page {
    /// Reads a page by its path below the repository. A block that does not say what it is, is an error.
    pub fn read(path: &str) -> Result<Self> {
        Self::parse(path, &read(path)?)
    }

    /// As [`Page::read`], of this text.
    pub fn parse(path: &str, text: &str) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut lines = (1..).zip(text.lines()).take_while(|(_, line)| !line.starts_with(MADE));
        let mut blank = true;
        while let Some((number, line)) = lines.next() {
            let place = || format!("{path}:{number}");
            if let Some(info) = line.strip_prefix("```") {
                let within: Vec<_> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
                let fate = Fate::of(info, &within).with_context(place)?;
                blocks.push(Block { line: number, fate });
            } else if let Some(hidden) = line.strip_prefix("<!-- ").and_then(|l| l.strip_suffix(" -->")) {
                if let Some(step) = Step::prompt(number, hidden) {
                    blocks.push(Block { line: number, fate: Fate::Run(vec![step]) });
                }
            } else if blank && line.starts_with("    ") {
                bail!("{}: a block by indentation: write it as a fence that says what it is", place());
            }
            blank = line.is_empty();
        }
        Ok(Self { path: path.to_owned(), blocks })
    }

    /// Checks that what it links to in the repository is there: files, and headings in pages.
    pub fn check_links(&self) -> Result<()> {
        links::check(&self.path)
    }

    /// Whether any of it is run.
    pub fn is_run(&self) -> bool {
        self.steps().next().is_some()
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.blocks.iter().flat_map(|block| match &block.fate {
            Fate::Run(steps) => steps.as_slice(),
            _ => &[],
        })
    }

    /// Runs it on a cluster of its own. Nodes of a page that makes a cluster (`meshctl init`) are in none before.
    pub fn run(&self) -> Result<()> {
        machines::run(self)
    }

    /// Checks that what others are said to try is in those tests.
    pub fn check_tried(&self) -> Result<()> {
        for block in &self.blocks {
            let Fate::TriedBy { tests, lines } = &block.fate else { continue };
            let texts = tests.iter().map(|test| read_test(test)).collect::<Result<Vec<_>>>()?.concat();
            let words = lines.iter().flat_map(|line| telling_words(line));
            let missing: Vec<&str> = words.filter(|word| !texts.contains(word)).collect();
            let place = format!("{}:{}", self.path, block.line);
            ensure!(missing.is_empty(), "{place}: {} is not in {}", missing.join(", "), tests.join(", "));
        }
        Ok(())
    }
}

/// The text of a test's file and of those in the folder of its name; one of the two may be missing.
fn read_test(path: &str) -> Result<String> {
    let within = names(&repository().join(path)).into_iter().map(|name| format!("{path}/{name}"));
    let files = [format!("{path}.rs")].into_iter().chain(within).filter(|file| file.ends_with(".rs"));
    let there: Vec<String> = files.filter(|file| repository().join(file).is_file()).collect();
    ensure!(!there.is_empty(), "there is no {path}.rs, and no folder {path}");
    there.iter().map(|file| read(file)).collect()
}

/// The verb and the long options of a command line.
fn telling_words(line: &str) -> Vec<&str> {
    let words = || line.split(" #").next().unwrap_or_default().split_whitespace();
    let verb = words().nth(1).filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    let options = words().filter(|word| word.starts_with("--") && word.len() > 2);
    verb.into_iter().chain(options.map(|word| word.split('=').next().unwrap_or(word))).collect()
}

impl Fate {
    fn of(info: &str, within: &[(usize, &str)]) -> Result<Self> {
        let text = || within.iter().map(|(_, line)| format!("{line}\n")).collect::<String>();
        let lines = || within.iter().map(|(_, line)| (*line).to_owned()).filter(|l| !l.is_empty()).collect();
        let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
        match mark.split_once('=') {
            None if info == "console" => Ok(Self::Run(steps(within, Manner::Exactly)?)),
            None if (language, mark) == ("console", "any-numbers") => {
                Ok(Self::Run(steps(within, Manner::AnyNumbers)?))
            }
            None if (language, mark) == ("console", "refused") => {
                Ok(Self::Run(steps(within, Manner::Refused)?))
            }
            None if (language, mark) == ("text", "drawing") => Ok(Self::Drawing),
            Some(("file", name)) => Ok(Self::File { name: name.to_owned(), text: text() }),
            Some(("tried-by", tests)) => {
                Ok(Self::TriedBy { tests: tests.split(',').map(str::to_owned).collect(), lines: lines() })
            }
            Some(("not-run", reason)) if reason.len() > 2 => {
                Ok(Self::NotRun { reason: reason.trim_matches('"').to_owned(), lines: lines() })
            }
            _ => bail!("`{info}` says neither console, file=, tried-by= nor not-run=\"...\""),
        }
    }
}

fn steps(within: &[(usize, &str)], manner: Manner) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut continued = false;
    for (number, line) in within {
        let prompt = Step::prompt(*number, line);
        let (goes_on, begins) = (continued, prompt.is_some());
        steps.extend(prompt.filter(|_| !goes_on).map(|step| Step { manner, ..step }));
        let step = steps.last_mut().with_context(|| format!("no command printed `{line}`"))?;
        if goes_on {
            step.command = format!("{} {}", step.command.trim_end_matches('\\').trim_end(), line.trim());
        } else if !begins && !line.is_empty() {
            step.prints.push((*line).to_owned());
        }
        continued = (goes_on || begins) && line.ends_with('\\');
    }
    ensure!(!steps.is_empty(), "no command with a machine's name before it, such as `n1$ meshctl status`");
    Ok(steps)
}

impl Step {
    /// The command of a line that begins with a prompt.
    fn prompt(line: usize, text: &str) -> Option<Self> {
        let (machine, command) = text.split_once("$ ")?;
        let number = machine.strip_prefix('n').and_then(|number| number.parse::<u8>().ok());
        let known = machine == "client" || number.is_some_and(|number| number > 0);
        known.then(|| Self {
            line,
            machine: machine.to_owned(),
            command: command.to_owned(),
            prints: Vec::new(),
            manner: Manner::Exactly,
        })
    }

    /// The place of its node among the cluster's; none for the client.
    fn node(&self) -> Option<usize> {
        let number = self.machine.strip_prefix('n')?.parse::<usize>().ok()?;
        number.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(text: &str) -> Vec<Fate> {
        Page::parse("page.md", text).unwrap().blocks.into_iter().map(|block| block.fate).collect()
    }

    fn refused(text: &str) -> String {
        format!("{:#}", Page::parse("page.md", text).unwrap_err())
    }

    #[test]
    fn commands_have_machines_and_what_they_print() {
        let text = "A page\n\n<!-- n2$ true -->\n```console\nn1$ meshctl init \\\n    --ipv6\nIt is\n...\nclient$ curl x\n```\n";
        let step = |line, machine: &str, command: &str, prints: &[&str]| Step {
            line,
            machine: machine.to_owned(),
            command: command.to_owned(),
            prints: prints.iter().map(|&line| line.to_owned()).collect(),
            manner: Manner::Exactly,
        };
        let hidden = Fate::Run(vec![step(3, "n2", "true", &[])]);
        let shown = Fate::Run(vec![
            step(5, "n1", "meshctl init --ipv6", &["It is", "..."]),
            step(9, "client", "curl x", &[]),
        ]);
        assert_eq!(fates(text), [hidden, shown]);
    }

    #[test]
    fn blocks_say_what_they_are() {
        let text = "```yaml file=a.yaml\nx: 1\n\n```\n```sh not-run=\"needs a cloud\"\nls\n```\n";
        let file = Fate::File { name: "a.yaml".to_owned(), text: "x: 1\n\n".to_owned() };
        let lines = vec!["ls".to_owned()];
        assert_eq!(fates(text), [file, Fate::NotRun { reason: "needs a cloud".to_owned(), lines }]);
        assert_eq!(fates("```text drawing\n->\n```\n"), [Fate::Drawing]);
        for (mark, manner) in [("any-numbers", Manner::AnyNumbers), ("refused", Manner::Refused)] {
            let fates = fates(&format!("```console {mark}\nn1$ ls\n```\n"));
            assert!(matches!(&fates[..], [Fate::Run(steps)] if steps[0].manner == manner), "{fates:?}");
        }
        assert!(refused("x\n\n    meshctl status\n").starts_with("page.md:3: a block by indentation"));
        for unmarked in [
            "```\nls\n```",
            "```sh\nls\n```",
            "```sh drawing\nls\n```",
            "```console never\nn1$ ls\n```",
            "```sh not-run=\nls\n```",
            "```console\nls\n```",
        ] {
            assert!(refused(unmarked).starts_with("page.md:1: "), "{unmarked}");
        }
    }

    #[test]
    fn lists_and_what_is_made_are_no_blocks() {
        let text = format!("- one\n    two\n\n{MADE} x -->\n```text\nmeshctl\n```\n");
        assert_eq!(fates(&text), []);
    }

    #[test]
    fn verb_and_options_tell_a_command() {
        let line = "docker run -d --name web1 --ip=10.0.0.1 nginx   # --not this";
        assert_eq!(telling_words(line), ["run", "--name", "--ip"]);
        assert_eq!(telling_words("ctr -a x"), [""; 0]);
    }
}
