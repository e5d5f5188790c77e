//! `meshctl network update`.

use anyhow::{Context as _, Result};
use mesh_api::v1::UpdateNetworkRequest;
use mesh_types::Network;

use crate::{
    context::Context, daemon::answer, failure::Failure, label::Labels, name::reference,
    report::NetworkReport, wait::Wait,
};

/// Change a network's labels, or whether tasks of no service may join
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl network update --label-add team=web --label-rm old prod
  meshctl network update --attachable=false prod

Subnets, MTU and --internal stay for a network's life: tasks live by them.")]
pub struct Args {
    /// Let tasks of no service join; those that are there stay
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    attachable: Option<bool>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    wait: Wait,
    /// Refuse the change unless the network has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Network
    #[arg(value_parser = reference)]
    network: String,
}

/// Asks a manager, by way of the daemon, and prints the network's id.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = format!("cannot update network {}", args.network);
    if args.attachable.is_none() && args.labels.is_empty() {
        return Err(
            Failure::Usage("nothing to change is given; see `meshctl network update --help`".into()).into()
        );
    }
    let (set_labels, remove_labels) = args.labels.wire();
    let request = UpdateNetworkRequest {
        network: args.network,
        expected_version: args.if_version,
        attachable: args.attachable,
        set_labels,
        remove_labels,
    };
    let daemon = context.daemon().await?;
    let network = answer(daemon.control().update_network(request)).await.context(what)?;
    let network = Network::try_from(network).context("the daemon's answer makes no sense")?;
    context.show(&NetworkReport::new(&network), |network| network.id.clone())?;
    args.wait.finish(&daemon, network.version).await
}
