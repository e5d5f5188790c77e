//! `meshctl dns`.

mod lookup;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Lookup(lookup::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Lookup(args) => lookup::run(&args, context).await,
        }
    }
}
