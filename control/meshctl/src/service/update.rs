//! `meshctl service update`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{UpdateServiceRequest, update_service_request::AffinityChange};
use mesh_types::PortFilter;

use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    label,
    name::reference,
    ports::Ports,
    report::{Cluster, ServiceReport},
    service::balancing::Balancing,
};

/// Change a service, all at once or not at all
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl service update --affinity client-ip,30m --drain-timeout 1m web
  meshctl service update --affinity none --prefer-local=false web
  meshctl service update --publish-rm 80 --publish-add 80:80,mode=host web
  meshctl service update --label-add tier=front --label-rm old web")]
pub struct Args {
    #[command(flatten)]
    balancing: Balancing,
    /// Port to open, as with `meshctl publish`; may be repeated
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<Ports>,
    /// Port to close, as with `meshctl unpublish`, before others are opened; may be repeated
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<PortFilter>,
    /// Label to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    label_add: Vec<(String, String)>,
    /// Label to take away; may be repeated
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Service
    #[arg(value_parser = reference)]
    service: String,
}

/// Asks a manager, by way of the daemon, and prints the service's id.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = format!("cannot update service {}", args.service);
    let ports = args.publish_add.is_empty() && args.publish_rm.is_empty();
    if args.balancing.is_empty() && ports && args.label_add.is_empty() && args.label_rm.is_empty() {
        return Err(
            Failure::Usage("nothing to change is given; see `meshctl service update --help`".into()).into()
        );
    }
    let affinity = args.balancing.affinity().map(AffinityChange::Affinity);
    let none = args.balancing.no_affinity().then_some(AffinityChange::NoAffinity(true));
    let request = UpdateServiceRequest {
        service: args.service,
        affinity_change: affinity.or(none),
        prefer_local: args.balancing.prefer_local,
        drain_timeout_secs: args.balancing.drain_timeout(),
        remove_ports: args.publish_rm.iter().map(PortFilter::to_string).collect(),
        add_ports: Ports::wire(&args.publish_add),
        set_labels: args.label_add.into_iter().collect(),
        remove_labels: args.label_rm,
    };
    let daemon = context.daemon().await?;
    let service = answer(daemon.control().update_service(request)).await.context(what)?;
    let names = Cluster::fetch(&daemon).await.ok();
    let report = ServiceReport::of_answer(names.as_ref(), service)?;
    context.show(&report, |service| service.id.clone())
}
