//! `meshctl unlock`.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use mesh_api::v1::UnlockRequest;

use crate::{context::Context, daemon::answer};

/// Unlock the manager on this node after it has started
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl unlock
  meshctl unlock < key-file

The key is read from standard input, never from the command line, where others could see it.")]
pub struct Args {}

/// Asks the daemon.
pub async fn run(_: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    if io::stdin().is_terminal() {
        eprintln!("Enter the unlock key:");
    }
    let mut key = String::new();
    io::stdin().lock().read_line(&mut key).context("cannot read the key")?;
    if key.trim().is_empty() {
        bail!("no key was given; another manager prints it with `meshctl unlock-key`");
    }
    answer(daemon.local().unlock(UnlockRequest { unlock_key: key.trim().to_owned() }))
        .await
        .context("cannot unlock this manager")?;
    context.show(&serde_json::json!({ "unlocked": true }), |_| "This manager is unlocked.".to_owned())
}
