//! `meshctl cluster restore`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use mesh_api::v1::{InitResponse, RestoreClusterRequest};
use mesh_types::Name;
use serde::Serialize;

use crate::{context::Context, daemon::answer, init::with_port};

/// Make the cluster anew from a backup, with this node as its only manager
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl cluster restore /var/backups/mesh-2026-01-31
  meshctl cluster restore --advertise-addr 192.168.1.10 /var/backups/mesh-2026-01-31

On a node that is in no cluster. With the name of a node of the backup this node takes that one's place. Nodes that
still run come back by themselves if this one has the address of a manager that they know; former managers come back
as workers, to be promoted. Make sure first that no manager of the cluster as it was runs any more.")]
pub struct Args {
    /// Address or interface where other nodes reach this one [default: that of the only uplink]
    #[arg(long, value_name = "ADDRESS|INTERFACE")]
    advertise_addr: Option<String>,
    /// Address or interface for the tasks' traffic [default: the advertised address]
    #[arg(long, value_name = "ADDRESS|INTERFACE")]
    data_path_addr: Option<String>,
    /// Where managers listen [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    listen_addr: Option<String>,
    /// Name of this node [default: its host name]
    #[arg(long)]
    name: Option<Name>,
    /// File that `meshctl cluster backup` wrote
    file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    cluster_id: String,
    node_id: String,
    managers: Vec<String>,
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let file = args.file;
    let backup = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let request = RestoreClusterRequest {
        backup,
        name: args.name.map(String::from).unwrap_or_default(),
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
        listen_addr: args.listen_addr.map(with_port).unwrap_or_default(),
    };
    let daemon = context.daemon().await?;
    let restored = answer(daemon.local().restore_cluster(request)).await;
    let InitResponse { cluster_id, node_id, managers, .. } =
        restored.with_context(|| format!("cannot restore the cluster from {}", file.display()))?;
    context.show(&Report { cluster_id, node_id, managers }, |report| {
        format!("Cluster restored: this node ({}) is its only manager now.", report.node_id)
    })
}
