//! `meshctl node`.

mod inspect;
mod ls;
mod rm;
mod role;
mod update;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Ls(ls::Args),
    Inspect(inspect::Args),
    Update(update::Args),
    Rm(rm::Args),
    Promote(role::PromoteArgs),
    Demote(role::DemoteArgs),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Ls(args) => ls::run(&args, context).await,
            Command::Inspect(args) => inspect::run(&args, context).await,
            Command::Update(args) => update::run(args, context).await,
            Command::Rm(args) => rm::run(args, context).await,
            Command::Promote(args) => role::promote(args, context).await,
            Command::Demote(args) => role::demote(args, context).await,
        }
    }
}
