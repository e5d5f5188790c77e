//! `meshctl debug`.

mod archive;
mod bundle;
mod dump;
mod gossip;

use anyhow::Result;

use crate::context::Context;

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Gossip(gossip::Args),
    Bundle(bundle::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Gossip(args) => gossip::run(&args, context).await,
            Command::Bundle(args) => bundle::run(&args, context).await,
        }
    }
}
