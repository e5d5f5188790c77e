//! What the data path counts, and how full it is.

use std::collections::BTreeMap;

use mesh_abi::{Counter, DropReason};

use crate::{datapath::DataPath, error::Error, hooks::HookKind, uplink::Uplink};

/// Numbers of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Dropped packets by reason, since the maps were made.
    pub drops: BTreeMap<DropReason, u64>,
    /// Other packets by the way they went, since the maps were made.
    pub counters: BTreeMap<Counter, u64>,
    /// How full the maps are that do not make room by themselves, by name. For established flows (`CHOICES_KEPT`,
    /// `REVERSE_KEPT`) as of the last walk of [`crate::DataPath::age_flows`] that came to the end.
    pub maps: BTreeMap<&'static str, MapUse>,
    /// What is attached, by name, and by what.
    pub links: BTreeMap<String, HookKind>,
    /// The uplinks, by which programs their packets are handled.
    pub uplinks: Vec<Uplink>,
}

/// The numbers of [`Stats`] alone, which cost the same however many programs are attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// See [`Stats::drops`].
    pub drops: BTreeMap<DropReason, u64>,
    /// See [`Stats::counters`].
    pub counters: BTreeMap<Counter, u64>,
    /// See [`Stats::maps`].
    pub maps: BTreeMap<&'static str, MapUse>,
}

impl DataPath {
    /// Counters, drops, and how full the maps are.
    pub fn counts(&self) -> Result<Counts, Error> {
        let drops = DropReason::ALL.iter().map(|r| Ok((*r, self.maps.drops(*r as u32)?)));
        let counters = Counter::ALL.iter().map(|c| Ok((*c, self.maps.counter(*c as u32)?)));
        Ok(Counts {
            drops: drops.collect::<Result<_, Error>>()?,
            counters: counters.collect::<Result<_, Error>>()?,
            maps: self.map_use(),
        })
    }
}

/// How full a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapUse {
    /// Entries in use.
    pub used: u32,
    /// Entries there is room for.
    pub capacity: u32,
}

impl MapUse {
    /// The part that is in use: 1 when it is full.
    pub fn pressure(&self) -> f64 {
        f64::from(self.used) / f64::from(self.capacity.max(1))
    }
}
