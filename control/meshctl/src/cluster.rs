//! `meshctl cluster`.

mod backup;
mod restore;
mod update;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Update(update::Args),
    Backup(backup::Args),
    Restore(restore::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Update(args) => update::run(args, context).await,
            Command::Backup(args) => backup::run(args, context).await,
            Command::Restore(args) => restore::run(args, context).await,
        }
    }
}
