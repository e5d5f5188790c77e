//! `meshctl publish`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, PublishRequest};
use mesh_types::PortConfig;

use crate::{
    context::Context,
    daemon::answer,
    name::reference,
    report::{Cluster, ServiceReport},
};

/// Open a port on every node for a service
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl publish 80:80 web
  meshctl publish 8053:53/udp dns
  meshctl publish 80 web                  a free port of 30000-32767, which is printed
  meshctl publish published=8080,target=80,protocol=tcp web")]
pub struct Args {
    /// PUBLISHED:TARGET[/tcp|/udp], TARGET, or published=..,target=..[,protocol=..]
    port: PortConfig,
    /// Service
    #[arg(value_parser = reference)]
    service: String,
}

/// Asks a manager, by way of the daemon, and prints the port as it is then published.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let what = format!("cannot publish {} of service {}", wanted(&args.port), args.service);
    // Only to tell which of the ports is the new one.
    let before = Cluster::fetch(&daemon).await.ok();
    let request = PublishRequest { service: args.service, port: Some(args.port.into()) };
    let service = answer(daemon.control().publish(request)).await.context(what)?;

    let known = before.as_ref().and_then(|cluster| cluster.view.services.get(&service.id.parse().ok()?));
    let known: Vec<v1::Port> = known.into_iter().flat_map(|s| &s.ports).map(|&port| port.into()).collect();
    let port = new_port(&service.ports, &known, args.port);
    let text = format!("{}:{}/{}", port.published, port.target, args.port.protocol);
    let report = ServiceReport::of_answer(before.as_ref(), service)?;
    context.show(&report, |_| text)
}

fn wanted(port: &PortConfig) -> String {
    match port.published {
        0 => format!("{}/{}", port.target, port.protocol),
        published => format!("{published}:{}/{}", port.target, port.protocol),
    }
}

fn new_port(now: &[v1::Port], before: &[v1::Port], asked: PortConfig) -> v1::Port {
    let asked = v1::Port::from(asked);
    let fits = |port: &&v1::Port| {
        let same = port.target == asked.target && port.protocol == asked.protocol;
        same && (asked.published == 0 || port.published == asked.published)
    };
    let new = now.iter().filter(fits).find(|port| !before.contains(port));
    new.or_else(|| now.iter().rfind(fits)).unwrap_or(&asked).clone()
}
