//! `meshctl detach`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{DetachRequest, DetachResponse};

use crate::{
    context::Context, daemon::answer, failure::Failure, name::reference, namespace, report::Removed,
};

/// End a task of this node; its namespace stays
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl detach db
  meshctl detach red                  the namespace /var/run/netns/red, if no task has that name
  meshctl detach 4711                 the task of process 4711")]
pub struct Args {
    /// Name, id or beginning of the id of a task; or a namespace as with attach
    #[arg(value_name = "TASK|NAMESPACE|PID", value_parser = reference)]
    task: String,
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = format!("cannot detach {}", args.task);
    let daemon = context.daemon().await?;
    let detach = async |reference: String| answer(daemon.local().detach(DetachRequest { reference })).await;
    let path = || namespace::path(&args.task).map(|path| path.to_string_lossy().into_owned());
    let answered = if args.task.contains('/') {
        detach(path()?).await
    } else {
        match detach(args.task.clone()).await {
            // The daemon knows namespaces by their paths alone.
            Err(Failure::Refused { code: tonic::Code::NotFound, message }) => {
                let not_found = Failure::Refused { code: tonic::Code::NotFound, message };
                detach(path()?).await.map_err(|_| not_found)
            }
            answered => answered,
        }
    };
    let DetachResponse { task_id: id, name } = answered.context(what)?;
    context.show(&Removed { id, name }, |task| task.name.clone())
}
