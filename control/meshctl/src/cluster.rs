//! `meshctl cluster`.

mod backup;
mod gossip_keys;
mod inspect;
mod restore;
mod rotate_gossip_keys;
mod update;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Inspect(inspect::Args),
    Update(update::Args),
    RotateGossipKeys(rotate_gossip_keys::Args),
    Backup(backup::Args),
    Restore(restore::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Inspect(args) => inspect::run(&args, context).await,
            Command::Update(args) => update::run(args, context).await,
            Command::RotateGossipKeys(args) => rotate_gossip_keys::run(&args, context).await,
            Command::Backup(args) => backup::run(args, context).await,
            Command::Restore(args) => restore::run(args, context).await,
        }
    }
}
