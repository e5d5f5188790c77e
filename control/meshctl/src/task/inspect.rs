//! `meshctl task inspect`.

use anyhow::{Context as _, Result};
use mesh_types::Lookup;

use crate::{
    context::Context,
    name::reference,
    report::{Cluster, TaskDetail},
};

/// Show tasks; those of this node with their connections and how far they have drained
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl task inspect web.1
  meshctl --format json task inspect web.1 web.2")]
pub struct Args {
    /// Tasks
    #[arg(required = true, value_name = "TASK", value_parser = reference)]
    tasks: Vec<String>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let cluster = Cluster::fetch(&daemon).await.context("cannot inspect tasks")?;
    let tasks = cluster.tasks();
    let mut details = Vec::new();
    for reference in &args.tasks {
        let task = Lookup::find(&tasks, reference)?;
        details.push(TaskDetail::fetch(&daemon, task).await?);
    }
    context.show(&details, |details| details.iter().map(TaskDetail::page).collect::<Vec<_>>().join("\n"))
}
