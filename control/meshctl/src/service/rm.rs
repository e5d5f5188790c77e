//! `meshctl service rm`.

use anyhow::Result;

use crate::{context::Context, daemon::answer, name::reference, removal};

/// Remove services; their ports close, their tasks go on without names of theirs
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  meshctl service rm web
  meshctl service rm web db
  meshctl service rm --if-version 17 web"
)]
pub struct Args {
    /// Services
    #[arg(required = true, value_name = "SERVICE", value_parser = reference)]
    services: Vec<String>,
    /// Refuse the removal unless the service has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = &context.daemon().await?;
    removal::each(context, "service", args.services, args.if_version, |request| async move {
        answer(daemon.control().remove_service(request)).await
    })
    .await
}
