//! The typed maps: reads what they hold, and does one write after the other.

use std::{collections::BTreeMap, io, os::fd::AsFd};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
    sys::SyscallError,
};
use mesh_abi::{
    BackendValue, ChoiceValue, EndpointKey, EndpointValue, FlowKey, HostAddressKey, LocalEndpoint,
    NetworkKey, NetworkValue, NodeConfig, PeerKey, PeerValue, ReverseValue, ServiceKey, ServiceValue,
};

use crate::{
    error::Error,
    held::{Held, MapOp},
    plan::Capacities,
    sys,
};

type Hash<K, V> = HashMap<MapData, K, V>;

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
    pub(crate) const CHOICES_KEPT: &str = "CHOICES_KEPT";
    pub(crate) const REVERSE: &str = "REVERSE";
    pub(crate) const REVERSE_KEPT: &str = "REVERSE_KEPT";
    pub(crate) const FRAGMENTS: &str = "FRAGMENTS";
    pub(crate) const AFFINITY: &str = "AFFINITY";
    pub(crate) const DROPS: &str = "DROPS";
    pub(crate) const COUNTERS: &str = "COUNTERS";
    pub(crate) const SOCKETS: &str = "SOCKETS";
}
use names::*;

/// Every map that user space reads or writes.
pub(crate) struct Maps {
    config: Array<MapData, NodeConfig>,
    peers: Hash<PeerKey, PeerValue>,
    host_addresses: Hash<HostAddressKey, u32>,
    networks: Hash<NetworkKey, NetworkValue>,
    endpoints: Hash<EndpointKey, EndpointValue>,
    local_by_ifindex: Hash<u32, LocalEndpoint>,
    local_by_id: Hash<u32, LocalEndpoint>,
    services: Hash<ServiceKey, ServiceValue>,
    backends: Hash<u32, BackendValue>,
    table: MapData,
    choices: MapData,
    reverse: MapData,
    drops: PerCpuArray<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    sizes: BTreeMap<&'static str, u32>,
}

impl Maps {
    /// Takes the maps of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let mut taker = Taker { ebpf, sizes: BTreeMap::new() };
        Ok(Self {
            config: taker.typed(CONFIG)?,
            peers: taker.typed(PEERS)?,
            host_addresses: taker.typed(HOST_ADDRESSES)?,
            networks: taker.typed(NETWORKS)?,
            endpoints: taker.typed(ENDPOINTS)?,
            local_by_ifindex: taker.typed(LOCAL_BY_IFINDEX)?,
            local_by_id: taker.typed(LOCAL_BY_ID)?,
            services: taker.typed(SERVICES)?,
            backends: taker.typed(BACKENDS)?,
            table: taker.untyped::<u32, u32>(MAGLEV)?,
            choices: taker.untyped::<FlowKey, ChoiceValue>(CHOICES)?,
            reverse: taker.untyped::<FlowKey, ReverseValue>(REVERSE)?,
            drops: taker.typed(DROPS)?,
            counters: taker.typed(COUNTERS)?,
            sizes: taker.sizes,
        })
    }

    /// How many entries each map has room for.
    pub(crate) fn sizes(&self) -> &BTreeMap<&'static str, u32> {
        &self.sizes
    }

    pub(crate) fn capacities(&self) -> Capacities {
        let size = |name| self.sizes.get(name).copied().unwrap_or(0);
        Capacities {
            peers: size(PEERS),
            host_addresses: size(HOST_ADDRESSES),
            networks: size(NETWORKS),
            endpoints: size(ENDPOINTS),
            local_by_id: size(LOCAL_BY_ID),
            local_by_ifindex: size(LOCAL_BY_IFINDEX),
            services: size(SERVICES),
            backends: size(BACKENDS),
        }
    }

    /// Everything the maps hold.
    pub(crate) fn read(&self) -> Result<Held, Error> {
        let size = self.sizes.get(MAGLEV).copied().unwrap_or(0);
        let mut held = Held::new(size);
        held.config = self.config.get(&0, 0).map_err(|e| failed("read", CONFIG, e))?;
        held.peers = entries(PEERS, &self.peers)?;
        held.host_addresses = entries(HOST_ADDRESSES, &self.host_addresses)?.into_keys().collect();
        held.networks = entries(NETWORKS, &self.networks)?;
        held.endpoints = entries(ENDPOINTS, &self.endpoints)?;
        held.local_by_ifindex = entries(LOCAL_BY_IFINDEX, &self.local_by_ifindex)?;
        held.local_by_id = entries(LOCAL_BY_ID, &self.local_by_id)?;
        held.backends = entries(BACKENDS, &self.backends)?;
        let services = entries(SERVICES, &self.services)?;
        held.adopt_services(services, |base, len| {
            sys::array_read(self.table.fd().as_fd(), base, len).map_err(|e| refused("read", MAGLEV, e))
        })?;
        let last = held.backends.keys().next_back().copied().unwrap_or(0).max(self.last_chosen()?);
        held.next_backend = last.wrapping_add(1).max(1);
        Ok(held)
    }

    /// The highest backend id that a flow names, whether or not there still is such a backend.
    fn last_chosen(&self) -> Result<u32, Error> {
        let mut last = 0;
        scan::<ChoiceValue>(&self.choices, |bytes| {
            const AT: usize = std::mem::offset_of!(ChoiceValue, backend);
            if let Some(id) = bytes.get(AT..).and_then(|b| b.first_chunk()) {
                last = last.max(u32::from_ne_bytes(*id));
            }
        })
        .map_err(|e| refused("read", CHOICES, e))?;
        Ok(last)
    }

    /// How many flows have a backend here, and how many replies are translated here. Walks both maps.
    pub(crate) fn flows(&self) -> Result<(u64, u64), Error> {
        let (mut choices, mut reverse) = (0, 0);
        scan::<ChoiceValue>(&self.choices, |_| choices += 1).map_err(|e| refused("read", CHOICES, e))?;
        scan::<ReverseValue>(&self.reverse, |_| reverse += 1).map_err(|e| refused("read", REVERSE, e))?;
        Ok((choices, reverse))
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

    /// Does one write.
    pub(crate) fn write(&mut self, op: &MapOp) -> Result<(), Error> {
        match op {
            MapOp::SetConfig(value) => self.config.set(0, value, 0).map_err(|e| failed("write", CONFIG, e)),
            MapOp::PutPeer(key, value) => put(PEERS, &mut self.peers, *key, *value),
            MapOp::PutHostAddress(key) => put(HOST_ADDRESSES, &mut self.host_addresses, *key, 1),
            MapOp::PutNetwork(key, value) => put(NETWORKS, &mut self.networks, *key, *value),
            MapOp::PutLocalById(value) => put(LOCAL_BY_ID, &mut self.local_by_id, value.id, *value),
            MapOp::PutLocalByIfindex(value) => {
                put(LOCAL_BY_IFINDEX, &mut self.local_by_ifindex, value.ifindex, *value)
            }
            MapOp::PutEndpoint(key, value) => put(ENDPOINTS, &mut self.endpoints, *key, *value),
            MapOp::PutBackend(id, value) => put(BACKENDS, &mut self.backends, *id, *value),
            MapOp::WriteRegion { base, elements, .. } => {
                sys::array_write(self.table.fd().as_fd(), *base, elements)
                    .map_err(|e| refused("write", MAGLEV, e))
            }
            MapOp::LearnRegion { .. } => Ok(()),
            MapOp::PutService(key, value) => put(SERVICES, &mut self.services, *key, *value),
            MapOp::DeleteService(key) => delete(SERVICES, &mut self.services, key),
            MapOp::DeleteBackend(id) => delete(BACKENDS, &mut self.backends, id),
            MapOp::DeleteEndpoint(key) => delete(ENDPOINTS, &mut self.endpoints, key),
            MapOp::DeleteLocalByIfindex(ifindex) => {
                delete(LOCAL_BY_IFINDEX, &mut self.local_by_ifindex, ifindex)
            }
            MapOp::DeleteLocalById(id) => delete(LOCAL_BY_ID, &mut self.local_by_id, id),
            MapOp::DeleteNetwork(key) => delete(NETWORKS, &mut self.networks, key),
            MapOp::DeleteHostAddress(key) => delete(HOST_ADDRESSES, &mut self.host_addresses, key),
            MapOp::DeletePeer(key) => delete(PEERS, &mut self.peers, key),
        }
    }
}

struct Taker<'a> {
    ebpf: &'a mut Ebpf,
    sizes: BTreeMap<&'static str, u32>,
}

impl Taker<'_> {
    fn typed<T: TryFrom<Map, Error = MapError>>(&mut self, name: &'static str) -> Result<T, Error> {
        let map = self.ebpf.take_map(name).ok_or(Error::Missing { kind: "map", name })?;
        if let Some(data) = data_of(&map) {
            let info = data.info().map_err(|e| unusable(name, e))?;
            self.sizes.insert(name, info.max_entries());
        }
        T::try_from(map).map_err(|e| unusable(name, e))
    }

    /// For maps that are used through raw calls: the handle, once the sizes of key and value have been checked. The
    /// programs are loaded with its descriptor, so it must stay open.
    fn untyped<K, V>(&mut self, name: &'static str) -> Result<MapData, Error> {
        let map = self.ebpf.take_map(name).ok_or(Error::Missing { kind: "map", name })?;
        let (Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data)) = map else {
            return Err(Error::Missing { kind: "array or hash map", name });
        };
        let info = data.info().map_err(|e| unusable(name, e))?;
        let check = |expected: usize, found: u32| {
            let size = found as usize;
            if size == expected { Ok(()) } else { Err(MapError::InvalidValueSize { size, expected }) }
        };
        check(size_of::<K>(), info.key_size()).map_err(|e| unusable(name, e))?;
        check(size_of::<V>(), info.value_size()).map_err(|e| unusable(name, e))?;
        self.sizes.insert(name, info.max_entries());
        Ok(data)
    }
}

/// The untyped handle of the kinds of map that the data path has.
fn data_of(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}

fn unusable(map: &'static str, source: MapError) -> Error {
    Error::Map { map, source: Box::new(source) }
}

fn failed(action: &'static str, map: &'static str, source: MapError) -> Error {
    Error::Write { action, map, source: Box::new(source) }
}

fn refused(action: &'static str, map: &'static str, io_error: io::Error) -> Error {
    failed(action, map, MapError::SyscallError(SyscallError { call: "bpf", io_error }))
}

fn entries<K: Pod + Ord, V: Pod>(name: &'static str, map: &Hash<K, V>) -> Result<BTreeMap<K, V>, Error> {
    map.iter().collect::<Result<_, _>>().map_err(|e| failed("read", name, e))
}

fn put<K: Pod, V: Pod>(name: &'static str, map: &mut Hash<K, V>, key: K, value: V) -> Result<(), Error> {
    map.insert(key, value, 0).map_err(|e| failed("write", name, e))
}

/// What is not there any more counts as deleted.
fn delete<K: Pod, V: Pod>(name: &'static str, map: &mut Hash<K, V>, key: &K) -> Result<(), Error> {
    match map.remove(key) {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other.map_err(|e| failed("delete from", name, e)),
    }
}

fn scan<V>(map: &MapData, each: impl FnMut(&[u8])) -> io::Result<()> {
    sys::hash_scan(map.fd().as_fd(), size_of::<FlowKey>(), size_of::<V>(), each)
}
