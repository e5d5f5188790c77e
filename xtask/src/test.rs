//! Every test.

use anyhow::{Context, Result};
use clap::Args;

use crate::{command, compile, setup};

/// Which tests.
#[derive(Args)]
pub struct Options {
    /// Passed on to `cargo nextest run`, such as `-p mesh-gossip` or a part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    nextest: Vec<String>,
}

/// Runs the documentation's examples, then all else; nextest's summary is the last that is printed.
pub fn run(options: &Options) -> Result<()> {
    command::need_root("test")?;
    setup::run_quietly()?;
    compile::binaries(false)?;
    if options.nextest.is_empty() {
        command::run(command::cargo("test").args(["--locked", "--doc", "--workspace", "--quiet"]))
            .context("examples in the documentation")?;
    }
    let mut nextest = command::cargo("nextest");
    nextest.args(["run", "--locked"]);
    if !options.nextest.iter().any(|word| word == "-p" || word.starts_with("--package")) {
        nextest.arg("--workspace");
    }
    command::run(nextest.args(&options.nextest)).context("tests")
}
