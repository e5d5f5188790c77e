//! `meshctl network connect`.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use mesh_api::v1::ConnectNetworkRequest;
use mesh_types::Name;

use crate::{context::Context, daemon::answer, elsewhere, name::reference, report::show_places};

/// Join a running task of this node to one more network
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl network connect test web.1
  meshctl network connect --ip 10.10.4.9 --alias database test db

The task gets another interface in its namespace. The network has to be attachable, or one of the task's service.")]
pub struct Args {
    /// Static IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Static IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Further name of the task on this network; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<Name>,
    /// Network
    #[arg(value_parser = reference)]
    network: String,
    /// Name, id or beginning of the id of a task of this node
    #[arg(value_name = "TASK", value_parser = reference)]
    task: String,
}

/// Asks the daemon, and prints where the task then is.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let asked = args.task.clone();
    let what = format!("cannot connect {} to network {}", args.task, args.network);
    let addresses = args.ip.map(|ip| ip.to_string()).into_iter().chain(args.ip6.map(|ip| ip.to_string()));
    let request = ConnectNetworkRequest {
        task: args.task,
        network: args.network,
        addresses: addresses.collect(),
        aliases: args.alias.into_iter().map(String::from).collect(),
    };
    let daemon = context.daemon().await?;
    let task = match answer(daemon.local().connect_network(request)).await {
        Err(failure) => return Err(elsewhere::told(&daemon, &asked, failure).await).context(what),
        Ok(task) => task,
    };
    show_places(context, &daemon, task).await
}
