//! The maps by name: reads what they hold, and writes to them.

use std::{collections::BTreeMap, os::fd::AsFd};

use aya::{
    Ebpf, Pod,
    maps::{Array, Map, MapData, MapError, PerCpuArray},
};
use mesh_abi::{
    AffinityKey, AffinityValue, BackendValue, ChoiceValue, EndpointKey, EndpointValue, FlowKey,
    HostAddressKey, LocalEndpoint, NetworkKey, NetworkValue, NodeConfig, PeerKey, PeerValue, ReverseValue,
    ServiceKey, ServiceValue, SocketKey, SocketValue, TABLE_BLOCK, TableBlock, Watch,
};

use crate::{
    choices::Choices,
    error::Error,
    held::{Held, MapOp},
    plan::Capacities,
    regions::table_of,
    sizes::Sizes,
    sys::map::Numbers,
    table::{Partly, Table, check_shape, failed, refused, unusable},
    traffic::TrafficMap,
};

/// A map's name in the object, in `stats` and in errors.
pub(crate) mod names {
    pub(crate) const CONFIG: &str = "CONFIG";
    pub(crate) const PEERS: &str = "PEERS";
    pub(crate) const HOST_ADDRESSES: &str = "HOST_ADDRESSES";
    pub(crate) const NETWORKS: &str = "NETWORKS";
    pub(crate) const ENDPOINTS: &str = "ENDPOINTS";
    pub(crate) const LOCAL_BY_IFINDEX: &str = "LOCAL_BY_IFINDEX";
    pub(crate) const LOCAL_BY_ID: &str = "LOCAL_BY_ID";
    pub(crate) const SERVICES: &str = "SERVICES";
    pub(crate) const MAGLEV: &str = "MAGLEV";
    pub(crate) const BACKENDS: &str = "BACKENDS";
    pub(crate) const CHOICES: &str = "CHOICES";
    pub(crate) const CHOICE_INDEX: &str = "CHOICE_INDEX";
    pub(crate) const CHOICE_HEADS: &str = "CHOICE_HEADS";
    pub(crate) const CHOICES_KEPT: &str = "CHOICES_KEPT";
    pub(crate) const REVERSE: &str = "REVERSE";
    pub(crate) const REVERSE_KEPT: &str = "REVERSE_KEPT";
    pub(crate) const DISPLACED: &str = "DISPLACED";
    pub(crate) const FRAGMENTS: &str = "FRAGMENTS";
    pub(crate) const AFFINITY: &str = "AFFINITY";
    pub(crate) const DROPS: &str = "DROPS";
    pub(crate) const COUNTERS: &str = "COUNTERS";
    pub(crate) const SOCKETS: &str = "SOCKETS";
    pub(crate) const WATCH: &str = "WATCH";
    pub(crate) const EVENTS: &str = "EVENTS";
    pub(crate) const EVENT_COUNTS: &str = "EVENT_COUNTS";
    pub(crate) const ENDPOINT_TRAFFIC: &str = "ENDPOINT_TRAFFIC";
    pub(crate) const SERVICE_TRAFFIC: &str = "SERVICE_TRAFFIC";
}
use names::*;

/// Every map that user space reads or writes.
pub(crate) struct Maps {
    config: Array<MapData, NodeConfig>,
    peers: Table<PeerKey, PeerValue>,
    host_addresses: Table<HostAddressKey, u32>,
    networks: Table<NetworkKey, NetworkValue>,
    endpoints: Table<EndpointKey, EndpointValue>,
    local_by_ifindex: Table<u32, LocalEndpoint>,
    local_by_id: Table<u32, LocalEndpoint>,
    services: Table<ServiceKey, ServiceValue>,
    pub(crate) backends: Table<u32, BackendValue>,
    table: MapData,
    table_slots: u32,
    pub(crate) choices: Choices,
    /// The programs are loaded with their descriptors, so they stay open.
    _choice_maps: [MapData; 3],
    pub(crate) choices_kept: Table<FlowKey, ChoiceValue>,
    pub(crate) reverse: Table<FlowKey, ReverseValue>,
    pub(crate) reverse_kept: Table<FlowKey, ReverseValue>,
    pub(crate) sockets: Table<SocketKey, SocketValue>,
    pub(crate) affinity: Table<AffinityKey, AffinityValue>,
    displaced: Array<MapData, u32>,
    drops: PerCpuArray<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    pub(crate) endpoint_traffic: TrafficMap,
    /// As above.
    _watch: Array<MapData, Watch>,
    pub(crate) service_traffic: TrafficMap,
}

impl Maps {
    /// Takes the maps of a loaded object. Nothing is watched from then on: whoever did is gone.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let mut watch: Array<MapData, Watch> = typed(ebpf, WATCH)?;
        watch.set(0, Watch::default(), 0).map_err(|e| failed("write", WATCH, e))?;
        let table = hash_or_array(ebpf, MAGLEV)?;
        let table_slots = check_shape::<u32, TableBlock>(MAGLEV, &table)?.saturating_mul(TABLE_BLOCK);
        let names = [CHOICES, CHOICE_INDEX, CHOICE_HEADS];
        let [slots, index, heads] = names.map(|name| hash_or_array(ebpf, name));
        let choice_maps = [slots?, index?, heads?];
        let [slots, index, heads] = &choice_maps;
        Ok(Self {
            config: typed(ebpf, CONFIG)?,
            peers: hash(ebpf, PEERS)?,
            host_addresses: hash(ebpf, HOST_ADDRESSES)?,
            networks: hash(ebpf, NETWORKS)?,
            endpoints: hash(ebpf, ENDPOINTS)?,
            local_by_ifindex: hash(ebpf, LOCAL_BY_IFINDEX)?,
            local_by_id: hash(ebpf, LOCAL_BY_ID)?,
            services: hash(ebpf, SERVICES)?,
            backends: hash(ebpf, BACKENDS)?,
            table,
            table_slots,
            choices: Choices::new(slots, index, heads)?,
            _choice_maps: choice_maps,
            choices_kept: hash(ebpf, CHOICES_KEPT)?,
            reverse: hash(ebpf, REVERSE)?,
            reverse_kept: hash(ebpf, REVERSE_KEPT)?,
            sockets: hash(ebpf, SOCKETS)?,
            affinity: hash(ebpf, AFFINITY)?,
            displaced: typed(ebpf, DISPLACED)?,
            drops: typed(ebpf, DROPS)?,
            counters: typed(ebpf, COUNTERS)?,
            endpoint_traffic: TrafficMap::new(ENDPOINT_TRAFFIC, per_cpu(ebpf, ENDPOINT_TRAFFIC)?)?,
            _watch: watch,
            service_traffic: TrafficMap::new(SERVICE_TRAFFIC, per_cpu(ebpf, SERVICE_TRAFFIC)?)?,
        })
    }

    /// Marks where a flow could not have its client's own source port.
    pub(crate) fn displace(&mut self, mark: u32) -> Result<(), Error> {
        self.displaced.set(mark, 1, 0).map_err(|e| failed("write", DISPLACED, e))
    }

    /// The sizes of the maps that user space writes; others as in `given`.
    pub(crate) fn sizes(&self, given: Sizes) -> Sizes {
        Sizes {
            peers: self.peers.capacity(),
            host_addresses: self.host_addresses.capacity(),
            networks: self.networks.capacity(),
            endpoints: self.endpoints.capacity(),
            local_endpoints: self.local_by_id.capacity(),
            services: self.services.capacity(),
            table_slots: self.table_slots,
            backends: self.backends.capacity(),
            service_counters: self.service_traffic.capacity(),
            ..given
        }
    }

    pub(crate) fn capacities(&self) -> Capacities {
        Capacities {
            peers: self.peers.capacity(),
            host_addresses: self.host_addresses.capacity(),
            networks: self.networks.capacity(),
            endpoints: self.endpoints.capacity(),
            local_by_id: self.local_by_id.capacity(),
            local_by_ifindex: self.local_by_ifindex.capacity(),
            services: self.services.capacity(),
            backends: self.backends.capacity(),
            counters: self.service_traffic.capacity(),
        }
    }

    /// Everything the maps hold that user space alone writes.
    pub(crate) fn read(&self) -> Result<Held, Error> {
        let mut held = Held::new(self.table_slots);
        held.config = self.config.get(&0, 0).map_err(|e| failed("read", CONFIG, e))?;
        // Follows from the maps; one that is wrong shall be written again.
        let right = held.config.choice_mask == self.choices.mask();
        held.config.choice_mask = if right { 0 } else { u32::MAX };
        held.peers = self.peers.entries()?.into_iter().collect();
        held.host_addresses = self.host_addresses.entries()?.into_iter().map(|(key, _)| key).collect();
        held.networks = self.networks.entries()?.into_iter().collect();
        held.adopt_endpoints(self.endpoints.entries()?);
        held.local_by_ifindex = self.local_by_ifindex.entries()?.into_iter().collect();
        held.local_by_id = self.local_by_id.entries()?.into_iter().collect();
        held.adopt_backends(self.backends.entries()?, self.last_chosen()?);
        let services: BTreeMap<_, _> = self.services.entries()?.into_iter().collect();
        held.adopt_services(services, |base, len| {
            self.slots().read(base, len).map_err(|e| refused("read", MAGLEV, e))
        })?;
        Ok(held)
    }

    /// The highest backend id that a flow names, whether or not there still is such a backend.
    fn last_chosen(&self) -> Result<u32, Error> {
        let mut last = 0;
        self.choices.for_each(|_, choice| last = last.max(choice.backend));
        self.choices_kept.for_each(|_, choice| last = last.max(choice.backend))?;
        Ok(last)
    }

    /// The sum over all CPUs of an element of `DROPS`.
    pub(crate) fn drops(&self, index: u32) -> Result<u64, Error> {
        let values = self.drops.get(&index, 0).map_err(|e| failed("read", DROPS, e))?;
        Ok(values.iter().sum())
    }

    /// The sum over all CPUs of an element of `COUNTERS`.
    pub(crate) fn counter(&self, index: u32) -> Result<u64, Error> {
        let values = self.counters.get(&index, 0).map_err(|e| failed("read", COUNTERS, e))?;
        Ok(values.iter().sum())
    }

    /// Does writes of one kind in their order, in few calls.
    pub(crate) fn write(&mut self, run: &[MapOp]) -> Result<(), Partly> {
        macro_rules! put {
            ($table:ident, $pattern:pat => $entry:expr) => {
                self.$table.put(run.iter().filter_map(|op| match op {
                    $pattern => Some($entry),
                    _ => None,
                }))
            };
        }
        macro_rules! delete {
            ($table:ident, $pattern:pat => $key:expr) => {
                self.$table.delete(run.iter().filter_map(|op| match op {
                    $pattern => Some($key),
                    _ => None,
                }))
            };
        }
        match run.first() {
            None | Some(MapOp::LearnRegion { .. }) => Ok(()),
            Some(MapOp::SetConfig(_)) => self.write_config(run),
            Some(MapOp::WriteRegion { .. }) => self.write_tables(run),
            Some(MapOp::PutPeer(..)) => put!(peers, MapOp::PutPeer(key, value) => (*key, *value)),
            Some(MapOp::PutHostAddress(_)) => put!(host_addresses, MapOp::PutHostAddress(key) => (*key, 1)),
            Some(MapOp::PutNetwork(..)) => put!(networks, MapOp::PutNetwork(key, value) => (*key, *value)),
            Some(MapOp::PutLocalById(_)) => {
                put!(local_by_id, MapOp::PutLocalById(value) => (value.id, *value))
            }
            Some(MapOp::PutLocalByIfindex(_)) => {
                put!(local_by_ifindex, MapOp::PutLocalByIfindex(value) => (value.ifindex, *value))
            }
            Some(MapOp::PutEndpoint(..)) => put!(endpoints, MapOp::PutEndpoint(key, value) => (*key, *value)),
            Some(MapOp::PutBackend(..)) => put!(backends, MapOp::PutBackend(id, value) => (*id, *value)),
            Some(MapOp::PutService(..)) => put!(services, MapOp::PutService(key, value) => (*key, *value)),
            Some(MapOp::DeleteService(_)) => delete!(services, MapOp::DeleteService(key) => *key),
            Some(MapOp::DeleteBackend(_)) => delete!(backends, MapOp::DeleteBackend(id) => *id),
            Some(MapOp::DeleteEndpoint(_)) => delete!(endpoints, MapOp::DeleteEndpoint(key) => *key),
            Some(MapOp::DeleteLocalByIfindex(_)) => {
                delete!(local_by_ifindex, MapOp::DeleteLocalByIfindex(ifindex) => *ifindex)
            }
            Some(MapOp::DeleteLocalById(_)) => delete!(local_by_id, MapOp::DeleteLocalById(id) => *id),
            Some(MapOp::DeleteNetwork(_)) => delete!(networks, MapOp::DeleteNetwork(key) => *key),
            Some(MapOp::DeleteHostAddress(_)) => {
                delete!(host_addresses, MapOp::DeleteHostAddress(key) => *key)
            }
            Some(MapOp::DeletePeer(_)) => delete!(peers, MapOp::DeletePeer(key) => *key),
        }
    }

    fn write_config(&mut self, run: &[MapOp]) -> Result<(), Partly> {
        for (done, op) in run.iter().enumerate() {
            if let MapOp::SetConfig(value) = op {
                let value = NodeConfig { choice_mask: self.choices.mask(), ..*value };
                let set = self.config.set(0, value, 0).map_err(|e| failed("write", CONFIG, e));
                set.map_err(|error| Partly { done, error })?;
            }
        }
        Ok(())
    }

    fn write_tables(&self, run: &[MapOp]) -> Result<(), Partly> {
        for (done, op) in run.iter().enumerate() {
            if let MapOp::WriteRegion { base, inputs, .. } = op {
                // Computed here, so that the tables of many services are never in memory together.
                let written = self.slots().write(*base, &table_of(inputs));
                written.map_err(|e| Partly { done, error: refused("write", MAGLEV, e) })?;
            }
        }
        Ok(())
    }

    fn slots(&self) -> Numbers<'_> {
        Numbers { map: self.table.fd().as_fd(), block: TABLE_BLOCK }
    }

    /// Slots of all tables together.
    pub(crate) fn table_slots(&self) -> u32 {
        self.table_slots
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Missing { kind: "map", name })?;
    T::try_from(map).map_err(|e| unusable(name, e))
}

fn hash<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<Table<K, V>, Error> {
    Table::new(name, hash_or_array(ebpf, name)?)
}

/// The untyped handle, for raw calls.
fn hash_or_array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Missing { kind: "map", name })?;
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) => Ok(data),
        _ => Err(Error::Missing { kind: "array or hash map", name }),
    }
}

fn per_cpu(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match ebpf.take_map(name).ok_or(Error::Missing { kind: "map", name })? {
        Map::PerCpuArray(data) => Ok(data),
        _ => Err(Error::Missing { kind: "per-CPU array", name }),
    }
}
