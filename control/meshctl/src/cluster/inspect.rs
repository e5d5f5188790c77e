//! `meshctl cluster inspect`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{ClusterSettings, GetClusterRequest};
use mesh_types::format_seconds;
use serde::Serialize;

use super::gossip_keys::GossipKeysReport;
use crate::{context::Context, daemon::answer};

/// Show the cluster's settings and how its gossip keys stand
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl cluster inspect
  meshctl --format json cluster inspect")]
pub struct Args {}

#[derive(Serialize)]
struct Report {
    cluster_id: String,
    cert_expiry_secs: u64,
    autolock: bool,
    lease_grace_secs: u32,
    gossip_keys: Option<GossipKeysReport>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(_: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let answer = answer(daemon.cluster().get_cluster(GetClusterRequest {})).await;
    let ClusterSettings { cluster_id, cert_expiry_secs, autolock, lease_grace_secs, gossip_keys, .. } =
        answer.context("cannot inspect the cluster")?;
    let gossip_keys = gossip_keys.map(Into::into);
    let report = Report { cluster_id, cert_expiry_secs, autolock, lease_grace_secs, gossip_keys };
    context.show(&[report], |reports| reports.iter().map(page).collect())
}

fn page(report: &Report) -> String {
    let time = |seconds: u64| format_seconds(u32::try_from(seconds).unwrap_or(u32::MAX));
    let mut page = format!(
        "Cluster:       {}\nCertificates:  valid for {}\nAutolock:      {}\nLease grace:   {}\n",
        report.cluster_id,
        time(report.cert_expiry_secs),
        if report.autolock { "on" } else { "off" },
        time(report.lease_grace_secs.into()),
    );
    if let Some(keys) = &report.gossip_keys {
        page.push_str(&format!("Gossip key:    {}\nGossip ring:   {}\n", keys.key(), keys.ring()));
    }
    page
}
