//! `meshctl init`.

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use mesh_api::v1::{InitRequest, InitResponse};
use mesh_types::Name;
use serde::Serialize;

use crate::{context::Context, daemon::answer, join_token};

/// Make a cluster, with this node as its first manager
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl init
  meshctl init --advertise-addr 192.168.1.10
  meshctl init --advertise-addr eth1 --default-addr-pool 10.64.0.0/10
  meshctl init --default-addr-pool 10.64.0.0/10 --default-addr-pool fd12:3456:789a::/48 --ipv6
  meshctl init --force-new-cluster

Nodes must reach each other on 2377/tcp (managers), 7946/tcp and udp, and 4789/udp.")]
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
    /// Where subnets of networks come from when none is asked for; may be repeated, one per family
    /// [default: 10.0.0.0/8 and fd6d:6573:6800::/48]
    #[arg(long, value_name = "SUBNET")]
    default_addr_pool: Vec<IpNet>,
    /// Give the ingress network IPv6 addresses too, for tasks that are on no other network
    #[arg(long)]
    ipv6: bool,
    /// How long nodes' certificates are valid: 1h to 3650d [default: 90d]
    #[arg(long, value_name = "TIME", value_parser = mesh_types::parse_seconds)]
    cert_expiry: Option<u32>,
    /// On a manager whose majority is lost for good: become the only manager, and keep what this one knows
    #[arg(
        long,
        conflicts_with_all = ["advertise_addr", "data_path_addr", "listen_addr", "name", "default_addr_pool", "ipv6"]
    )]
    force_new_cluster: bool,
}

#[derive(Serialize)]
struct Report {
    cluster_id: String,
    node_id: String,
    worker_token: String,
    managers: Vec<String>,
}

/// Asks the daemon and prints the command for others to join.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let request = InitRequest {
        name: args.name.map(String::from).unwrap_or_default(),
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        data_path_addr: args.data_path_addr.unwrap_or_default(),
        listen_addr: args.listen_addr.map(with_port).unwrap_or_default(),
        default_addr_pools: args.default_addr_pool.iter().map(ToString::to_string).collect(),
        ipv6: args.ipv6,
        cert_expiry_secs: args.cert_expiry.map(Into::into).unwrap_or_default(),
        force_new_cluster: args.force_new_cluster,
    };
    let daemon = context.daemon().await?;
    let response = answer(daemon.local().init(request)).await.context("cannot make a cluster")?;
    let InitResponse { cluster_id, node_id, worker_token, managers } = response;
    if args.force_new_cluster {
        return context.show(&Report { cluster_id, node_id, worker_token, managers }, |report| {
            format!(
                "This node ({}) is now the only manager of the cluster.\n\n\
                 Nodes that were managers are workers now. Those that come back turn into workers by themselves as long \
                 as they are fewer than a majority of the managers before; make sure of that, and then promote them.\n",
                report.node_id
            )
        });
    }
    context.show(&Report { cluster_id, node_id, worker_token, managers }, |report| {
        format!(
            "Cluster initialized: this node ({}) is now a manager.\n\n{}\
             To add a manager, run `meshctl join-token manager` here and follow the instructions.\n",
            report.node_id,
            join_token::instructions("worker", &report.worker_token, &report.managers),
        )
    })
}

/// An address alone gets the managers' port.
pub fn with_port(address: String) -> String {
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, mesh_types::MANAGER_PORT).to_string(),
        Err(_) => address,
    }
}
