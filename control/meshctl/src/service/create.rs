//! `meshctl service create`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, CreateServiceRequest};
use mesh_types::{EndpointMode, Name};

use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    label,
    ports::Ports,
    service::{
        balancing::Balancing,
        health::{HealthOptions, Wanted},
        place::Place,
        shown,
    },
    wait::Wait,
};

/// Make a service: a name and an address for a group of tasks
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl service create --network prod web
  meshctl service create --network prod --publish 80:80 --publish 443:443 web
  meshctl service create --network prod --endpoint-mode dnsrr --alias database db
  meshctl service create --network prod --affinity client-ip,30m --drain-timeout 2m shop
  meshctl service create --network prod --health http:80/ready --health-interval 5s web
  meshctl service create --network name=prod,alias=www --network test web
  meshctl service create --network prod --publish 80:80 --wait web

Tasks of it are made with `meshctl run --service NAME` and `meshctl attach --service NAME`, on any node.")]
pub struct Args {
    /// Network that the tasks join, with the service's further names there; may be repeated [default: the ingress network]
    #[arg(long, value_name = "NETWORK|name=NETWORK,alias=NAME..")]
    network: Vec<Place>,
    /// Further name on each of the networks; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<Name>,
    /// Port to open, as with `meshctl publish`; may be repeated
    #[arg(long, short, value_name = "PORT")]
    publish: Vec<Ports>,
    #[command(flatten)]
    balancing: Balancing,
    #[command(flatten)]
    health: HealthOptions,
    /// What the name is answered with: one balanced address, or those of the tasks
    #[arg(long, value_name = "vip|dnsrr", default_value_t)]
    endpoint_mode: EndpointMode,
    /// Label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = label::parse)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    wait: Wait,
    /// Name of the service
    name: Name,
}

/// Asks a manager, by way of the daemon, and prints the service's id.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let health = match args.health.wanted()? {
        Wanted::Settings(check) if check.probe.is_empty() => {
            let text = "what to check is missing; add --health tcp:PORT, http:PORT/PATH or cmd:COMMAND";
            return Err(Failure::Usage(text.to_owned()).into());
        }
        Wanted::Settings(check) => Some(check),
        Wanted::Nothing | Wanted::Off => None,
    };
    let request = CreateServiceRequest {
        name: args.name.to_string(),
        networks: Vec::new(),
        attachments: Place::wire(args.network),
        aliases: args.alias.into_iter().map(String::from).collect(),
        endpoint_mode: v1::EndpointMode::from(args.endpoint_mode).into(),
        ports: Ports::wire(&args.publish),
        labels: args.label.into_iter().collect(),
        affinity: args.balancing.affinity(),
        prefer_local: args.balancing.prefer_local.unwrap_or_default(),
        drain_timeout_secs: args.balancing.drain_timeout(),
        health,
    };
    let daemon = context.daemon().await?;
    let service = answer(daemon.control().create_service(request))
        .await
        .with_context(|| format!("cannot create service {}", args.name))?;
    let version = service.version;
    shown(context, &daemon, service).await?;
    args.wait.finish(&daemon, version).await
}
