//! What this node knows by gossip, for people.

use std::time::Duration;

use mesh_agent::{Agent, GossipStatus, MemberState};
use mesh_api::v1::{self, gossip_entry::Content};
use mesh_gossip::{EntryReport, Interest, Item, MemberReport, Table, TableReport};
use mesh_types::NodeId;
use tonic::Status;

use crate::membership::Membership;

/// All of it.
pub async fn dump(membership: &Membership, agent: &Agent) -> Result<v1::DumpGossipResponse, Status> {
    let (known, entries) = (agent.gossip_status().await, agent.gossip_entries().await);
    let (Some(known), Some(entries)) = (known, entries) else {
        return Err(Status::unavailable("gossip has ended: this node is about to stop"));
    };
    Ok(v1::DumpGossipResponse {
        node_id: membership.node.to_string(),
        node_name: membership.name.to_string(),
        status: Some(status(&known)),
        tables: known.report.tables.iter().map(|(table, report)| table_message(*table, report)).collect(),
        entries: entries.iter().map(entry).collect(),
    })
}

/// How it stands.
pub fn status(status: &GossipStatus) -> v1::GossipStatus {
    let GossipStatus { report, rates, counters } = status;
    let tables = report.tables.values();
    let shared = tables.clone().filter(|table| table.shared);
    let oldest = shared.map(|table| table.equal).collect::<Option<Vec<_>>>();
    v1::GossipStatus {
        incarnation: report.version.epoch,
        statements: report.version.counter,
        unacknowledged: small(report.unacknowledged),
        relayed: small(report.relayed),
        slowness: report.slowness.into(),
        tables: small(report.tables.len()),
        tables_behind: small(tables.filter(|table| table.behind.is_some()).count()),
        behind_millis: report.lag().map_or(0, millis),
        equal_millis: oldest.and_then(|all| all.into_iter().max()).map(millis),
        datagrams_in_per_second: rates.datagrams_in,
        datagrams_out_per_second: rates.datagrams_out,
        bytes_in_per_second: rates.bytes_in,
        bytes_out_per_second: rates.bytes_out,
        syncs_equal: counters.core.syncs_equal,
        syncs_differing: counters.core.syncs_differing,
        suspicions: counters.core.suspicions,
        renewals: counters.core.renewals,
        refused: counters.refused().map(|(reason, count)| (reason.to_owned(), count)).into(),
        members: report.members.iter().map(|(node, report)| member(*node, report)).collect(),
    }
}

/// As the API has it.
pub fn state(state: MemberState) -> v1::MemberState {
    match state {
        MemberState::Alive => v1::MemberState::Alive,
        MemberState::Suspect => v1::MemberState::Suspect,
        MemberState::Down => v1::MemberState::Down,
        MemberState::Left => v1::MemberState::Left,
        MemberState::Unattended => v1::MemberState::Unattended,
    }
}

fn member(node: NodeId, report: &MemberReport) -> v1::GossipMember {
    v1::GossipMember {
        node_id: node.to_string(),
        state: state(report.state).into(),
        address: report.addr.to_string(),
        lasted_millis: millis(report.lasted),
        incarnation: report.version.epoch,
        statement: report.version.counter,
        entries: small(report.entries),
        behind_millis: report.behind.map(millis),
    }
}

fn table_message(table: Table, report: &TableReport) -> v1::GossipTable {
    v1::GossipTable {
        network_id: network(table),
        entries: small(report.entries),
        tombstones: small(report.tombstones),
        digest: report.digest,
        equal_millis: report.equal.map(millis),
        behind_millis: report.behind.map(millis),
    }
}

fn entry(entry: &EntryReport) -> v1::GossipEntry {
    let (key, version) = (entry.item.key(), entry.item.version());
    let content = match &entry.item {
        Item::Interest { interest, .. } => Content::Interest(match interest {
            Interest::All => v1::GossipInterest { all: true, networks: Vec::new() },
            Interest::Networks(networks) => v1::GossipInterest {
                all: false,
                networks: networks.iter().map(ToString::to_string).collect(),
            },
        }),
        Item::Endpoint { endpoint, .. } => Content::Endpoint((&**endpoint).into()),
        Item::Gone { task, network, .. } => Content::Gone(v1::GossipTombstone {
            task_id: task.to_string(),
            network_id: network.to_string(),
            age_millis: entry.gone.map_or(0, millis),
        }),
    };
    v1::GossipEntry {
        table: network(key.table),
        owner: key.owner.to_string(),
        incarnation: version.epoch,
        statement: version.counter,
        counts: entry.counts,
        content: Some(content),
    }
}

fn network(table: Table) -> String {
    match table {
        Table::Interests => String::new(),
        Table::Endpoints(network) => network.to_string(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
