//! `meshctl join-token`.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use mesh_api::v1::{self, JoinTokenRequest};
use serde::Serialize;

use crate::{context::Context, daemon::answer};

/// Print the command with which a node joins, or change the token
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl join-token worker
  meshctl join-token --quiet manager
  meshctl join-token --rotate worker    the old token is worth nothing from then on")]
pub struct Args {
    /// What the joining node is to be
    #[arg(value_enum, default_value_t)]
    role: Role,
    /// Change the token first
    #[arg(long)]
    rotate: bool,
    /// Print only the token
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Role {
    #[default]
    Worker,
    Manager,
}

#[derive(Serialize)]
struct Report {
    role: &'static str,
    token: String,
    managers: Vec<String>,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let (role, wire) = match args.role {
        Role::Worker => ("worker", v1::Role::Worker),
        Role::Manager => ("manager", v1::Role::Manager),
    };
    let request = JoinTokenRequest { role: wire.into(), rotate: args.rotate };
    let daemon = context.daemon().await?;
    let what = if args.rotate { "change" } else { "get" };
    let response = answer(daemon.control().get_join_token(request))
        .await
        .with_context(|| format!("cannot {what} the {role}s' token"))?;
    let report = Report { role, token: response.token, managers: response.managers };
    context.show(&report, |report| {
        if args.quiet {
            return report.token.clone();
        }
        let rotated =
            if args.rotate { format!("The {role}s' token was changed.\n\n") } else { String::new() };
        rotated + &instructions(role, &report.token, &report.managers)
    })
}

/// What to run on another node.
pub fn instructions(role: &str, token: &str, managers: &[String]) -> String {
    format!(
        "To add a {role} to this cluster, run the following command on it:\n\n    meshctl join --token {token} {}\n\n",
        managers.join(" ")
    )
}
