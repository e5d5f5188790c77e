//! How large the maps are, and whether those an earlier daemon left can be used.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
};

use aya::maps::MapInfo;
use mesh_abi::{
    AffinityKey, AffinityValue, BackendValue, ChoiceSet, ChoiceSlot, ChoiceValue, Counter, DISPLACED_MARKS,
    DropReason, EVENTS_LEN, EndpointKey, EndpointValue, EventCounts, FlowKey, FragmentKey, FragmentValue,
    HEAD_STEP, HostAddressKey, LocalEndpoint, NetworkKey, NetworkValue, NodeConfig, PeerKey, PeerValue,
    ReverseValue, ServiceKey, ServiceValue, SocketKey, SocketValue, TABLE_BLOCK, TableBlock, TrafficValue,
    Watch,
};
use tracing::warn;

use crate::{
    desired::Desired, error::Error, maglev::table_len, maps::names::*, pins, regions::space, table::unusable,
};

/// Room in the maps, in entries. What user space writes gets more room when it needs it; these are the sizes to begin
/// with. What packets fill takes its memory at once: about 80 bytes for each of `flows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Other nodes.
    pub peers: u32,
    /// Addresses of the node.
    pub host_addresses: u32,
    /// Networks with an endpoint on the node.
    pub networks: u32,
    /// Endpoints of those networks on all nodes.
    pub endpoints: u32,
    /// Endpoints of the node.
    pub local_endpoints: u32,
    /// VIPs and published ports.
    pub services: u32,
    /// Slots of all Maglev tables together, four bytes each: for each distinct set of backends between 100 and 256 for
    /// each of them, and more when their weights differ.
    pub table_slots: u32,
    /// Endpoints behind services.
    pub backends: u32,
    /// VIPs and published ports whose packets are counted apart: 64 bytes each for every CPU, taken at once.
    pub service_counters: u32,
    /// Established flows that were given a backend, and as many whose replies are translated; only time or their end
    /// removes them. And a quarter as many new ones of each kind, of which the longest unused make room.
    pub flows: u32,
    /// Fragmented packets that are on their way at one time. The longest unused make room.
    pub fragments: u32,
    /// Clients whose task is remembered for source affinity. The longest unused make room.
    pub clients: u32,
    /// Sockets of the node that speak to published ports.
    pub host_sockets: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            peers: 4096,
            host_addresses: 1024,
            networks: 4096,
            endpoints: 65_536,
            local_endpoints: 4096,
            services: 16_384,
            table_slots: 1 << 20,
            backends: 65_536,
            service_counters: 2048,
            flows: 131_072,
            fragments: 8192,
            clients: 65_536,
            host_sockets: 16_384,
        }
    }
}

/// Some of [`Sizes`], as a configuration gives them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// [`Sizes::peers`].
    pub peers: Option<u32>,
    /// [`Sizes::networks`].
    pub networks: Option<u32>,
    /// [`Sizes::endpoints`].
    pub endpoints: Option<u32>,
    /// [`Sizes::local_endpoints`].
    pub local_endpoints: Option<u32>,
    /// [`Sizes::services`].
    pub services: Option<u32>,
    /// [`Sizes::table_slots`].
    pub table_slots: Option<u32>,
    /// [`Sizes::backends`].
    pub backends: Option<u32>,
    /// [`Sizes::flows`].
    pub flows: Option<u32>,
    /// [`Sizes::fragments`].
    pub fragments: Option<u32>,
    /// [`Sizes::clients`].
    pub clients: Option<u32>,
    /// [`Sizes::host_sockets`].
    pub host_sockets: Option<u32>,
}

impl Sizes {
    /// These sizes with what `limits` says of them, at least 1 each.
    pub fn with(mut self, limits: &Limits) -> Self {
        let set = |size: &mut u32, limit: Option<u32>| *size = limit.unwrap_or(*size).max(1);
        set(&mut self.peers, limits.peers);
        set(&mut self.networks, limits.networks);
        set(&mut self.endpoints, limits.endpoints);
        set(&mut self.local_endpoints, limits.local_endpoints);
        set(&mut self.services, limits.services);
        set(&mut self.table_slots, limits.table_slots);
        set(&mut self.backends, limits.backends);
        set(&mut self.flows, limits.flows);
        set(&mut self.fragments, limits.fragments);
        set(&mut self.clients, limits.clients);
        set(&mut self.host_sockets, limits.host_sockets);
        self
    }
}

impl Sizes {
    /// With twice the room that `desired` takes where it takes more than half of it now, and a quarter more than its
    /// tables take (their memory is taken at once). What packets fill stays.
    pub(crate) fn grown_for(mut self, desired: &Desired) -> Self {
        let frontends = || desired.services.values().flat_map(|s| s.frontends.values());
        let backends: HashSet<_> =
            frontends().flat_map(|f| &f.backends).map(|b| (b.key, b.address)).collect();
        // One table for all who have the same tasks.
        let tables: HashSet<BTreeSet<_>> = frontends()
            .map(|f| {
                f.backends.iter().filter(|b| !b.draining).map(|b| (b.key, b.address, b.weight)).collect()
            })
            .collect();
        let lengths = || tables.iter().map(|t| u64::from(space(table_len(t.iter().map(|b| b.2)))));
        let slots: u64 = lengths().sum();
        // A new table is written beside the one whose place it takes.
        let beside = (slots / 4).saturating_add(lengths().max().unwrap_or(0));
        let grow = |room: &mut u32, taken: u64| {
            let wanted = u32::try_from(taken.saturating_mul(2).max(2).next_power_of_two()).unwrap_or(LARGEST);
            *room = (*room).max(wanted.min(LARGEST));
        };
        grow(&mut self.peers, desired.peers.len() as u64);
        grow(&mut self.host_addresses, desired.host_addresses.len() as u64);
        grow(&mut self.networks, desired.networks.len() as u64);
        grow(&mut self.endpoints, desired.networks.values().map(|n| n.endpoints.len() as u64).sum());
        grow(&mut self.local_endpoints, desired.local.len() as u64);
        grow(&mut self.services, frontends().count() as u64);
        grow(&mut self.service_counters, frontends().count() as u64);
        grow(&mut self.backends, backends.len() as u64);
        let slots = u32::try_from(slots.saturating_add(beside)).unwrap_or(LARGEST);
        self.table_slots = self.table_slots.max(slots.min(LARGEST));
        self
    }
}

impl Sizes {
    /// Room for new flows. Each takes the place of an older one, which is the faster the more of them the processor's
    /// caches hold.
    fn new_flows(&self) -> u32 {
        (self.flows / 4).max(self.flows.min(1024))
    }

    /// Places in each of the two rings of new choices: together as many as there are new flows.
    fn choice_ring(&self) -> u32 {
        (self.new_flows() / 2).clamp(LEAST_RING, LARGEST / 2).next_power_of_two()
    }

    /// With room for so many entries in one map.
    pub(crate) fn with_room(mut self, map: &str, wanted: u32) -> Self {
        let room = match map {
            PEERS => &mut self.peers,
            HOST_ADDRESSES => &mut self.host_addresses,
            NETWORKS => &mut self.networks,
            ENDPOINTS => &mut self.endpoints,
            LOCAL_BY_ID | LOCAL_BY_IFINDEX => &mut self.local_endpoints,
            SERVICES => &mut self.services,
            MAGLEV => &mut self.table_slots,
            BACKENDS => &mut self.backends,
            SERVICE_TRAFFIC => &mut self.service_counters,
            _ => return self,
        };
        *room = (*room).max(wanted.min(LARGEST));
        self
    }
}

/// CPUs are given places by the dozen.
const LEAST_RING: u32 = 256;
/// No map is made larger than this.
const LARGEST: u32 = 1 << 30;

/// A map as this program needs it.
pub(crate) struct MapSpec {
    pub(crate) name: &'static str,
    key: usize,
    value: usize,
    pub(crate) entries: u32,
    length: Length,
}

/// What the length of a map follows from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// The program.
    Fixed,
    /// What is desired, and the configuration tells with how much room to begin.
    Grows,
    /// The configuration: packets fill it.
    Set,
}

/// Every map of the data path.
pub(crate) fn maps(sizes: &Sizes) -> Vec<MapSpec> {
    fn spec<K, V>(name: &'static str, entries: u32, length: Length) -> MapSpec {
        MapSpec { name, key: size_of::<K>(), value: size_of::<V>(), entries, length }
    }
    fn fixed<V>(name: &'static str, entries: u32) -> MapSpec {
        spec::<u32, V>(name, entries, Length::Fixed)
    }
    fn grows<K, V>(name: &'static str, entries: u32) -> MapSpec {
        spec::<K, V>(name, entries, Length::Grows)
    }
    fn set<K, V>(name: &'static str, entries: u32) -> MapSpec {
        spec::<K, V>(name, entries, Length::Set)
    }
    vec![
        fixed::<NodeConfig>(CONFIG, 1),
        grows::<PeerKey, PeerValue>(PEERS, sizes.peers),
        grows::<HostAddressKey, u32>(HOST_ADDRESSES, sizes.host_addresses),
        grows::<NetworkKey, NetworkValue>(NETWORKS, sizes.networks),
        grows::<EndpointKey, EndpointValue>(ENDPOINTS, sizes.endpoints),
        grows::<u32, LocalEndpoint>(LOCAL_BY_IFINDEX, sizes.local_endpoints),
        grows::<u32, LocalEndpoint>(LOCAL_BY_ID, sizes.local_endpoints),
        grows::<ServiceKey, ServiceValue>(SERVICES, sizes.services),
        grows::<u32, TableBlock>(MAGLEV, sizes.table_slots.div_ceil(TABLE_BLOCK)),
        grows::<u32, BackendValue>(BACKENDS, sizes.backends),
        set::<u32, ChoiceSlot>(CHOICES, sizes.choice_ring() * 2),
        set::<u32, ChoiceSet>(CHOICE_INDEX, sizes.choice_ring() / 4),
        fixed::<u64>(CHOICE_HEADS, HEAD_STEP * 2),
        set::<FlowKey, ChoiceValue>(CHOICES_KEPT, sizes.flows),
        set::<FlowKey, ReverseValue>(REVERSE, sizes.new_flows()),
        set::<FlowKey, ReverseValue>(REVERSE_KEPT, sizes.flows),
        set::<FragmentKey, FragmentValue>(FRAGMENTS, sizes.fragments),
        set::<AffinityKey, AffinityValue>(AFFINITY, sizes.clients),
        set::<SocketKey, SocketValue>(SOCKETS, sizes.host_sockets),
        fixed::<u32>(DISPLACED, DISPLACED_MARKS),
        fixed::<u64>(DROPS, DropReason::COUNT),
        fixed::<u64>(COUNTERS, Counter::COUNT),
        fixed::<Watch>(WATCH, 1),
        fixed::<EventCounts>(EVENT_COUNTS, 1),
        spec::<(), ()>(EVENTS, EVENTS_LEN, Length::Fixed),
        // Index 0 is nobody's.
        grows::<u32, TrafficValue>(ENDPOINT_TRAFFIC, sizes.local_endpoints.saturating_add(1)),
        grows::<u32, TrafficValue>(SERVICE_TRAFFIC, sizes.service_counters),
    ]
}

/// What there is of the maps of an earlier daemon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// None, or none that can be used.
    Nothing,
    /// Maps that are as wanted.
    Same(Found),
    /// Maps of the right shape, some of them larger or smaller than wanted.
    Resized(Found),
}

/// Sizes of maps by name.
pub(crate) type Found = BTreeMap<&'static str, u32>;

/// Of the maps found, those that have grown beyond what is wanted to begin with: new ones begin with that.
pub(crate) fn grown(mut found: Found, wanted: &[MapSpec]) -> Found {
    let grows =
        |name, size| wanted.iter().any(|s| s.name == name && s.length == Length::Grows && size > s.entries);
    found.retain(|name, size| grows(*name, *size));
    found
}

/// Looks at the pinned maps. A set with a map of another shape, which a change of layout without a new version or a
/// foreign hand has left, is unpinned as a whole, and so is a lone map whose length follows from the program and no
/// longer fits; new ones are made then. What is attached keeps using the old ones until it is replaced.
pub(crate) fn pinned(folder: &Path, wanted: &[MapSpec]) -> Result<Pinned, Error> {
    let mut sizes = BTreeMap::new();
    let mut resized = false;
    for spec in wanted {
        let pin = folder.join(spec.name);
        if !fs::exists(&pin).map_err(pins::file("look at", &pin))? {
            continue;
        }
        let info = MapInfo::from_pin(&pin).map_err(|e| unusable(spec.name, e))?;
        let shape = (info.key_size() as usize, info.value_size() as usize);
        if shape != (spec.key, spec.value) {
            warn!(
                map = spec.name,
                key_size = shape.0,
                value_size = shape.1,
                wanted_key_size = spec.key,
                wanted_value_size = spec.value,
                "pinned maps have another layout; begins with empty ones"
            );
            wanted.iter().try_for_each(|spec| pins::remove_file(&folder.join(spec.name)))?;
            return Ok(Pinned::Nothing);
        }
        let size = info.max_entries();
        if size != spec.entries && spec.length == Length::Fixed {
            warn!(
                map = spec.name,
                size,
                wanted = spec.entries,
                "pinned map is of another length; begins with an empty one"
            );
            pins::remove_file(&pin)?;
            continue;
        }
        resized |= if spec.length == Length::Grows { size < spec.entries } else { size != spec.entries };
        sizes.insert(spec.name, size);
    }
    Ok(match (sizes.contains_key(CONFIG), resized) {
        (_, true) => Pinned::Resized(sizes),
        (true, false) => Pinned::Same(sizes),
        (false, false) => Pinned::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_for_one_map() {
        let sizes = Sizes::default();
        assert_eq!(sizes.with_room(PEERS, 5000).peers, 5000);
        assert_eq!(sizes.with_room(PEERS, 50).peers, sizes.peers);
        assert_eq!(sizes.with_room(MAGLEV, u32::MAX).table_slots, LARGEST);
        assert_eq!(sizes.with_room(CHOICES, 1 << 20), sizes, "packets make room there");
        let limits = Limits { peers: Some(0), flows: Some(7), ..Limits::default() };
        assert_eq!(sizes.with(&limits), Sizes { peers: 1, flows: 7, ..sizes });
    }
}
