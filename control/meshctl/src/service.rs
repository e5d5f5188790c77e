//! `meshctl service`.

mod balancing;
mod create;
mod health;
mod inspect;
mod ls;
mod place;
mod ps;
mod rm;
mod update;

use anyhow::Result;
use mesh_api::v1;

use crate::{
    context::Context,
    daemon::Daemon,
    report::{Cluster, ServiceReport},
};

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Create(create::Args),
    Update(update::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Ps(ps::Args),
    Rm(rm::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(args) => create::run(args, context).await,
            Command::Update(args) => update::run(args, context).await,
            Command::Ls(args) => ls::run(&args, context).await,
            Command::Inspect(args) => inspect::run(&args, context).await,
            Command::Ps(args) => ps::run(&args, context).await,
            Command::Rm(args) => rm::run(args, context).await,
        }
    }
}

/// Shows the service that a change answered with: its id.
async fn shown(context: &Context, daemon: &Daemon, service: v1::Service) -> Result<()> {
    let names = Cluster::fetch(daemon).await.ok();
    let report = ServiceReport::of_answer(names.as_ref(), service)?;
    context.show(&report, |service| service.id.clone())
}
