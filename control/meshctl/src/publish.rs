//! `meshctl publish`.

use anyhow::{Context as _, Result};
use mesh_api::v1::PublishRequest;
use mesh_types::{ReturnMode, Service};

use crate::{
    context::Context,
    daemon::answer,
    name::reference,
    ports::{self, Ports},
    report::{Cluster, ServiceReport},
    wait::Wait,
};

/// Open a port on every node for a service
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl publish 80:80 web
  meshctl publish 8053:53/udp dns
  meshctl publish 80 web                  a free port of 30000-32767, which is printed
  meshctl publish 10.0.0.5:80:80 web      on one address of a node; [fd00::5]:80:80 for IPv6
  meshctl publish eth0:80:80 web          on the addresses of one interface
  meshctl publish 8000-8010:8000-8010 web
  meshctl publish --wait 443:443 web      until every node that is there has it open
  meshctl publish published=8080,target=80,protocol=tcp,mode=host web

Fields: published, target, protocol=tcp|udp|sctp, mode=ingress|host, address, interface, return=tunnel|direct.
They may also follow a short form: 80:80,mode=host. In mode host the port is open only on nodes that run a
task of the service, and leads to that node's tasks. An SCTP port has to be the target port.")]
pub struct Args {
    #[arg(help = "[PLACE:]PUBLISHED:TARGET[/tcp|/udp|/sctp], TARGET, or published=..,target=..[,FIELD=..]")]
    port: Ports,
    /// Service
    #[arg(value_parser = reference)]
    service: String,
    /// Which way replies go: through the node that the client spoke to, or from the task's node straight to the
    /// client, if the network lets it [default: tunnel]
    #[arg(long = "return", value_name = "tunnel|direct")]
    return_mode: Option<ReturnMode>,
    /// Refuse the change unless the service has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

/// Asks a manager, by way of the daemon, and prints the ports as they are then published.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let port = args.port.returning(args.return_mode);
    let what = format!("cannot publish {} of service {}", port.text(), args.service);
    let request = PublishRequest {
        service: args.service,
        ports: Ports::wire(&[port]),
        expected_version: args.if_version,
    };
    let count = request.ports.len();
    let service = answer(daemon.control().publish(request)).await.context(what)?;

    let now = Service::try_from(service.clone()).context("the daemon's answer makes no sense")?;
    // What is published last comes last.
    let new = ports::lines(&now.ports[now.ports.len().saturating_sub(count)..]);
    let names = Cluster::fetch(&daemon).await.ok();
    let report = ServiceReport::of_answer(names.as_ref(), service)?;
    context.show(&report, |_| new)?;
    args.wait.finish(&daemon, report.version).await
}
