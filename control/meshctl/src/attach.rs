//! `meshctl attach`.

use anyhow::{Context as _, Result};
use mesh_api::v1::attach_request;
use mesh_types::Endpoint;
use serde::Serialize;

use crate::{
    context::Context,
    daemon::answer,
    name::reference,
    namespace::{self, Namespace},
    output::{Table, list, short},
    report::{Cluster, TaskNetwork},
    task_options::TaskOptions,
};

/// Make a task of a network namespace that is there
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl attach --network prod red                    the namespace /var/run/netns/red
  meshctl attach --network prod --service web 4711     that of process 4711; ends with it
  meshctl attach --network prod --name db --ip 10.10.3.9 /proc/4711/ns/net

In the namespace, 127.0.0.11 answers names: /etc/resolv.conf there should have `nameserver 127.0.0.11`, and the
search domains and options that --format json prints. --hostname is a further name of the task on its
networks; what the programs in it take for their host name stays as it is.")]
pub struct Args {
    #[command(flatten)]
    task: TaskOptions,
    /// Name under /var/run/netns, path, or pid
    #[arg(value_name = "NAMESPACE", value_parser = reference)]
    namespace: String,
}

#[derive(Serialize)]
struct Report {
    id: String,
    name: String,
    networks: Vec<TaskNetwork>,
    nameserver: String,
    search: Vec<String>,
    resolv_conf: String,
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = format!("cannot attach {} as {}", args.namespace, args.task.what());
    args.task.check().with_context(|| what.clone())?;
    let namespace = match namespace::find(&args.namespace)? {
        Namespace::Pid(pid) => attach_request::Namespace::Pid(pid),
        Namespace::Path(path) => attach_request::Namespace::Path(path.to_string_lossy().into_owned()),
    };
    let daemon = context.daemon().await?;
    // First what can fail without a trace.
    let cluster = Cluster::fetch(&daemon).await.with_context(|| what.clone())?;
    let attached = answer(daemon.local().attach(args.task.request(namespace))).await.context(what)?;
    let endpoints = attached.endpoints.into_iter().map(Endpoint::try_from);
    let endpoints: Vec<Endpoint> =
        endpoints.collect::<Result<_, _>>().context("the daemon's answer makes no sense")?;
    let report = Report {
        id: attached.task_id,
        name: attached.name,
        networks: endpoints.iter().map(|endpoint| TaskNetwork::new(&cluster, endpoint)).collect(),
        nameserver: attached.nameserver,
        search: attached.search,
        resolv_conf: String::from_utf8_lossy(&attached.resolv_conf).into_owned(),
    };
    context.show(&report, |report| {
        let mut table = Table::new(&["ID", "NAME", "NETWORK", "ADDRESS"]);
        for place in &report.networks {
            let addresses = list(&place.addresses);
            table.row([short(&report.id), report.name.clone(), place.network.clone(), addresses]);
        }
        table.render()
    })
}
