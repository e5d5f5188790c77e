//! `meshctl run`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, id},
};

use anyhow::{Context as _, Result};
use mesh_api::v1::attach_request::Namespace;

use crate::{context::Context, daemon::answer, failure::Failure, sandbox, task_options::TaskOptions};

/// Run a command as a task, in a network namespace of its own
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl run --network prod --service web -- nginx -g 'daemon off;'
  meshctl run --network prod --name probe -- curl http://web/
  sudo meshctl run --network test -- bash

The command takes meshctl's place: it has its process, terminal and signals, and gives its exit code.
The task ends with the process, however that ends. Only network and /etc/resolv.conf differ from
outside. Needs root.")]
pub struct Args {
    #[command(flatten)]
    task: TaskOptions,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Becomes the command; returns only when that fails. What was made by then ends with the process.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let runtime = context.runtime()?;
    runtime.block_on(context.explained(prepare(args, context)))?;
    // The connection closes before the command starts.
    drop(runtime);
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::Usage("no command given".to_owned()).into());
    };
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::Exec { command: program.to_string_lossy().into_owned(), cause: error.kind() }.into())
}

async fn prepare(args: &Args, context: &Context) -> Result<()> {
    let what = || format!("cannot run {}", args.task.what());
    let daemon = context.daemon().await?;
    sandbox::enter().with_context(what)?;
    let request = args.task.clone().request(Namespace::Pid(id()));
    let attached = answer(daemon.local().attach(request)).await.with_context(what)?;
    sandbox::cover_resolv_conf(&attached.resolv_conf).with_context(what)
}
