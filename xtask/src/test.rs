//! Every test.

use std::{num::NonZero, path::Path, thread::available_parallelism};

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

/// Runs the documentation's examples, then all else; at the end it tells which tests were slow.
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
    tell_slow(&report);
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
    nextest.args(&options.nextest);
    nextest
}

/// What a test may take before it is told, and how many are told.
const SLOW: f64 = 20.0;
const MOST: usize = 12;

fn tell_slow(report: &Path) {
    let mut tests = std::fs::read_to_string(report).map(|text| durations(&text)).unwrap_or_default();
    tests.retain(|(_, seconds)| *seconds >= SLOW);
    tests.sort_by(|a, b| b.1.total_cmp(&a.1));
    if !tests.is_empty() {
        eprintln!("slowest tests:");
    }
    for (name, seconds) in tests.iter().take(MOST) {
        eprintln!("{seconds:8.1} s  {name}");
    }
}

/// The tests of a JUnit report, with their seconds.
fn durations(report: &str) -> Vec<(String, f64)> {
    let one = |element: &str| {
        let head = element.split('>').next()?;
        let attribute = |name: &str| head.split_once(&format!(" {name}=\""))?.1.split('"').next();
        let name = format!("{} {}", attribute("classname")?, attribute("name")?);
        Some((name, attribute("time")?.parse().ok()?))
    };
    report.split("<testcase").skip(1).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_of_a_report() {
        let report = r#"<testsuites name="nextest-run" tests="2" time="9.5">
            <testsuite name="mesh-tests::drain" tests="2">
                <testcase name="a::b" classname="mesh-tests::drain" timestamp="2026-01-01T00:00:00.000+00:00" time="12.5">
                    <failure type="test failure">time="1"</failure>
                </testcase>
                <testcase name="c" classname="mesh-lb" timestamp="2026-01-01T00:00:00.000+00:00" time="0.010"/>
            </testsuite></testsuites>"#;
        let expected = [("mesh-tests::drain a::b".to_owned(), 12.5), ("mesh-lb c".to_owned(), 0.01)];
        assert_eq!(durations(report), expected);
        assert!(durations("").is_empty());
    }
}
