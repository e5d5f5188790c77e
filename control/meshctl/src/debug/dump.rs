//! What one node knows by gossip, and how that differs from what another knows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, gossip_entry::Content};
use serde::{Deserialize, Serialize};

use crate::{
    daemon::{Daemon, answer},
    report::GossipReport,
};

/// All that a node knows by gossip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    pub node_id: String,
    pub node_name: String,
    pub gossip: GossipReport,
    /// Names of networks by id, as far as the node knows them.
    pub networks: BTreeMap<String, String>,
    pub tables: Vec<TableDump>,
    pub entries: Vec<EntryDump>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDump {
    /// Null: who wants which tables.
    pub network_id: Option<String>,
    pub network: Option<String>,
    /// Of members that are not gone.
    pub entries: u32,
    pub tombstones: u32,
    /// Hexadecimal; equal ones are equal tables.
    pub digest: String,
    /// How long ago another member's was found to be equal.
    pub equal_millis: Option<u64>,
    /// For how long it has been known to be otherwise than another's.
    pub behind_millis: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryDump {
    /// The network whose table it is in; null: who wants which tables.
    pub table: Option<String>,
    pub owner: String,
    pub incarnation: u64,
    pub statement: u64,
    /// Its owner is not gone.
    pub counts: bool,
    #[serde(flatten)]
    pub content: ContentDump,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ContentDump {
    Interest { all: bool, networks: Vec<String> },
    Endpoint { task_id: String, network_id: String, name: String, addresses: Vec<String>, state: String },
    Gone { task_id: String, network_id: String, age_millis: u64 },
}

/// An entry that two nodes know otherwise.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub table: Option<String>,
    pub owner: String,
    pub what: String,
    /// How the node that was asked knows it; null: not at all.
    pub here: Option<String>,
    /// How the other does.
    pub there: Option<String>,
}

impl Dump {
    /// Of the daemon's node.
    pub async fn fetch(daemon: &Daemon) -> Result<Self> {
        let dump = answer(daemon.local().dump_gossip(v1::DumpGossipRequest {})).await;
        let dump = dump.context("cannot get what the node knows by gossip")?;
        // Names are for people; without a view there are ids.
        let view = answer(daemon.local().get_view(v1::GetViewRequest {})).await;
        let view = view.ok().and_then(|response| response.view).unwrap_or_default();
        let nodes: BTreeMap<_, _> = view.nodes.into_iter().map(|node| (node.id, node.name)).collect();
        let networks: BTreeMap<_, _> = view.networks.into_iter().map(|net| (net.id, net.name)).collect();
        let table = |table: v1::GossipTable| TableDump {
            network: networks.get(&table.network_id).cloned(),
            network_id: optional(table.network_id),
            entries: table.entries,
            tombstones: table.tombstones,
            digest: format!("{:016x}", table.digest),
            equal_millis: table.equal_millis,
            behind_millis: table.behind_millis,
        };
        Ok(Self {
            node_id: dump.node_id,
            node_name: dump.node_name,
            gossip: GossipReport::new(dump.status.unwrap_or_default(), &nodes),
            tables: dump.tables.into_iter().map(table).collect(),
            networks,
            entries: dump.entries.into_iter().filter_map(EntryDump::new).collect(),
        })
    }

    /// A table's name is its network's.
    pub fn table_name<'a>(&'a self, table: Option<&'a str>) -> &'a str {
        let Some(id) = table else { return "(interests)" };
        self.networks.get(id).map_or(id, String::as_str)
    }

    /// A node's name.
    pub fn node_name<'a>(&'a self, id: &'a str) -> &'a str {
        let named = self.gossip.members.iter().find(|member| member.node_id == id);
        named.and_then(|member| member.name.as_deref()).unwrap_or(id)
    }

    /// Leaves the entries and the member that `node` owns.
    pub fn retain(&mut self, node: &str) {
        self.entries.retain(|entry| entry.owner == node);
        self.gossip.members.retain(|member| member.node_id == node);
    }

    /// The entries that `other` knows otherwise, of the tables that both have. What is deleted is as good as not there.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let tables = |dump: &Self| dump.tables.iter().map(|t| t.network_id.clone()).collect::<BTreeSet<_>>();
        let both = &tables(self) & &tables(other);
        let (here, there) = (self.by_key(), other.by_key());
        let keys: BTreeSet<_> = here.keys().chain(there.keys()).filter(|key| both.contains(&key.0)).collect();
        let mut differences = Vec::new();
        for key in keys {
            let (mine, theirs) = (here.get(key).copied(), there.get(key).copied());
            if mine.and_then(EntryDump::live_version) == theirs.and_then(EntryDump::live_version) {
                continue;
            }
            let told = [mine, theirs].into_iter().flatten();
            differences.push(Difference {
                table: key.0.clone(),
                owner: key.1.clone(),
                what: told
                    .map(EntryDump::what)
                    .max_by_key(|(known, _)| *known)
                    .map_or_else(String::new, |w| w.1),
                here: mine.map(EntryDump::text),
                there: theirs.map(EntryDump::text),
            });
        }
        differences
    }

    #[expect(clippy::type_complexity, reason = "a key that is used here only")]
    fn by_key(&self) -> BTreeMap<(Option<String>, String, Option<(String, String)>), &EntryDump> {
        self.entries.iter().map(|e| ((e.table.clone(), e.owner.clone(), e.slot()), e)).collect()
    }
}

impl EntryDump {
    fn new(entry: v1::GossipEntry) -> Option<Self> {
        let content = match entry.content? {
            Content::Interest(v1::GossipInterest { all, networks }) => {
                ContentDump::Interest { all, networks }
            }
            Content::Endpoint(endpoint) => ContentDump::Endpoint {
                state: match endpoint.state() {
                    v1::EndpointState::Ready => "ready",
                    v1::EndpointState::Draining => "draining",
                    v1::EndpointState::Drained => "drained",
                    v1::EndpointState::Unspecified => "unknown",
                }
                .to_owned(),
                task_id: endpoint.task_id,
                network_id: endpoint.network_id,
                name: endpoint.name,
                addresses: endpoint.addresses,
            },
            Content::Gone(v1::GossipTombstone { task_id, network_id, age_millis }) => {
                ContentDump::Gone { task_id, network_id, age_millis }
            }
        };
        Some(Self {
            table: optional(entry.table),
            owner: entry.owner,
            incarnation: entry.incarnation,
            statement: entry.statement,
            counts: entry.counts,
            content,
        })
    }

    fn slot(&self) -> Option<(String, String)> {
        match &self.content {
            ContentDump::Interest { .. } => None,
            ContentDump::Endpoint { task_id, network_id, .. }
            | ContentDump::Gone { task_id, network_id, .. } => Some((task_id.clone(), network_id.clone())),
        }
    }

    /// Which statement of its owner it is, unless it is deleted or its owner is gone.
    fn live_version(&self) -> Option<(u64, u64)> {
        let live = self.counts && !matches!(self.content, ContentDump::Gone { .. });
        live.then_some((self.incarnation, self.statement))
    }

    /// Of what it tells, and how well that says it.
    fn what(&self) -> (u8, String) {
        match &self.content {
            ContentDump::Interest { .. } => (2, "interest".to_owned()),
            ContentDump::Endpoint { name, .. } => (2, name.clone()),
            ContentDump::Gone { task_id, .. } => (1, task_id.clone()),
        }
    }

    fn text(&self) -> String {
        let version = self.version();
        match (&self.content, self.counts) {
            (ContentDump::Gone { .. }, _) => format!("gone ({version})"),
            (_, false) => format!("{version}, owner gone"),
            (_, true) => version,
        }
    }

    /// As tables show it: incarnations are most often the wall clock's milliseconds, of which the last tell starts apart.
    pub fn version(&self) -> String {
        version(self.incarnation, self.statement)
    }
}

/// A version as tables show it.
pub fn version(incarnation: u64, statement: u64) -> String {
    format!("{incarnation}.{statement}")
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
#[path = "dump/tests.rs"]
mod tests;
