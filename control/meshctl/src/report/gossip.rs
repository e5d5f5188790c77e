//! How far a node knows by gossip what the others know.

use std::collections::BTreeMap;

use mesh_api::v1;
use mesh_types::format_seconds;
use serde::{Deserialize, Serialize};

use crate::output::{Page, list};

/// As `status` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GossipReport {
    /// This node's.
    pub incarnation: u64,
    /// That it made in this incarnation.
    pub statements: u64,
    /// Updates that other members have not acknowledged yet.
    pub unacknowledged: u32,
    /// Changes that wait to be relayed.
    pub relayed: u32,
    /// How slow this node seems to be itself: 0 (well) to 3.
    pub slowness: u32,
    pub tables: u32,
    /// Found to be otherwise than another member's, and not found equal since.
    pub tables_behind: u32,
    /// The longest that one has been.
    pub lag_millis: u64,
    /// How long ago each table had been found equal to another's; null: not each was.
    pub equal_millis: Option<u64>,
    pub datagrams_in_per_second: f64,
    pub datagrams_out_per_second: f64,
    pub bytes_in_per_second: f64,
    pub bytes_out_per_second: f64,
    /// Comparisons that others began since the start, and that found no difference.
    pub syncs_equal: u64,
    /// Or one.
    pub syncs_differing: u64,
    /// Members that did not answer this node's probes, since the start.
    pub suspicions: u64,
    /// Times that this node was taken for dead and came back.
    pub renewals: u64,
    /// Packets by reason, since the start; without those of which there were none.
    pub refused: BTreeMap<String, u64>,
    pub members: Vec<GossipMember>,
}

/// A member as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipMember {
    pub node_id: String,
    pub name: Option<String>,
    pub state: String,
    pub address: String,
    /// For how long it has been in this state.
    pub lasted_millis: u64,
    pub incarnation: u64,
    /// Its newest one that is known here.
    pub statement: u64,
    /// Of it known here.
    pub entries: u32,
    /// For how long they have been known to be otherwise than what another member knows.
    pub behind_millis: Option<u64>,
}

impl GossipReport {
    /// With names by id.
    pub fn new(status: v1::GossipStatus, names: &BTreeMap<String, String>) -> Self {
        let member = |member: v1::GossipMember| GossipMember {
            name: names.get(&member.node_id).cloned(),
            state: member_state(member.state()).to_owned(),
            node_id: member.node_id,
            address: member.address,
            lasted_millis: member.lasted_millis,
            incarnation: member.incarnation,
            statement: member.statement,
            entries: member.entries,
            behind_millis: member.behind_millis,
        };
        let mut members: Vec<_> = status.members.into_iter().map(member).collect();
        members.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
        Self {
            incarnation: status.incarnation,
            statements: status.statements,
            unacknowledged: status.unacknowledged,
            relayed: status.relayed,
            slowness: status.slowness,
            tables: status.tables,
            tables_behind: status.tables_behind,
            lag_millis: status.behind_millis,
            equal_millis: status.equal_millis,
            datagrams_in_per_second: status.datagrams_in_per_second,
            datagrams_out_per_second: status.datagrams_out_per_second,
            bytes_in_per_second: status.bytes_in_per_second,
            bytes_out_per_second: status.bytes_out_per_second,
            syncs_equal: status.syncs_equal,
            syncs_differing: status.syncs_differing,
            suspicions: status.suspicions,
            renewals: status.renewals,
            refused: status.refused.into_iter().filter(|(_, count)| *count > 0).collect(),
            members,
        }
    }

    /// The lines of a page.
    pub fn fields(&self, page: &mut Page) {
        page.field("Gossip", self.convergence()).field("Gossip traffic", self.traffic());
        if self.slowness > 0 {
            let why = "this node seems slow itself: it was late, or nobody answers it";
            page.field("Gossip health", format!("{why} ({} of 3)", self.slowness));
        }
        if !self.refused.is_empty() {
            let refused = self.refused.iter().map(|(reason, count)| format!("{count} {reason}"));
            page.field("Gossip refused", list(refused));
        }
    }

    /// `4 tables as others have them 3 s ago; statement 12, all acknowledged`.
    fn convergence(&self) -> String {
        let count = match self.tables {
            1 => "1 table".to_owned(),
            n => format!("{n} tables"),
        };
        let tables = match (self.tables_behind, self.equal_millis) {
            (0, _) if self.members.len() < 2 => format!("{count}, nobody to compare with"),
            (0, None) => format!("{count}, not each compared yet"),
            (0, Some(millis)) => format!("{count}, as others had them {} ago", age(millis)),
            (n, _) => format!("{n} of {count} behind for {}", age(self.lag_millis)),
        };
        let told = match self.unacknowledged {
            0 => "all acknowledged".to_owned(),
            n => format!("{n} updates not acknowledged yet"),
        };
        format!("{tables}; statement {}, {told}", self.statements)
    }

    fn traffic(&self) -> String {
        format!(
            "in {:.0} packets/s {:.0} B/s, out {:.0} packets/s {:.0} B/s",
            self.datagrams_in_per_second,
            self.bytes_in_per_second,
            self.datagrams_out_per_second,
            self.bytes_out_per_second
        )
    }
}

/// A member's state in a word.
pub fn member_state(state: v1::MemberState) -> &'static str {
    match state {
        v1::MemberState::Alive => "alive",
        v1::MemberState::Suspect => "suspect",
        v1::MemberState::Down => "down",
        v1::MemberState::Left => "left",
        v1::MemberState::Unattended => "unattended",
        v1::MemberState::Unspecified => "unknown",
    }
}

/// A time as people read it: `40 ms`, `3.2 s`, `2h5m`.
pub fn age(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => format_seconds(u32::try_from(millis / 1000).unwrap_or(u32::MAX)),
    }
}
