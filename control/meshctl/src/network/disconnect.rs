//! `meshctl network disconnect`.

use anyhow::{Context as _, Result};
use mesh_api::v1::DisconnectNetworkRequest;

use crate::{context::Context, daemon::answer, elsewhere, name::reference, report::show_places};

/// Take a running task of this node from a network
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl network disconnect test web.1

Its connections there end at once. A task is always on one network: the last one goes with `meshctl detach`.
A task that is taken from a network of its service does not follow its service to new networks any more.")]
pub struct Args {
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
    let what = format!("cannot disconnect {} from network {}", args.task, args.network);
    let request = DisconnectNetworkRequest { task: args.task, network: args.network };
    let daemon = context.daemon().await?;
    let task = match answer(daemon.local().disconnect_network(request)).await {
        Err(failure) => return Err(elsewhere::told(&daemon, &asked, failure).await).context(what),
        Ok(task) => task,
    };
    show_places(context, &daemon, task).await
}
