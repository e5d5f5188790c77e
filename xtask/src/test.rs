//! Every test.

use std::{num::NonZero, thread::available_parallelism};

use anyhow::{Context, Result};
use clap::Args;
use mesh_tests::PATIENCE;

use crate::{command, compile, setup};

/// Which tests.
#[derive(Args)]
pub struct Options {
    /// Passed on to `cargo nextest run`, such as `-p mesh-gossip` or a part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    nextest: Vec<String>,
}

/// nextest's profile (`.config/nextest.toml`), and where it keeps what became of each test.
const PROFILE: &str = "suite";
const REPORT: &str = "target/nextest/suite/junit.xml";
/// Places for tests by processor. Those of clusters take one and mostly wait; the others take two.
const PLACES: usize = 2;
/// The factor for what tests wait for, where so many run at a time.
const PATIENTLY: &str = "3";

/// How much of what a failed test said is told again at the end.
const LAST_WORDS: usize = 12;

/// Runs the documentation's examples, then all else; at the end it tells which tests were slow, and why others failed.
pub fn run(options: &Options) -> Result<()> {
    command::need_root("test")?;
    setup::run_quietly()?;
    compile::binaries(false)?;
    if options.nextest.is_empty() {
        command::run(command::cargo("test").args(["--locked", "--doc", "--workspace", "--quiet"]))
            .context("examples in the documentation")?;
    }
    let report = command::workspace().join(REPORT);
    // Of an earlier run; there is none when this one ends before its first test.
    let _ = std::fs::remove_file(&report);
    let done = command::run(&mut nextest(options)).context("tests");
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    tell_slow(&report);
    tell_failed(&report);
    done
}

fn nextest(options: &Options) -> std::process::Command {
    let given = |names: &[&str]| options.nextest.iter().any(|word| names.iter().any(|n| word.starts_with(n)));
    let mut nextest = command::cargo("nextest");
    nextest.args(["run", "--locked"]);
    if !given(&["-p", "--package"]) {
        nextest.arg("--workspace");
    }
    if !given(&["-P", "--profile"]) {
        nextest.args(["--profile", PROFILE]);
    }
    if !given(&["-j", "--test-threads", "--jobs"]) {
        let places = available_parallelism().map_or(1, NonZero::get) * PLACES;
        nextest.args(["--test-threads", &places.to_string()]);
    }
    if std::env::var_os(PATIENCE).is_none() {
        nextest.env(PATIENCE, PATIENTLY);
    }
    // Errors say where they come from in words, panics name their line; forty frames of each would hide them. Who wants
    // them runs that test alone, by `cargo nextest run`.
    nextest.env("RUST_BACKTRACE", "0");
    nextest.args(&options.nextest);
    nextest
}

/// What a test may take before it is told, and how many are told.
const SLOW: f64 = 20.0;
const MOST: usize = 12;

fn tell_slow(report: &str) {
    let mut tests: Vec<_> = tests_of(report).map(|test| (test.name, test.seconds)).collect();
    tests.retain(|(_, seconds)| *seconds >= SLOW);
    tests.sort_by(|a, b| b.1.total_cmp(&a.1));
    if !tests.is_empty() {
        eprintln!("slowest tests:");
    }
    for (name, seconds) in tests.iter().take(MOST) {
        eprintln!("{seconds:8.1} s  {name}");
    }
}

fn tell_failed(report: &str) {
    for test in tests_of(report) {
        let Some(words) = test.last_words else { continue };
        eprintln!("failed: {}", test.name);
        words.iter().for_each(|line| eprintln!("    {line}"));
    }
}

/// A test of a JUnit report.
#[derive(Debug, PartialEq)]
struct Tested {
    name: String,
    seconds: f64,
    /// The end of what it wrote to standard error, if it failed.
    last_words: Option<Vec<String>>,
}

fn tests_of(report: &str) -> impl Iterator<Item = Tested> {
    report.split("<testcase").skip(1).filter_map(|element| {
        let head = element.split('>').next()?;
        let attribute = |name: &str| head.split_once(&format!(" {name}=\""))?.1.split('"').next();
        let name = format!("{} {}", attribute("classname")?, attribute("name")?);
        let last_words = element.contains("<failure").then(|| {
            let said =
                element.split_once("<system-err>").and_then(|(_, rest)| rest.split("</system-err>").next());
            let said = said.unwrap_or_default().split("\nstack backtrace:").next().unwrap_or_default();
            let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(LAST_WORDS)..].iter().map(|line| unescape(line)).collect()
        });
        Some(Tested { name, seconds: attribute("time")?.parse().ok()?, last_words })
    })
}

fn unescape(line: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(line.to_owned(), |line, (escaped, plain)| line.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_of_a_report() {
        let report = r#"<testsuites name="nextest-run" tests="2" time="9.5">
            <testsuite name="mesh-tests::drain" tests="2">
                <testcase name="a::b" classname="mesh-tests::drain" timestamp="2026-01-01T00:00:00.000+00:00" time="12.5">
                    <failure type="test failure">time="1"</failure>
                    <system-err>first

Error: 1 &lt; 2
stack backtrace:
   0: rust_begin_unwind</system-err>
                </testcase>
                <testcase name="c" classname="mesh-lb" timestamp="2026-01-01T00:00:00.000+00:00" time="0.010"/>
            </testsuite></testsuites>"#;
        let said = Some(vec!["first".to_owned(), "Error: 1 < 2".to_owned()]);
        let expected = [
            Tested { name: "mesh-tests::drain a::b".to_owned(), seconds: 12.5, last_words: said },
            Tested { name: "mesh-lb c".to_owned(), seconds: 0.01, last_words: None },
        ];
        assert_eq!(tests_of(report).collect::<Vec<_>>(), expected);
        assert_eq!(tests_of("").count(), 0);
    }
}
