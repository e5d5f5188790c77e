//! How large the maps are, and whether those an earlier daemon left can be used.

use std::{collections::BTreeMap, fs, path::Path};

use aya::maps::MapInfo;
use mesh_abi::{
    AffinityKey, AffinityValue, BackendValue, ChoiceValue, Counter, DropReason, EndpointKey, EndpointValue,
    FlowKey, FragmentKey, FragmentValue, HostAddressKey, LocalEndpoint, NetworkKey, NetworkValue, NodeConfig,
    PeerKey, PeerValue, ReverseValue, ServiceKey, ServiceValue, SocketKey, SocketValue, TABLE_BLOCK,
    TableBlock,
};
use serde::Deserialize;
use tracing::warn;

use crate::{error::Error, maps::names::*, pins, table::unusable};

/// Room in the maps, in entries. Only the flow tables take their memory at once: about 300 bytes for each of `flows`.
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
    /// Slots of all Maglev tables together: between 100 and 250 for each backend of each distinct set of backends.
    pub table_slots: u32,
    /// Endpoints behind services.
    pub backends: u32,
    /// New flows that were given a backend, and as many whose replies are translated; the longest unused make room. And
    /// as many established ones of each kind, which only time or their end removes.
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
            endpoints: 131_072,
            local_endpoints: 4096,
            services: 32_768,
            table_slots: 1 << 24,
            backends: 131_072,
            flows: 131_072,
            fragments: 8192,
            clients: 65_536,
            host_sockets: 16_384,
        }
    }
}

/// Some of [`Sizes`], as a configuration file gives them; the others are as by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// A map as this program needs it.
pub(crate) struct MapSpec {
    pub(crate) name: &'static str,
    key: usize,
    value: usize,
    pub(crate) entries: u32,
    /// Its length follows from the program, not from the configuration.
    fixed: bool,
}

/// Every map of the data path.
pub(crate) fn maps(sizes: &Sizes) -> Vec<MapSpec> {
    fn spec<K, V>(name: &'static str, entries: u32) -> MapSpec {
        MapSpec { name, key: size_of::<K>(), value: size_of::<V>(), entries, fixed: false }
    }
    fn fixed<V>(name: &'static str, entries: u32) -> MapSpec {
        MapSpec { name, key: size_of::<u32>(), value: size_of::<V>(), entries, fixed: true }
    }
    vec![
        fixed::<NodeConfig>(CONFIG, 1),
        spec::<PeerKey, PeerValue>(PEERS, sizes.peers),
        spec::<HostAddressKey, u32>(HOST_ADDRESSES, sizes.host_addresses),
        spec::<NetworkKey, NetworkValue>(NETWORKS, sizes.networks),
        spec::<EndpointKey, EndpointValue>(ENDPOINTS, sizes.endpoints),
        spec::<u32, LocalEndpoint>(LOCAL_BY_IFINDEX, sizes.local_endpoints),
        spec::<u32, LocalEndpoint>(LOCAL_BY_ID, sizes.local_endpoints),
        spec::<ServiceKey, ServiceValue>(SERVICES, sizes.services),
        spec::<u32, TableBlock>(MAGLEV, sizes.table_slots.div_ceil(TABLE_BLOCK)),
        spec::<u32, BackendValue>(BACKENDS, sizes.backends),
        spec::<FlowKey, ChoiceValue>(CHOICES, sizes.flows),
        spec::<FlowKey, ChoiceValue>(CHOICES_KEPT, sizes.flows),
        spec::<FlowKey, ReverseValue>(REVERSE, sizes.flows),
        spec::<FlowKey, ReverseValue>(REVERSE_KEPT, sizes.flows),
        spec::<FragmentKey, FragmentValue>(FRAGMENTS, sizes.fragments),
        spec::<AffinityKey, AffinityValue>(AFFINITY, sizes.clients),
        spec::<SocketKey, SocketValue>(SOCKETS, sizes.host_sockets),
        fixed::<u64>(DROPS, DropReason::COUNT),
        fixed::<u64>(COUNTERS, Counter::COUNT),
    ]
}

/// What there is of the maps of an earlier daemon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// None, or none that can be used.
    Nothing,
    /// Maps of these sizes, by name, which are as wanted.
    Same,
    /// Maps of the right shape, some of them larger or smaller than wanted. Their sizes by name.
    Resized(BTreeMap<&'static str, u32>),
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
        if size != spec.entries && spec.fixed {
            warn!(
                map = spec.name,
                size,
                wanted = spec.entries,
                "pinned map is of another length; begins with an empty one"
            );
            pins::remove_file(&pin)?;
            continue;
        }
        resized |= size != spec.entries;
        sizes.insert(spec.name, size);
    }
    Ok(match (sizes.contains_key(CONFIG), resized) {
        (_, true) => Pinned::Resized(sizes),
        (true, false) => Pinned::Same,
        (false, false) => Pinned::Nothing,
    })
}
