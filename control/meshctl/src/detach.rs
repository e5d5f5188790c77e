//! `meshctl detach`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{DetachRequest, DetachResponse, GetTaskRequest, LocalTask};
use tonic::Code;

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    drain, elsewhere,
    failure::Failure,
    name::reference,
    namespace,
    report::Removed,
};

/// End a task of this node; its namespace stays
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl detach db
  meshctl detach red                  the namespace /var/run/netns/red, if no task has that name
  meshctl detach 4711                 the task of process 4711
  meshctl detach --force web.1        without draining it first

A task of a service drains first: it gets no new connections, and keeps those it has until its drain timeout.")]
pub struct Args {
    /// At once, cutting connections
    #[arg(long, short)]
    force: bool,
    /// Name, id or beginning of the id of a task; or a namespace as with attach
    #[arg(value_name = "TASK|NAMESPACE|PID", value_parser = reference)]
    task: String,
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let what = || format!("cannot detach {}", args.task);
    let daemon = context.daemon().await?;
    let task = match find(&daemon, &args.task).await {
        Err(error) => {
            let failure = error.downcast::<Failure>().with_context(what)?;
            return Err(elsewhere::told(&daemon, &args.task, failure).await).with_context(what);
        }
        Ok(task) => task,
    };
    let of_service = task.endpoints.iter().any(|endpoint| !endpoint.service_id.is_empty());
    if of_service && !args.force {
        let draining = drain::begin(&daemon, &task.task_id, None).await.with_context(what)?;
        drain::note(&drain::finished(&daemon, draining).await.with_context(what)?);
    }
    let request = DetachRequest { reference: task.task_id, ..DetachRequest::default() };
    let DetachResponse { task_id: id, name, .. } =
        answer(daemon.local().detach(request)).await.with_context(what)?;
    context.show(&Removed { id, name }, |task| task.name.clone())
}

/// The task that `text` means; a namespace's name comes after those of tasks.
async fn find(daemon: &Daemon, text: &str) -> Result<LocalTask> {
    let get = async |reference: String| {
        answer(daemon.local().get_task(GetTaskRequest { reference, ..GetTaskRequest::default() })).await
    };
    let path = || namespace::path(text).map(|path| path.to_string_lossy().into_owned());
    if text.contains('/') {
        return Ok(get(path()?).await?);
    }
    match get(text.to_owned()).await {
        // The daemon knows namespaces by their paths alone.
        Err(Failure::Refused { code: Code::NotFound, message }) => {
            let not_found = Failure::Refused { code: Code::NotFound, message };
            Ok(get(path()?).await.map_err(|_| not_found)?)
        }
        found => Ok(found?),
    }
}
