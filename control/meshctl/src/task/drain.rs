//! `meshctl task drain`.

use anyhow::{Context as _, Result};
use mesh_types::parse_seconds;

use crate::{context::Context, drain, name::reference, report::LocalTaskReport};

/// Give a task of this node no new connections; it keeps those it has until its timeout
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl task drain web.1
  meshctl task drain --timeout 2m --wait web.1

The task is out of its service at once, everywhere, and goes on running. It is drained when no connection is
left, or when the timeout is over: what is still open is cut then, which --wait tells on stderr.")]
pub struct Args {
    /// How long connections may stay open, for example 90s [default: the task's own, else its service's]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    timeout: Option<u32>,
    /// Wait until it is drained
    #[arg(long)]
    wait: bool,
    /// Name, id or beginning of the id of a task of this node
    #[arg(value_name = "TASK", value_parser = reference)]
    task: String,
}

/// Asks the daemon, and prints the task's name.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let what = || format!("cannot drain {}", args.task);
    let daemon = context.daemon().await?;
    let mut task = drain::begin(&daemon, &args.task, args.timeout).await.with_context(what)?;
    if args.wait {
        task = drain::finished(&daemon, task).await.with_context(what)?;
        drain::note(&task);
    }
    context.show(&LocalTaskReport::new(&task), |task| task.name.clone())
}
