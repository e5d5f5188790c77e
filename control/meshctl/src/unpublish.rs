//! `meshctl unpublish`.

use anyhow::{Context as _, Result};
use mesh_api::v1::UnpublishRequest;
use mesh_types::PortFilter;

use crate::{
    context::Context,
    daemon::answer,
    name::reference,
    report::{Cluster, ServiceReport},
    wait::Wait,
};

/// Close published ports on every node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl unpublish 80
  meshctl unpublish 8053/udp dns
  meshctl unpublish 10.0.0.5:80
  meshctl unpublish 8000-8010 web
  meshctl unpublish published=80,mode=host web

All ports of the service that fit are closed: 80 alone fits at all addresses, *:80 only the port that is open on
all addresses.")]
pub struct Args {
    /// Published port in any form of `meshctl publish`; what is left out fits all, but tcp is meant unless said
    #[arg(value_name = "[PLACE:]PUBLISHED[:TARGET][/tcp|/udp|/sctp]")]
    port: PortFilter,
    /// Service that has to be the port's [default: whichever publishes it]
    #[arg(value_parser = reference)]
    service: Option<String>,
    /// Refuse the change unless the service has this version, as `inspect` shows it
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let port = args.port;
    let daemon = context.daemon().await?;
    let request = UnpublishRequest {
        service: args.service.unwrap_or_default(),
        ports: vec![port.to_string()],
        expected_version: args.if_version,
    };
    let answered = answer(daemon.control().unpublish(request)).await;
    let service = answered.with_context(|| format!("cannot unpublish {port}"))?;
    let names = Cluster::fetch(&daemon).await.ok();
    let report = ServiceReport::of_answer(names.as_ref(), service)?;
    context.show(&report, |report| format!("{port} of {} is closed", report.name))?;
    args.wait.finish(&daemon, report.version).await
}
