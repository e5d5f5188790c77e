//! `meshctl connectivity`.

mod matrix;
mod test;

use std::process::ExitCode;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Test(test::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        match self {
            Command::Test(args) => test::run(args, context).await,
        }
    }
}
