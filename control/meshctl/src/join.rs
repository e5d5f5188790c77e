//! `meshctl join`.

use anyhow::{Context as _, Result};
use mesh_api::v1::JoinClusterRequest;
use mesh_types::Name;
use serde::Serialize;

use crate::{context::Context, daemon::answer, name::reference};

/// Join a cluster as a worker or a manager, by the token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl join --token MESHTKN-1-... 192.168.1.10:2377
  meshctl join --token MESHTKN-1-... --advertise-addr 192.168.1.11 192.168.1.10 192.168.1.12

`meshctl join-token worker` on a manager prints the command with its token.")]
pub struct Args {
    /// Token that lets this node in
    #[arg(long, value_parser = reference)]
    token: String,
    /// Address or interface where other nodes reach this one [default: the only one, of the managers' family]
    #[arg(long, value_name = "ADDRESS|INTERFACE")]
    advertise_addr: Option<String>,
    /// Address or interface for the tasks' traffic [default: the advertised address]
    #[arg(long, value_name = "ADDRESS|INTERFACE")]
    data_path_addr: Option<String>,
    /// Name of this node [default: its host name]
    #[arg(long)]
    name: Option<Name>,
    /// One or more managers; the port is 2377 unless given
    #[arg(required = true, value_name = "HOST[:PORT]", value_parser = reference)]
    managers: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    cluster_id: String,
    node_id: String,
    role: &'static str,
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = format!("cannot join the cluster of {}", args.managers.join(", "));
    let request = JoinClusterRequest {
        token: args.token,
        managers: args.managers,
        name: args.name.map(String::from).unwrap_or_default(),
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
    };
    let daemon = context.daemon().await?;
    let response = answer(daemon.local().join_cluster(request)).await.context(what)?;
    let role = mesh_types::Role::try_from(response.role()).map_or("member", mesh_types::Role::as_str);
    let report = Report { cluster_id: response.cluster_id, node_id: response.node_id, role };
    context.show(&report, |report| {
        let soon = if response.catching_up { " It votes once it has caught up." } else { "" };
        format!("This node ({}) joined the cluster as a {role}.{soon}", report.node_id)
    })
}
