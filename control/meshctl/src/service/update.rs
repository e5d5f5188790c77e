//! `meshctl service update`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{
    self, UpdateServiceRequest,
    update_service_request::{AffinityChange, HealthChange},
};
use mesh_types::{EndpointMode, PortFilter};

use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    label::Labels,
    name::reference,
    ports::Ports,
    service::{
        balancing::Balancing,
        health::{HealthOptions, Wanted},
        place::{Alias, Place},
        shown,
    },
    wait::Wait,
};

/// Change a service, all at once or not at all
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl service update --affinity client-ip,30m --drain-timeout 1m web
  meshctl service update --affinity none --prefer-local=false web
  meshctl service update --publish-rm 80 --publish-add 80:80,mode=host web
  meshctl service update --network-add name=test,alias=www --network-rm old web
  meshctl service update --alias-add shop --alias-rm prod:www web
  meshctl service update --endpoint-mode dnsrr --publish-rm 80 --publish-add 80:80,mode=host web
  meshctl service update --health tcp:6379 --health-start-period 1m cache
  meshctl service update --health none web
  meshctl service update --label-add tier=front --label-rm old --if-version 17 web

Running tasks follow: those that were attached to the whole service join a new network, all leave one that the
service leaves. What is removed goes before what is added.")]
pub struct Args {
    #[command(flatten)]
    balancing: Balancing,
    #[command(flatten)]
    health: HealthOptions,
    /// Port to open, as with `meshctl publish`; may be repeated
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<Ports>,
    /// Port to close, as with `meshctl unpublish`, before others are opened; may be repeated
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<PortFilter>,
    /// Network to join, with the service's further names there; may be repeated
    #[arg(long, value_name = "NETWORK|name=NETWORK,alias=NAME..")]
    network_add: Vec<Place>,
    /// Network to leave; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = reference)]
    network_rm: Vec<String>,
    /// Further name to take, on each network or on one; may be repeated
    #[arg(long, value_name = "[NETWORK:]NAME")]
    alias_add: Vec<Alias>,
    /// Further name to give up, on each network or on one; may be repeated
    #[arg(long, value_name = "[NETWORK:]NAME")]
    alias_rm: Vec<Alias>,
    /// What the name is answered with: one balanced address, or those of the tasks
    #[arg(long, value_name = "vip|dnsrr")]
    endpoint_mode: Option<EndpointMode>,
    #[command(flatten)]
    labels: Labels,
    /// Refuse the change unless the service has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    wait: Wait,
    /// Service
    #[arg(value_parser = reference)]
    service: String,
}

/// Asks a manager, by way of the daemon, and prints the service's id.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = format!("cannot update service {}", args.service);
    let service = args.service.clone();
    let wait = args.wait.clone();
    let (expected_version, request) = (args.if_version, args.request()?);
    let empty = UpdateServiceRequest { service, expected_version, ..UpdateServiceRequest::default() };
    if request == empty {
        return Err(
            Failure::Usage("nothing to change is given; see `meshctl service update --help`".into()).into()
        );
    }
    let daemon = context.daemon().await?;
    let service = answer(daemon.control().update_service(request)).await.context(what)?;
    let version = service.version;
    shown(context, &daemon, service).await?;
    wait.finish(&daemon, version).await
}

impl Args {
    fn request(self) -> Result<UpdateServiceRequest> {
        let affinity = self.balancing.affinity().map(AffinityChange::Affinity);
        let none = self.balancing.no_affinity().then_some(AffinityChange::NoAffinity(true));
        let mode = self.endpoint_mode.map_or(v1::EndpointMode::Unspecified, Into::into);
        let health = match self.health.wanted()? {
            Wanted::Nothing => None,
            Wanted::Off => Some(HealthChange::NoHealth(true)),
            Wanted::Settings(check) => Some(HealthChange::Health(check)),
        };
        let (set_labels, remove_labels) = self.labels.wire();
        Ok(UpdateServiceRequest {
            service: self.service,
            affinity_change: affinity.or(none),
            prefer_local: self.balancing.prefer_local,
            drain_timeout_secs: self.balancing.drain_timeout(),
            remove_ports: self.publish_rm.iter().map(PortFilter::to_string).collect(),
            add_ports: Ports::wire(&self.publish_add),
            set_labels,
            remove_labels,
            expected_version: self.if_version,
            endpoint_mode: mode.into(),
            remove_networks: self.network_rm,
            add_networks: Place::wire(self.network_add),
            remove_aliases: Alias::wire(self.alias_rm),
            add_aliases: Alias::wire(self.alias_add),
            health_change: health,
        })
    }
}
