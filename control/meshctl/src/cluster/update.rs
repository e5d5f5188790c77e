//! `meshctl cluster update`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{ClusterSettings, UpdateClusterRequest};
use mesh_types::{format_seconds, parse_seconds};
use serde::Serialize;

use super::gossip_keys::GossipKeysReport;
use crate::{context::Context, daemon::answer, unlock_key};

/// Change settings of the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl cluster update --cert-expiry 30d
  meshctl cluster update --lease-grace 7d
  meshctl cluster update --gossip-key-rotation 1h
  meshctl cluster update --autolock=true     prints the key that managers need when they start

What is not given stays as it is. Nodes renew their certificates well before they end; a new expiry counts from the next
renewal on.")]
#[group(required = true, multiple = true)]
pub struct Args {
    /// How long nodes' certificates are valid: 1h to 3650d
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    cert_expiry: Option<u32>,
    /// Whether managers keep their state and keys encrypted and need a key when they start
    #[arg(long, value_name = "true|false", require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    autolock: Option<bool>,
    /// After how long of silence a node's unused addresses are given to others: at least 10s. Without a manager in reach a
    /// node attaches tasks for half of it
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    lease_grace: Option<u32>,
    /// How long a key that seals gossip is used before the next one follows: 1m to 30d, or 0 for no schedule
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    gossip_key_rotation: Option<u32>,
}

#[derive(Serialize)]
struct Report {
    cluster_id: String,
    cert_expiry_secs: u64,
    autolock: bool,
    lease_grace_secs: u32,
    gossip_keys: Option<GossipKeysReport>,
    #[serde(skip_serializing_if = "String::is_empty")]
    unlock_key: String,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let request = UpdateClusterRequest {
        cert_expiry_secs: args.cert_expiry.map(Into::into),
        autolock: args.autolock,
        lease_grace_secs: args.lease_grace,
        gossip_rotation_secs: args.gossip_key_rotation.map(Into::into),
    };
    let answer =
        answer(daemon.cluster().update_cluster(request)).await.context("cannot change the cluster")?;
    let ClusterSettings { cluster_id, cert_expiry_secs, autolock, unlock_key, lease_grace_secs, gossip_keys } =
        answer;
    let gossip_keys = gossip_keys.map(Into::into);
    let report = Report { cluster_id, cert_expiry_secs, autolock, lease_grace_secs, gossip_keys, unlock_key };
    context.show(&report, |report| {
        let expiry = format_seconds(u32::try_from(report.cert_expiry_secs).unwrap_or(u32::MAX));
        let autolock = if report.autolock { "on" } else { "off" };
        let key = match report.unlock_key.as_str() {
            "" => String::new(),
            key => unlock_key::instructions(key),
        };
        format!("Cluster updated: certificates are valid for {expiry}, autolock is {autolock}.\n{key}")
    })
}
