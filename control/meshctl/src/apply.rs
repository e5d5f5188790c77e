//! `meshctl apply`.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result};
use mesh_api::v1;
use serde::Serialize;

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    failure::Failure,
    intent::{Action, Call, Change, Dialect, Plan, Remark, plan, read},
    output,
    report::Cluster,
};

/// Make networks and services as a file declares them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl apply -f mesh.yaml --dry-run
  meshctl apply -f mesh.yaml
  meshctl apply -f mesh.yaml --prune          what is not declared goes
  meshctl export | ssh other meshctl apply -f -
  meshctl apply --compose compose.yaml        its networks, and its services' networks, aliases and ports

Applied twice, a file changes nothing the second time. What somebody else changes meanwhile is not overwritten:
apply refuses then, and can be repeated. `meshctl export` writes such a file of what there is.")]
pub struct Args {
    /// File to apply; - for stdin
    #[arg(long, short, value_name = "FILE", required_unless_present = "compose", conflicts_with = "compose")]
    file: Option<PathBuf>,
    /// Compose file, of which networks and published ports count; the rest is named and read over
    #[arg(long, value_name = "FILE")]
    compose: Option<PathBuf>,
    /// Remove networks and services that the file does not declare, but never the ingress network
    #[arg(long)]
    prune: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Report {
    /// Whether nothing was changed because nothing should be.
    dry_run: bool,
    changes: Vec<Change>,
    /// What was read over, with its lines.
    ignored: Vec<String>,
}

/// Reads the file, compares it with what there is, and asks a manager for each change.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let (path, dialect) = match (&args.file, &args.compose) {
        (Some(file), _) => (file, Dialect::Mesh),
        (None, Some(file)) => (file, Dialect::Compose),
        (None, None) => return Err(Failure::Usage("no file is named".to_owned()).into()),
    };
    let placed = |remarks: Vec<Remark>| -> Vec<String> {
        let place = |remark: Remark| format!("{}:{}: {}", path.display(), remark.line, remark.text);
        remarks.into_iter().map(place).collect()
    };
    let wrong = |remarks| Failure::File(placed(remarks));
    let mut intent = read(&load(path)?, dialect).map_err(wrong)?;
    let ignored = placed(std::mem::take(&mut intent.ignored));
    if !context.is_for_programs() {
        ignored.iter().for_each(|line| anstream::eprintln!("meshctl: ignored: {line}"));
    }
    let daemon = context.daemon().await?;
    let cluster = Cluster::fetch(&daemon).await.context("cannot compare with the cluster")?;
    let Plan { changes, calls } = plan(&intent, &cluster.view, args.prune).map_err(wrong)?;
    let report = Report { dry_run: args.dry_run, changes, ignored };
    if args.dry_run {
        return context.show(&report, page);
    }
    if !context.is_for_programs() {
        output::print(&page(&report))?;
    }
    carry_out(&daemon, calls.into_iter().collect(), path).await?;
    if context.is_for_programs() {
        context.show(&report, |_| String::new())?;
    }
    Ok(())
}

fn load(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// Ends at the first refusal, and says how far it came.
async fn carry_out(daemon: &Daemon, calls: Vec<Call>, path: &Path) -> Result<()> {
    // A service that this has changed has another version than it was compared at.
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    let count = calls.len();
    for (done, call) in calls.into_iter().enumerate() {
        let what = format!("cannot {}", call.what());
        if let Err(error) = make(daemon, call, &mut versions).await {
            let far = match done {
                0 => format!("cannot apply {}, nothing was changed", path.display()),
                done => {
                    format!("cannot apply all of {}, {done} of {count} changes were made", path.display())
                }
            };
            return Err(anyhow::Error::from(error).context(what).context(far));
        }
    }
    Ok(())
}

async fn make(daemon: &Daemon, call: Call, versions: &mut BTreeMap<String, u64>) -> Result<(), Failure> {
    let mut control = daemon.control();
    match call {
        Call::CreateNetwork(request) => answer(control.create_network(request)).await.map(drop),
        Call::UpdateNetwork(request) => answer(control.update_network(request)).await.map(drop),
        Call::RemoveNetwork(request) => answer(control.remove_network(request)).await.map(drop),
        Call::CreateService(request) => answer(control.create_service(request)).await.map(drop),
        Call::UpdateService(mut request) => {
            let name = request.service.clone();
            request.expected_version = versions.get(&name).copied().or(request.expected_version);
            let service: v1::Service = answer(control.update_service(request)).await?;
            versions.insert(name, service.version);
            Ok(())
        }
        Call::RemoveService(request) => answer(control.remove_service(request)).await.map(drop),
    }
}

fn page(report: &Report) -> String {
    if report.changes.is_empty() {
        return "nothing to change".to_owned();
    }
    let mut page = String::new();
    let mut counts = [0; 3];
    for change in &report.changes {
        let (sign, place) = match change.action {
            Action::Create => ('+', 0),
            Action::Update => ('~', 1),
            Action::Remove => ('-', 2),
        };
        counts[place] += 1;
        page.push_str(&coloured(&format!("{sign} {} {}", change.kind, change.name)));
        for detail in &change.details {
            page.push_str(&format!("    {}", coloured(detail)));
        }
    }
    let [created, updated, removed] = counts;
    let would = if report.dry_run { "would be " } else { "" };
    page.push_str(&format!("{created} {would}created, {updated} {would}changed, {removed} {would}removed\n"));
    page
}

/// A line in the colour of its sign; colours are taken out again on the way to what is no terminal.
fn coloured(line: &str) -> String {
    let colour = match line.chars().next() {
        Some('+') => AnsiColor::Green,
        Some('-') => AnsiColor::Red,
        _ => AnsiColor::Yellow,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{line}{style:#}\n")
}
