//! The difference between what the maps hold and what is desired, as writes in a safe order. Pure.
//!
//! Additions come before what refers to them, and deletions after: a service points to a table only when all of it is
//! written, and a table names a backend only while that exists.

mod counters;
mod services;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mesh_abi::{EndpointKey, node_flags};
use mesh_types::{LocalEndpointId, Vni};

use crate::{
    desired::{Desired, EndpointEntry, NetworkPlan},
    encode,
    error::Error,
    held::{Held, MapOp},
    records::{Backends, Changes, side_by_side},
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
    pub(crate) counters: u32,
}

/// What is to be written, and what is known when it is.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The writes, in an order in which every prefix is safe to stop at.
    pub(crate) ops: Vec<MapOp>,
    /// What was looked into.
    pub(crate) changes: Changes,
    /// The backends of the changed services, in their order.
    pub(crate) backends: Vec<Backends>,
}

/// The writes that turn `held` into `desired`. An error means that nothing may be written.
pub(crate) fn plan(held: &Held, desired: &Desired, room: &Capacities) -> Result<Plan, Error> {
    let changes = held.records.changes(desired);
    let mut ops = Ops::default();
    plan_config(held, desired, &changes, &mut ops);
    plan_node(held, desired, room, &mut ops)?;
    plan_endpoints(held, desired, &changes, room, &mut ops)?;
    let backends = services::plan(held, desired, &changes, room, &mut ops)?;
    Ok(Plan { ops: ops.in_order(), changes, backends })
}

/// Writes that come before what refers to them, and deletions, which come after, the last one planned first.
#[derive(Default)]
struct Ops {
    before: Vec<MapOp>,
    after: Vec<MapOp>,
}

impl Ops {
    fn in_order(mut self) -> Vec<MapOp> {
        self.after.reverse();
        self.before.append(&mut self.after);
        self.before
    }
}

/// A flag that lets the programs skip a look-up is set before there is something to find, and unset when there is
/// nothing left.
fn plan_config(held: &Held, desired: &Desired, changes: &Changes, ops: &mut Ops) {
    let wanted = encode::config(desired, changes.addressed);
    let mut first = wanted;
    first.flags |= held.config.flags & node_flags::ADDRESSED_PORTS;
    if first != held.config {
        ops.before.push(MapOp::SetConfig(first));
    }
    if wanted != first {
        ops.after.push(MapOp::SetConfig(wanted));
    }
}

/// What there is little of, and is looked at as a whole.
fn plan_node(held: &Held, desired: &Desired, room: &Capacities, ops: &mut Ops) -> Result<(), Error> {
    let peers = desired.peers.iter().map(|(vtep, p)| encode::peer(*vtep, p)).collect();
    let hosts: BTreeSet<_> = desired.host_addresses.iter().map(|a| encode::host_address(*a)).collect();
    let networks = desired.networks.iter().map(|(vni, n)| encode::network(*vni, &n.entry)).collect();
    let local = desired.local.iter().map(|(id, l)| encode::local(*id, l));
    let by_id: BTreeMap<_, _> = local.clone().map(|l| (l.id, l)).collect();
    let by_ifindex: BTreeMap<_, _> = local.map(|l| (l.ifindex, l)).collect();

    difference("PEERS", room.peers, &held.peers, &peers)?.into_ops(
        ops,
        |(k, v)| MapOp::PutPeer(k, v),
        MapOp::DeletePeer,
    );
    difference_of_sets("HOST_ADDRESSES", room.host_addresses, &held.host_addresses, &hosts)?.into_ops(
        ops,
        MapOp::PutHostAddress,
        MapOp::DeleteHostAddress,
    );
    difference("NETWORKS", room.networks, &held.networks, &networks)?.into_ops(
        ops,
        |(k, v)| MapOp::PutNetwork(k, v),
        MapOp::DeleteNetwork,
    );
    difference("LOCAL_BY_ID", room.local_by_id, &held.local_by_id, &by_id)?.into_ops(
        ops,
        |(_, v)| MapOp::PutLocalById(v),
        MapOp::DeleteLocalById,
    );
    difference("LOCAL_BY_IFINDEX", room.local_by_ifindex, &held.local_by_ifindex, &by_ifindex)?.into_ops(
        ops,
        |(_, v)| MapOp::PutLocalByIfindex(v),
        MapOp::DeleteLocalByIfindex,
    );
    Ok(())
}

fn plan_endpoints(
    held: &Held,
    desired: &Desired,
    changes: &Changes,
    room: &Capacities,
    ops: &mut Ops,
) -> Result<(), Error> {
    let mut added = 0;
    let ids = if changes.networks.is_empty() { HashMap::new() } else { local_ids(desired) };
    let changed = changes.networks.iter().filter_map(|vni| desired.networks.get_key_value(vni));
    for (vni, network) in changed {
        added += plan_network(held, *vni, network, &ids, ops);
    }
    for (key, endpoints) in &held.endpoints {
        if !encode::vni_of(key).is_some_and(|vni| desired.networks.contains_key(&vni)) {
            let gone = endpoints.keys().map(|address| EndpointKey { vni: key.vni, address: *address });
            ops.after.extend(gone.map(MapOp::DeleteEndpoint));
        }
    }
    check_room("ENDPOINTS", room.endpoints, held.endpoint_count + added)
}

/// The ids of this node's endpoints, by interface.
fn local_ids(desired: &Desired) -> HashMap<u32, LocalEndpointId> {
    desired.local.iter().map(|(id, local)| (local.ifindex, *id)).collect()
}

/// Plans the endpoints of one network; returns how many are new.
fn plan_network(
    held: &Held,
    vni: Vni,
    network: &NetworkPlan,
    ids: &HashMap<u32, LocalEndpointId>,
    ops: &mut Ops,
) -> usize {
    let network_key = encode::network_key(vni);
    let there = held.endpoints.get(&network_key);
    let mut added = 0;
    let mut put = |address, entry: &EndpointEntry| {
        let local = entry.ifindex.and_then(|ifindex| ids.get(&ifindex)).copied();
        let (key, value) = encode::endpoint((vni, address), entry, local);
        let before = there.and_then(|there| there.get(&key.address));
        if before != Some(&value) {
            added += usize::from(before.is_none());
            ops.before.push(MapOp::PutEndpoint(key, value));
        }
    };
    let gone = |address| MapOp::DeleteEndpoint(EndpointKey { vni: network_key.vni, address });
    if let Some(recorded) = held.records.network(vni) {
        side_by_side(&recorded.endpoints, &network.endpoints, |address, before, now| match now {
            Some(now) if before == Some(now) => {}
            Some(now) => put(*address, now),
            None => ops.after.push(gone(encode::address(*address))),
        });
    } else {
        network.endpoints.iter().for_each(|(address, entry)| put(*address, entry));
        let there = there.into_iter().flat_map(BTreeMap::keys);
        let stale = there.filter(|address| !network.endpoints.contains_key(&encode::ip(address)));
        ops.after.extend(stale.map(|address| gone(*address)));
    }
    added
}

struct Difference<E, K> {
    put: Vec<E>,
    delete: Vec<K>,
}

impl<E, K> Difference<E, K> {
    fn into_ops(self, ops: &mut Ops, put: impl Fn(E) -> MapOp, delete: impl Fn(K) -> MapOp) {
        ops.before.extend(self.put.into_iter().map(put));
        ops.after.extend(self.delete.into_iter().map(delete));
    }
}

fn difference<K: Ord + Copy, V: PartialEq + Copy>(
    map: &'static str,
    capacity: u32,
    held: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<Difference<(K, V), K>, Error> {
    let (mut put, mut delete) = (Vec::new(), Vec::new());
    side_by_side(held, wanted, |key, before, now| match now {
        Some(now) if before == Some(now) => {}
        Some(now) => put.push((*key, *now)),
        None => delete.push(*key),
    });
    check_room(map, capacity, wanted.len() + delete.len())?;
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
    check_room(map, capacity, wanted.len() + delete.len())?;
    Ok(Difference { put, delete })
}

/// Deletions come last, so `wanted` counts what they will remove too.
fn check_room(map: &'static str, capacity: u32, wanted: usize) -> Result<(), Error> {
    if wanted > capacity as usize { Err(Error::Full { map, capacity, wanted }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
