//! `meshctl debug`.

mod dump;
mod gossip;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Gossip(gossip::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Gossip(args) => gossip::run(&args, context).await,
        }
    }
}
