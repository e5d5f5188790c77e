//! How the keys that seal gossip stand, for people and tools.

use mesh_api::v1;
use mesh_types::format_seconds;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How many nodes a page names.
const NAMED: usize = 10;

/// Never the keys themselves.
#[derive(Serialize)]
pub(super) struct GossipKeysReport {
    rotation_secs: u64,
    since: u64,
    phase: String,
    keys: u32,
    urgent: bool,
    waiting: Vec<String>,
}

impl From<v1::GossipKeys> for GossipKeysReport {
    fn from(keys: v1::GossipKeys) -> Self {
        let v1::GossipKeys { rotation_secs, since, phase, keys, urgent, waiting } = keys;
        Self { rotation_secs, since, phase, keys, urgent, waiting }
    }
}

impl GossipKeysReport {
    /// Since when the key is used, and for how long.
    pub fn key(&self) -> String {
        let since = i64::try_from(self.since).ok();
        let since = since.and_then(|since| OffsetDateTime::from_unix_timestamp(since).ok());
        let since = since.and_then(|since| since.format(&Rfc3339).ok());
        let since = since.unwrap_or_else(|| self.since.to_string());
        match u32::try_from(self.rotation_secs).unwrap_or(u32::MAX) {
            0 => format!("in use since {since}, without a schedule"),
            rotation => format!("in use since {since}, for {} each", format_seconds(rotation)),
        }
    }

    /// How far a change of the key is.
    pub fn ring(&self) -> String {
        let keys = if self.keys == 1 { "1 key".to_owned() } else { format!("{} keys", self.keys) };
        let phase = match self.phase.as_str() {
            "settled" => return if self.urgent { format!("{keys}; about to be replaced") } else { keys },
            "spreading" => "nodes get the next one",
            "retiring" => "the next one is in use, the one before is still read",
            other => other,
        };
        let urgent = if self.urgent { " (a removed node knows the older ones)" } else { "" };
        if self.waiting.is_empty() {
            return format!("{keys}; {phase}{urgent}");
        }
        let names = self.waiting.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match self.waiting.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{keys}; {phase}{urgent}, these have not confirmed it yet: {names}{more}")
    }
}
