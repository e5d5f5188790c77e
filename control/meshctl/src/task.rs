//! `meshctl task`.

mod drain;
mod inspect;
mod ls;
mod update;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Ls(ls::Args),
    Inspect(inspect::Args),
    Update(update::Args),
    Drain(drain::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Ls(args) => ls::run(&args, context).await,
            Command::Inspect(args) => inspect::run(&args, context).await,
            Command::Update(args) => update::run(args, context).await,
            Command::Drain(args) => drain::run(&args, context).await,
        }
    }
}
