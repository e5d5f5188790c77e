//! Measuring: builds what is measured with optimizations and hands over to the bench program.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{command, compile, setup};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// One suite with options of its own; without it: programs, overlay, mesh, dns, control and attach.
    what: Option<What>,
    /// Only these suites: programs, overlay, mesh, dns, control, attach, cni, docker, idle, loss, seeing. Several with commas.
    #[arg(long, value_delimiter = ',', value_name = "SUITE", conflicts_with = "what")]
    only: Vec<String>,
    /// Little of everything, or of what `--only` names: shows that it works, says hardly more.
    #[arg(long, conflicts_with = "what")]
    quick: bool,
    /// Rounds; each measures everything that is compared once.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Tell what changed beyond noise since an earlier run, of which this is the file.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Where the results are written to as JSON, and beside it the page, as .html [default: target/bench/DATE.json].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// For a suite: its own options, such as `--seconds 3`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The data path beside its peers; `programs`, `overlay` and `published` behind it choose parts.
    Datapath,
    /// The part of `datapath` between tasks of two nodes.
    Overlay,
    /// Names asked from inside a task, beside Docker's embedded DNS and dnsmasq.
    Dns,
    /// In virtual time: how soon all nodes know a change, beside networkdb's figures, and by the size of the cluster; the
    /// plots of docs/img. Takes no root.
    Gossip,
    /// How soon a new task is reached and an ended one no more.
    Attach,
    /// Containers, one at a time and 200 at once: the CNI plugin beside Debian's bridge plugin, Docker's on the mesh beside its
    /// own bridge; `plugins` and `docker` behind it choose parts.
    Cni,
    /// What meshd uses of processor and memory when nothing happens.
    Idle,
    /// Changes a second with 1, 3 and 5 managers, time to a new leader and to all agents, what a large state costs.
    Control,
    /// How many requests fail when tasks are replaced or killed, and when a node is lost.
    Loss,
    /// What packets pay for being counted and while somebody watches, and how long lists of a million flows take; `counting`,
    /// `flows` and `watching` behind it choose parts.
    Seeing,
    /// What changed between two runs: two files of results. Measures nothing, takes no root.
    Compare,
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<()> {
    match options.what {
        Some(What::Gossip) => return gossip(&options.rest),
        Some(What::Compare) => compile::packages(&["mesh-bench"], true)?,
        _ => {
            if command::is_root() {
                setup::run_quietly()?;
            } else {
                eprintln!(
                    "most of it makes network namespaces, which needs root: `sudo -E env PATH=\"$PATH\" cargo xtask bench`; \
                     without, only what needs none is measured"
                );
            }
            compile::packages(&["meshd", "meshctl", "mesh-cni", "mesh-bench"], true)?;
        }
    }
    let program = command::workspace().join("target/release/mesh-bench");
    command::run(Command::new(program).args(words(options)))
}

/// The command line of the bench program.
fn words(options: &Options) -> Vec<String> {
    let mut words: Vec<String> = match options.what {
        None => Vec::new(),
        Some(What::Overlay) => vec!["datapath".into(), "overlay".into()],
        Some(what) => what.to_possible_value().map(|value| value.get_name().to_owned()).into_iter().collect(),
    };
    if !options.only.is_empty() {
        words.extend(["--only".to_owned(), options.only.join(",")]);
    }
    if options.quick {
        words.push("--quick".to_owned());
    }
    if let Some(rounds) = options.rounds {
        words.extend(["--rounds".to_owned(), rounds.to_string()]);
    }
    for (name, file) in [("--compare", &options.compare), ("--out", &options.out)] {
        if let Some(file) = file {
            words.extend([name.to_owned(), file.display().to_string()]);
        }
    }
    words.extend(options.rest.iter().cloned());
    words
}

fn gossip(rest: &[String]) -> Result<()> {
    compile::packages(&["mesh-gossip-simulation"], true)?;
    let program = command::workspace().join("target/release/mesh-gossip-simulation");
    command::run(Command::new(program).current_dir(command::workspace()).arg("bench").args(rest))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Chore {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn words_are_passed_on() {
        let passed = |line: &str| {
            let chore = Chore::try_parse_from(["bench"].into_iter().chain(line.split_whitespace()));
            chore.map(|chore| words(&chore.options).join(" ")).map_err(|error| error.to_string())
        };
        assert_eq!(passed("").unwrap(), "");
        let several = "--only dns,cni --quick --rounds 3 --compare a.json --out b.json";
        assert_eq!(passed(several).unwrap(), several);
        assert_eq!(passed("--compare a.json --quick").unwrap(), "--quick --compare a.json");
        assert_eq!(passed("overlay --rounds 9").unwrap(), "datapath overlay --rounds 9");
        assert_eq!(passed("control --managers 1,3").unwrap(), "control --managers 1,3");
        assert_eq!(passed("datapath overlay --rounds 9").unwrap(), "datapath overlay --rounds 9");
        assert_eq!(passed("compare a.json b.json").unwrap(), "compare a.json b.json");
        assert!(passed("--unknown").is_err());
        assert!(passed("--quick dns").unwrap_err().contains("cannot be used with"));
    }
}
