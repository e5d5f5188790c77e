//! `meshctl run`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode, id},
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{AttachResponse, attach_request::Namespace};

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    failure::Failure,
    sandbox,
    stop_signal::StopSignal,
    supervise::{self, Supervised},
    task_options::TaskOptions,
};

/// Run a command as a task, in a network namespace of its own
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl run --network prod --service web -- nginx -g 'daemon off;'
  meshctl run --service web --drain-timeout 2m --stop-signal QUIT -- nginx -g 'daemon off;'
  meshctl run --network prod --name probe -- curl http://web/
  meshctl run --network prod --hostname db1 --dns 192.0.2.53 --dns-search corp.example -- bash
  sudo meshctl run --network test -- bash

The task ends with the process, however that ends; its exit code is meshctl's. Only network,
/etc/resolv.conf and, with --hostname, the host name differ from outside. Needs root.

Without --service the command takes meshctl's place: it has its process, terminal and signals.
With --service meshctl stays in front of it: SIGTERM and SIGINT (Ctrl-C) take the task out of its service
at once, wait until its connections have ended or its drain timeout is over, and then stop the command;
a second one does not wait. Other signals go on to the command, and it never outlives meshctl.")]
pub struct Args {
    #[command(flatten)]
    task: TaskOptions,
    /// What the command gets when it is to stop, for example QUIT or 3
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", requires = "service")]
    stop_signal: StopSignal,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command, or becomes it. What was made ends with the process.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let runtime = context.runtime()?;
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::Usage("no command given".to_owned()).into());
    };
    let (daemon, attached) = runtime.block_on(context.explained(prepare(args, context)))?;
    if args.task.has_service() {
        let task = Supervised { daemon, task: attached.task_id, stop: args.stop_signal };
        return runtime.block_on(supervise::run(&task, program, arguments));
    }
    drop(daemon);
    // The connection closes before the command starts.
    drop(runtime);
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::Exec { command: program.to_string_lossy().into_owned(), cause: error.kind() }.into())
}

async fn prepare(args: &Args, context: &Context) -> Result<(Daemon, AttachResponse)> {
    let what = || format!("cannot run {}", args.task.what());
    args.task.check().with_context(what)?;
    let daemon = context.daemon().await?;
    sandbox::enter(args.task.hostname()).with_context(what)?;
    let request = args.task.clone().request(Namespace::Pid(id()));
    let attached = answer(daemon.local().attach(request)).await.with_context(what)?;
    sandbox::cover_resolv_conf(&attached.resolv_conf).with_context(what)?;
    Ok((daemon, attached))
}
