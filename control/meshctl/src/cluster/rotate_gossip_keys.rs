//! `meshctl cluster rotate-gossip-keys`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{ClusterSettings, RotateGossipKeysRequest};
use serde::Serialize;

use super::gossip_keys::GossipKeysReport;
use crate::{context::Context, daemon::answer};

/// Replace the key that seals gossip, without losing a message
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl cluster rotate-gossip-keys

It happens by itself on schedule (`meshctl cluster update --gossip-key-rotation`) and whenever a node is removed.")]
pub struct Args {}

#[derive(Serialize)]
struct Report {
    gossip_keys: Option<GossipKeysReport>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(_: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let answer = answer(daemon.cluster().rotate_gossip_keys(RotateGossipKeysRequest {})).await;
    let ClusterSettings { gossip_keys, .. } = answer.context("cannot replace the gossip key")?;
    context.show(&Report { gossip_keys: gossip_keys.map(Into::into) }, |_| {
        "The gossip key is being replaced; `meshctl cluster inspect` shows how far that is.\n".to_owned()
    })
}
