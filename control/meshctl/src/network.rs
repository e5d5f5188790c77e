//! `meshctl network`.

mod connect;
mod create;
mod disconnect;
mod inspect;
mod ls;
mod prune;
mod rm;
mod update;

use anyhow::Result;

use crate::{
    context::Context,
    filter::{Keys, YES_NO},
};

/// What networks can be chosen by.
const FILTERS: Keys = &[
    ("id", &[]),
    ("name", &[]),
    ("label", &[]),
    ("driver", &["overlay"]),
    ("attachable", YES_NO),
    ("internal", YES_NO),
    ("ingress", YES_NO),
];

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Create(create::Args),
    Update(update::Args),
    Connect(connect::Args),
    Disconnect(disconnect::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Rm(rm::Args),
    Prune(prune::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(args) => create::run(args, context).await,
            Command::Update(args) => update::run(args, context).await,
            Command::Connect(args) => connect::run(args, context).await,
            Command::Disconnect(args) => disconnect::run(args, context).await,
            Command::Ls(args) => ls::run(&args, context).await,
            Command::Inspect(args) => inspect::run(&args, context).await,
            Command::Rm(args) => rm::run(args, context).await,
            Command::Prune(args) => prune::run(args, context).await,
        }
    }
}
