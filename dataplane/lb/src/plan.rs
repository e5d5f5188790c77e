//! The difference between what the maps hold and what is desired, as writes in a safe order. Pure.
//!
//! Additions come before what refers to them, and deletions after: a service points to a table only when all of it is
//! written, and a table names a backend only while that exists.

use std::collections::{BTreeMap, BTreeSet};

use mesh_abi::{Address, BackendValue, ServiceKey, ServiceValue};

use crate::{
    desired::{BackendKey, Desired, ServiceEntry},
    encode,
    error::Error,
    held::{Held, MapOp},
    maglev::{self, MAX_WEIGHT},
    regions::{Inputs, Known, Region, Regions},
};

/// How many entries the maps have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacities {
    pub(crate) peers: u32,
    pub(crate) host_addresses: u32,
    pub(crate) networks: u32,
    pub(crate) endpoints: u32,
    pub(crate) local_by_id: u32,
    pub(crate) local_by_ifindex: u32,
    pub(crate) services: u32,
    pub(crate) backends: u32,
}

/// What makes two backends the same for flows: everything but whether it drains.
type Identity = (Address, Address, [u8; 4], u32, u16);

fn identity(b: &BackendValue) -> Identity {
    (b.vtep, b.address, b.vni, b.endpoint, b.generation)
}

/// The writes that turn `held` into `desired`. An error means that nothing may be written.
pub(crate) fn plan(held: &Held, desired: &Desired, room: &Capacities) -> Result<Vec<MapOp>, Error> {
    let mut before = Vec::new();
    let mut after = Vec::new();
    let config = encode::config(desired);
    if config != held.config {
        before.push(MapOp::SetConfig(config));
    }
    let peers = desired.peers.iter().map(|(vtep, p)| encode::peer(*vtep, p)).collect();
    let hosts: BTreeSet<_> = desired.host_addresses.iter().map(|a| encode::host_address(*a)).collect();
    let networks = desired.networks.iter().map(|(vni, n)| encode::network(*vni, &n.entry)).collect();
    let endpoints = desired.networks.iter().flat_map(|(vni, network)| {
        network.endpoints.iter().map(|(address, e)| encode::endpoint((*vni, *address), e))
    });
    let endpoints = endpoints.collect();
    let local = desired.local.iter().map(|(id, l)| encode::local(*id, l));
    let by_id: BTreeMap<_, _> = local.clone().map(|l| (l.id, l)).collect();
    let by_ifindex: BTreeMap<_, _> = local.map(|l| (l.ifindex, l)).collect();

    difference("PEERS", room.peers, &held.peers, &peers)?.into_ops(
        &mut before,
        &mut after,
        |(k, v)| MapOp::PutPeer(k, v),
        MapOp::DeletePeer,
    );
    difference_of_sets("HOST_ADDRESSES", room.host_addresses, &held.host_addresses, &hosts)?.into_ops(
        &mut before,
        &mut after,
        MapOp::PutHostAddress,
        MapOp::DeleteHostAddress,
    );
    difference("NETWORKS", room.networks, &held.networks, &networks)?.into_ops(
        &mut before,
        &mut after,
        |(k, v)| MapOp::PutNetwork(k, v),
        MapOp::DeleteNetwork,
    );
    difference("LOCAL_BY_ID", room.local_by_id, &held.local_by_id, &by_id)?.into_ops(
        &mut before,
        &mut after,
        |(_, v)| MapOp::PutLocalById(v),
        MapOp::DeleteLocalById,
    );
    difference("LOCAL_BY_IFINDEX", room.local_by_ifindex, &held.local_by_ifindex, &by_ifindex)?.into_ops(
        &mut before,
        &mut after,
        |(_, v)| MapOp::PutLocalByIfindex(v),
        MapOp::DeleteLocalByIfindex,
    );
    difference("ENDPOINTS", room.endpoints, &held.endpoints, &endpoints)?.into_ops(
        &mut before,
        &mut after,
        |(k, v)| MapOp::PutEndpoint(k, v),
        MapOp::DeleteEndpoint,
    );

    let (wanted, ids) = number_backends(held, desired);
    difference("BACKENDS", room.backends, &held.backends, &wanted)?.into_ops(
        &mut before,
        &mut after,
        |(id, v)| MapOp::PutBackend(id, v),
        MapOp::DeleteBackend,
    );
    let tables =
        Tables { regions: held.regions.clone(), retired: Vec::new(), held, ids: &ids, ops: &mut before };
    let services = tables.plan(desired)?;
    difference("SERVICES", room.services, &held.services, &services)?.into_ops(
        // The writes are among the tables' already.
        &mut Vec::new(),
        &mut after,
        |(k, v)| MapOp::PutService(k, v),
        MapOp::DeleteService,
    );
    after.reverse();
    before.append(&mut after);
    Ok(before)
}

struct Difference<E, K> {
    put: Vec<E>,
    delete: Vec<K>,
}

impl<E, K> Difference<E, K> {
    fn into_ops(
        self,
        before: &mut Vec<MapOp>,
        after: &mut Vec<MapOp>,
        put: impl Fn(E) -> MapOp,
        delete: impl Fn(K) -> MapOp,
    ) {
        before.extend(self.put.into_iter().map(put));
        after.extend(self.delete.into_iter().map(delete));
    }
}

fn difference<K: Ord + Copy, V: PartialEq + Copy>(
    map: &'static str,
    capacity: u32,
    held: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<Difference<(K, V), K>, Error> {
    let put: Vec<_> = wanted.iter().filter(|(k, v)| held.get(k) != Some(v)).map(|(k, v)| (*k, *v)).collect();
    let delete: Vec<_> = held.keys().filter(|k| !wanted.contains_key(k)).copied().collect();
    check_room(map, capacity, wanted.len(), delete.len())?;
    Ok(Difference { put, delete })
}

fn difference_of_sets<K: Ord + Copy>(
    map: &'static str,
    capacity: u32,
    held: &BTreeSet<K>,
    wanted: &BTreeSet<K>,
) -> Result<Difference<K, K>, Error> {
    let put: Vec<_> = wanted.difference(held).copied().collect();
    let delete: Vec<_> = held.difference(wanted).copied().collect();
    check_room(map, capacity, wanted.len(), delete.len())?;
    Ok(Difference { put, delete })
}

/// Deletions come last, so what they will remove takes room too.
fn check_room(map: &'static str, capacity: u32, wanted: usize, leaving: usize) -> Result<(), Error> {
    let wanted = wanted + leaving;
    if wanted > capacity as usize { Err(Error::Full { map, capacity, wanted }) } else { Ok(()) }
}

/// The entries of `BACKENDS`, and the id of each identity. What is there keeps its id.
fn number_backends(held: &Held, desired: &Desired) -> (BTreeMap<u32, BackendValue>, BTreeMap<Identity, u32>) {
    let mut ids: BTreeMap<Identity, u32> = held.backends.iter().map(|(id, b)| (identity(b), *id)).collect();
    let mut wanted: BTreeMap<u32, BackendValue> = BTreeMap::new();
    let mut next = held.next_backend.max(1);
    let entries = desired.services.values().flat_map(|s| s.frontends.values());
    for backend in entries.flat_map(|s| &s.backends) {
        let value = encode::backend(backend);
        let id = *ids.entry(identity(&value)).or_insert_with(|| {
            while held.backends.contains_key(&next) || wanted.contains_key(&next) {
                next = next.wrapping_add(1).max(1);
            }
            let id = next;
            next = next.wrapping_add(1).max(1);
            id
        });
        let entry = wanted.entry(id).or_insert(value);
        entry.flags |= value.flags;
    }
    (wanted, ids)
}

/// The tables behind the services.
struct Tables<'a> {
    held: &'a Held,
    ids: &'a BTreeMap<Identity, u32>,
    ops: &'a mut Vec<MapOp>,
    regions: Regions,
    /// Regions that nothing will point to once the writes so far are done.
    retired: Vec<u32>,
}

impl Tables<'_> {
    /// Plans every service, and returns what `SERVICES` is to hold.
    fn plan(mut self, desired: &Desired) -> Result<BTreeMap<ServiceKey, ServiceValue>, Error> {
        let mut services = BTreeMap::new();
        let frontends =
            desired.services.values().flat_map(|s| s.frontends.iter().map(|(f, e)| (s.number, f, e)));
        for (number, frontend, entry) in frontends {
            let key = encode::service(frontend);
            let before = self.held.services.get(&key);
            let value = encode::service_value(number, entry, self.table(entry, before)?);
            if before != Some(&value) {
                self.ops.push(MapOp::PutService(key, value));
                self.point(before, &value);
            }
            services.insert(key, value);
        }
        Ok(services)
    }

    /// Base and length of the region with the service's table, written if it is not there yet.
    fn table(&mut self, entry: &ServiceEntry, before: Option<&ServiceValue>) -> Result<(u32, u32), Error> {
        let Some(inputs) = self.inputs(entry) else { return Ok((0, 0)) };
        let len = maglev::table_len(inputs.len());
        if let Some(base) = self.regions.find(&inputs) {
            self.retired.retain(|b| *b != base);
            return Ok((base, len));
        }
        let weighted: Vec<(BackendKey, u16)> =
            inputs.iter().map(|(_, key, weight)| (*key, *weight)).collect();
        let ids = maglev::table(&weighted).into_iter().filter_map(|i| inputs.get(i as usize));
        let elements: Vec<u32> = ids.map(|(id, ..)| *id).collect();
        if let Some(ServiceValue { table_base, .. }) = before
            && let Some(Region { known: Known::Contents(contents), .. }) = self.regions.get(*table_base)
            && *contents == elements
        {
            let base = *table_base;
            self.regions.learn(base, inputs.clone());
            self.ops.push(MapOp::LearnRegion { base, inputs });
            return Ok((base, len));
        }
        let base = self.allocate(len)?;
        self.regions.insert(base, Region { len, users: 0, known: Known::Inputs(inputs.clone()) });
        self.ops.push(MapOp::WriteRegion { base, elements, inputs });
        Ok((base, len))
    }

    /// The backends that take new flows, each once; none when there is none.
    fn inputs(&self, entry: &ServiceEntry) -> Option<Inputs> {
        let ready = entry.backends.iter().filter(|b| !b.draining);
        let by_key: BTreeMap<BackendKey, (u32, u16)> = ready
            .filter_map(|b| {
                let id = self.ids.get(&identity(&encode::backend(b)))?;
                Some((b.key, (*id, b.weight.clamp(1, MAX_WEIGHT))))
            })
            .collect();
        if by_key.is_empty() {
            return None;
        }
        Some(by_key.into_iter().map(|(key, (id, weight))| (id, key, weight)).collect())
    }

    /// Free space, or else what this plan's earlier writes have freed.
    fn allocate(&mut self, len: u32) -> Result<u32, Error> {
        if let Some(base) = self.regions.gap(len) {
            return Ok(base);
        }
        for base in self.retired.drain(..) {
            self.regions.free(base);
        }
        self.regions.gap(len).ok_or(Error::Full {
            map: "MAGLEV",
            capacity: self.regions.capacity(),
            wanted: self.regions.in_use() as usize + len as usize,
        })
    }

    fn point(&mut self, before: Option<&ServiceValue>, now: &ServiceValue) {
        if now.table_len > 0 {
            self.regions.acquire(now.table_base);
        }
        if let Some(ServiceValue { table_base, table_len: 1.., .. }) = before
            && self.regions.release(*table_base)
        {
            self.retired.push(*table_base);
        }
    }
}

#[cfg(test)]
mod tests;
