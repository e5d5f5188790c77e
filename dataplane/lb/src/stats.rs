//! What the data path counts, and how full it is.

use std::collections::BTreeMap;

use mesh_abi::{Counter, DropReason};

use crate::hooks::HookKind;

/// Numbers of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Dropped packets by reason, since the maps were made.
    pub drops: BTreeMap<DropReason, u64>,
    /// Other packets by the way they went, since the maps were made.
    pub counters: BTreeMap<Counter, u64>,
    /// How full the maps are that only user space writes, by name.
    pub maps: BTreeMap<&'static str, MapUse>,
    /// What is attached, by name, and by what.
    pub links: BTreeMap<String, HookKind>,
}

/// How full a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapUse {
    /// Entries in use.
    pub used: u32,
    /// Entries there is room for.
    pub capacity: u32,
}

/// How many flows the data path knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flows {
    /// Flows that were given a backend on this node.
    pub choices: u64,
    /// Flows whose replies are translated on this node.
    pub reverse: u64,
}
