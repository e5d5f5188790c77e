//! The whole command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{
    CommandFactory, FromArgMatches as _, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use crate::{
    apply, attach, ca, capture, cluster, completion, connectivity,
    context::{Context, Options},
    dashboard, debug, detach, dns, doctor, events, export, flows, init, join, join_token, leave, log_level,
    man, monitor, network, node, ping, publish, run, service, status, systemd, task, top, trace, unlock,
    unlock_key, unpublish,
};

/// Networks, published ports and tasks of a meshd cluster.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = "\
Examples:
  meshctl init --advertise-addr 192.168.1.10
  meshctl network create --driver overlay --subnet 10.10.3.0/24 prod
  meshctl service create --network prod --publish 80:80 web
  meshctl run --network prod --service web -- nginx -g 'daemon off;'

Names, ids and unambiguous beginnings of ids mean the same object.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 69 the daemon cannot be reached."
)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Join(join::Args),
    Leave(leave::Args),
    Status(status::Args),
    JoinToken(join_token::Args),
    Ca(ca::Args),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::Command),
    UnlockKey(unlock_key::Args),
    Unlock(unlock::Args),
    /// Nodes of the cluster
    #[command(subcommand)]
    Node(node::Command),
    /// Networks that tasks share
    #[command(subcommand)]
    Network(network::Command),
    /// Services: names, virtual addresses and published ports for groups of tasks
    #[command(subcommand)]
    Service(service::Command),
    Apply(apply::Args),
    Export(export::Args),
    Events(events::Args),
    Publish(publish::Args),
    Unpublish(unpublish::Args),
    Attach(attach::Args),
    Detach(detach::Args),
    SystemdAttach(systemd::AttachArgs),
    SystemdDetach(systemd::DetachArgs),
    #[command(hide = true)]
    SystemdNetns(systemd::NetnsArgs),
    Run(run::Args),
    /// Tasks: namespaces attached to networks
    #[command(subcommand)]
    Task(task::Command),
    /// Names as tasks see them
    #[command(subcommand)]
    Dns(dns::Command),
    Doctor(doctor::Args),
    Dashboard(dashboard::Args),
    Ping(ping::Args),
    Flows(flows::Args),
    Monitor(monitor::Args),
    Capture(capture::Args),
    Trace(trace::Args),
    Top(top::Args),
    /// Whether tasks of all nodes reach each other
    #[command(subcommand)]
    Connectivity(connectivity::Command),
    LogLevel(log_level::Args),
    /// What the daemon knows, for people who look for a fault
    #[command(subcommand)]
    Debug(debug::Command),
    Completion(completion::Args),
    #[command(hide = true)]
    Man(man::Args),
}

impl Cli {
    /// Reads the process's arguments; on wrong usage the error names the whole word and the process ends with 2.
    pub fn of_process() -> Self {
        let mut command = flowing::flowing(Self::command());
        let words = command.try_get_matches_from_mut(std::env::args_os());
        let read = words
            .and_then(|words| Self::from_arg_matches(&words).map_err(|error| error.format(&mut command)));
        read.unwrap_or_else(|mut error| {
            if let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
                && flag.len() == 2
                && let Some(word) = std::env::args_os()
                    .filter_map(|word| word.into_string().ok())
                    .find(|word| word.starts_with(flag.as_str()))
            {
                // Of `-name-` clap tells only `-n`.
                let tip = format!("to pass '{word}' as a value, use '-- {word}'").into();
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
                error.insert(ContextKind::InvalidArg, ContextValue::String(word));
            }
            leave_out_hidden(&mut error);
            error.exit()
        })
    }

    /// Does what the command line says.
    pub fn execute(self) -> Result<ExitCode> {
        let context = Context::new(self.options);
        match self.command {
            Command::Run(args) => run::run(&args, &context),
            Command::Completion(args) => completion::run(&args, &context).map(|()| ExitCode::SUCCESS),
            Command::Man(args) => man::run(&args).map(|()| ExitCode::SUCCESS),
            Command::SystemdAttach(args) => systemd::attach(&args, &context).map(|()| ExitCode::SUCCESS),
            Command::SystemdDetach(args) => systemd::detach(&args, &context).map(|()| ExitCode::SUCCESS),
            Command::Doctor(args) => context.runtime()?.block_on(doctor::run(&args, &context)),
            Command::Ping(args) => context.runtime()?.block_on(context.explained(ping::run(&args, &context))),
            Command::Trace(args) => {
                context.runtime()?.block_on(context.explained(trace::run(args, &context)))
            }
            Command::Connectivity(command) => {
                context.runtime()?.block_on(context.explained(command.run(&context)))
            }
            // These are the way out of being in no cluster.
            command @ (Command::Init(_) | Command::Join(_)) => {
                context.runtime()?.block_on(command.execute(&context))?;
                Ok(ExitCode::SUCCESS)
            }
            command => {
                context.runtime()?.block_on(context.explained(command.execute(&context)))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Command {
    async fn execute(self, context: &Context) -> Result<()> {
        match self {
            Command::Init(args) => init::run(args, context).await,
            Command::Join(args) => join::run(args, context).await,
            Command::Leave(args) => leave::run(&args, context).await,
            Command::Status(args) => status::run(&args, context).await,
            Command::Debug(command) => command.run(context).await,
            Command::JoinToken(args) => join_token::run(&args, context).await,
            Command::LogLevel(args) => log_level::run(&args, context).await,
            Command::Ca(args) => ca::run(&args, context).await,
            Command::Cluster(command) => command.run(context).await,
            Command::UnlockKey(args) => unlock_key::run(&args, context).await,
            Command::Unlock(args) => unlock::run(&args, context).await,
            Command::Node(command) => command.run(context).await,
            Command::Network(command) => command.run(context).await,
            Command::Service(command) => command.run(context).await,
            Command::Apply(args) => apply::run(args, context).await,
            Command::Export(args) => export::run(&args, context).await,
            Command::Events(args) => events::run(args, context).await,
            Command::Dashboard(args) => dashboard::run(args, context).await,
            Command::Flows(args) => flows::run(args, context).await,
            Command::Top(args) => top::run(&args, context).await,
            Command::Monitor(args) => monitor::run(args, context).await,
            Command::Capture(args) => capture::run(args, context).await,
            Command::Publish(args) => publish::run(args, context).await,
            Command::Unpublish(args) => unpublish::run(args, context).await,
            Command::Attach(args) => attach::run(args, context).await,
            Command::Detach(args) => detach::run(args, context).await,
            Command::SystemdNetns(args) => systemd::run(args, context).await,
            Command::Task(command) => command.run(context).await,
            Command::Dns(command) => command.run(context).await,
            // `Cli::execute` does these: they need no runtime, or one of their own, or end with codes of their own.
            Command::Man(_) | Command::SystemdAttach(_) | Command::SystemdDetach(_) => Ok(()),
            Command::Run(_)
            | Command::Completion(_)
            | Command::Doctor(_)
            | Command::Ping(_)
            | Command::Trace(_)
            | Command::Connectivity(_) => Ok(()),
        }
    }
}

/// Verbs that no list shows are no tip for a mistyped one either.
fn leave_out_hidden(error: &mut clap::Error) {
    let Some(ContextValue::Strings(tips)) = error.get(ContextKind::SuggestedSubcommand) else { return };
    let cli = Cli::command();
    let hidden = |tip: &String| cli.find_subcommand(tip).is_some_and(clap::Command::is_hide_set);
    let tips: Vec<_> = tips.iter().filter(|tip| !hidden(tip)).cloned().collect();
    error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(tips));
}

mod flowing;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
