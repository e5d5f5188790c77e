//! `meshctl debug gossip`.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use super::dump::{ContentDump, Difference, Dump, version};
use crate::{
    context::Context,
    daemon::Daemon,
    name::reference,
    output::{Page, Table, list, short, state},
    report::age,
};

/// Show all that this node knows by gossip, or what another node knows otherwise
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl debug gossip
  meshctl debug gossip --node n2
  meshctl --format json debug gossip > n1.json
  meshctl debug gossip --diff n1.json
  meshctl debug gossip --diff /run/meshd-2/meshd.sock

Versions are INCARNATION.STATEMENT of the node that owns the entry: only it changes them. A table is behind from the moment
when a comparison finds it to be otherwise than another node's, until one finds it equal. Differences that stay for longer
than some seconds are a fault; those of a moment are changes on their way.")]
pub struct Args {
    /// Only what this node has told of itself: name, id, or beginning of the id
    #[arg(long, value_name = "NODE", value_parser = reference)]
    node: Option<String>,
    /// The other node: its daemon's socket, or a file with its dump as JSON
    #[arg(long, value_name = "FILE|SOCKET")]
    diff: Option<PathBuf>,
}

#[derive(Serialize)]
struct Comparison {
    here: String,
    there: String,
    differences: Vec<Difference>,
}

/// Asks the daemon.
pub async fn run(args: &Args, context: &Context) -> Result<()> {
    let mut dump = Dump::fetch(&context.daemon().await?).await?;
    let owner = args.node.as_deref().map(|reference| find(&dump, reference)).transpose()?;
    if let Some(owner) = &owner {
        dump.retain(owner);
    }
    let Some(path) = &args.diff else { return context.show(&dump, page) };
    let mut other = other(path).await?;
    if let Some(owner) = &owner {
        other.retain(owner);
    }
    let comparison = Comparison {
        here: dump.node_name.clone(),
        there: other.node_name.clone(),
        differences: dump.differences(&other),
    };
    context.show(&comparison, |comparison| differences(comparison, &dump))
}

async fn other(path: &Path) -> Result<Dump> {
    let kind = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.file_type();
    if kind.is_socket() {
        return Dump::fetch(&Daemon::connect(path).await?).await;
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is no dump; write one with `meshctl --format json debug gossip` on the other node",
            path.display()
        )
    })
}

/// The id of the node that is meant.
fn find(dump: &Dump, reference: &str) -> Result<String> {
    let members = &dump.gossip.members;
    let named = members.iter().find(|m| m.node_id == reference || m.name.as_deref() == Some(reference));
    let mut beginning = members.iter().filter(|member| member.node_id.starts_with(reference));
    match (named, beginning.next(), beginning.next()) {
        (Some(member), ..) | (None, Some(member), None) => Ok(member.node_id.clone()),
        (None, Some(_), Some(_)) => {
            Err(anyhow!("several nodes' ids begin with {reference}: write more of it"))
        }
        (None, None, _) => {
            Err(anyhow!("gossip knows of no node {reference}; `meshctl debug gossip` shows those it knows"))
        }
    }
}

fn page(dump: &Dump) -> String {
    let mut page = Page::new();
    page.field("Node", format!("{} ({})", dump.node_name, dump.node_id))
        .field("Version", version(dump.gossip.incarnation, dump.gossip.statements));
    dump.gossip.fields(&mut page);
    let mut tables = Table::new(&["TABLE", "ENTRIES", "TOMBSTONES", "DIGEST", "EQUAL", "BEHIND"]);
    for table in &dump.tables {
        tables.row([
            dump.table_name(table.network_id.as_deref()).to_owned(),
            table.entries.to_string(),
            table.tombstones.to_string(),
            table.digest.clone(),
            table.equal_millis.map_or_else(|| "never".to_owned(), |millis| age(millis) + " ago"),
            table.behind_millis.map_or_else(|| "-".to_owned(), age),
        ]);
    }
    let mut members = Table::new(&["MEMBER", "STATE", "FOR", "ADDRESS", "VERSION", "ENTRIES", "BEHIND"]);
    for member in &dump.gossip.members {
        members.row([
            member.name.clone().unwrap_or_else(|| short(&member.node_id)).into(),
            state(&member.state),
            age(member.lasted_millis).into(),
            (&member.address).into(),
            version(member.incarnation, member.statement).into(),
            member.entries.into(),
            member.behind_millis.map_or_else(|| "-".to_owned(), age).into(),
        ]);
    }
    let mut entries = Table::new(&["TABLE", "OWNER", "ENTRY", "VERSION", "CONTENT"]);
    for entry in &dump.entries {
        let (what, content) = match &entry.content {
            ContentDump::Interest { all: true, .. } => ("interest".to_owned(), "all tables".to_owned()),
            ContentDump::Interest { networks, .. } => {
                let names = networks.iter().map(|network| dump.table_name(Some(network)));
                ("interest".to_owned(), list(names))
            }
            ContentDump::Endpoint { name, addresses, state, .. } => {
                (name.clone(), format!("{} {state}", list(addresses)))
            }
            ContentDump::Gone { task_id, age_millis, .. } => {
                (short(task_id), format!("gone {} ago", age(*age_millis)))
            }
        };
        let doubt = if entry.counts { "" } else { " (owner gone)" };
        entries.row([
            dump.table_name(entry.table.as_deref()).to_owned(),
            dump.node_name(&entry.owner).to_owned(),
            what,
            entry.version(),
            content + doubt,
        ]);
    }
    page.section("Tables", tables).section("Members", members).section("Entries", entries);
    page.render()
}

fn differences(comparison: &Comparison, dump: &Dump) -> String {
    if comparison.differences.is_empty() {
        return format!("{} and {} know the same.", comparison.here, comparison.there);
    }
    let (here, there) = (comparison.here.to_uppercase(), comparison.there.to_uppercase());
    let mut table = Table::new(&["TABLE", "OWNER", "ENTRY", &here, &there]);
    for difference in &comparison.differences {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            dump.table_name(difference.table.as_deref()).to_owned(),
            dump.node_name(&difference.owner).to_owned(),
            difference.what.clone(),
            side(&difference.here),
            side(&difference.there),
        ]);
    }
    table.render()
}
