//! `meshctl unlock-key`.

use anyhow::{Context as _, Result};
use mesh_api::v1::UnlockKeyRequest;
use serde::Serialize;

use crate::{context::Context, daemon::answer};

/// Print the key that locked managers need when they start, or change it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl unlock-key
  meshctl unlock-key --rotate    managers that are down now still need the old key")]
pub struct Args {
    /// Change the key first
    #[arg(long)]
    rotate: bool,
    /// Print only the key
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report {
    unlock_key: String,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let asked = answer(daemon.cluster().get_unlock_key(UnlockKeyRequest { rotate: args.rotate })).await;
    let what = if args.rotate { "change" } else { "get" };
    let response = asked.with_context(|| format!("cannot {what} the unlock key"))?;
    context.show(&Report { unlock_key: response.unlock_key }, |report| match args.quiet {
        true => report.unlock_key.clone(),
        false => instructions(&report.unlock_key),
    })
}

/// What to do with it.
pub fn instructions(key: &str) -> String {
    format!(
        "To unlock a manager after it has started, run `meshctl unlock` on it and give this key:\n\n    {key}\n\n\
         Keep it outside the cluster: without it a manager that was stopped cannot start again.\n"
    )
}
