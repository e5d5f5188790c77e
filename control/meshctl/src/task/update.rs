//! `meshctl task update`.

use anyhow::{Context as _, Result};
use mesh_api::v1::UpdateTaskRequest;

use crate::{context::Context, daemon::answer, elsewhere, name::reference, report::LocalTaskReport};

/// Change a task of this node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl task update --weight 10 web.1")]
pub struct Args {
    /// Share of the service's new connections, in relation to those of its other tasks: 1 to 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    weight: u16,
    /// Name, id or beginning of the id of a task of this node
    #[arg(value_name = "TASK", value_parser = reference)]
    task: String,
}

/// Asks the daemon, and prints the task's name.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = || format!("cannot update {}", args.task);
    let daemon = context.daemon().await?;
    let request = UpdateTaskRequest { reference: args.task.clone(), weight: args.weight.into() };
    let task = match answer(daemon.local().update_task(request)).await {
        Err(failure) => return Err(elsewhere::told(&daemon, &args.task, failure).await).with_context(what),
        Ok(task) => task,
    };
    context.show(&LocalTaskReport::new(&task), |task| task.name.clone())
}
