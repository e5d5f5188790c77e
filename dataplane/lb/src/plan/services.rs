//! The writes for services: backends, tables, and the entries that point to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mesh_abi::{BackendValue, ServiceKey, ServiceValue, backend_flags};

use super::{
    Ops, check_room,
    counters::{Counters, MOST_COUNTERS},
};
use crate::{
    desired::{BackendKey, Desired, ServiceEntry},
    draft::Draft,
    encode,
    error::Error,
    held::{Held, Identity, MapOp, identity},
    maglev::{self, MAX_WEIGHT},
    plan::Capacities,
    records::{Backends, Changes, Usage},
    regions::{Inputs, space},
};

/// Plans the changed services; returns the backends of each.
pub(super) fn plan(
    held: &Held,
    desired: &Desired,
    changes: &Changes,
    room: &Capacities,
    ops: &mut Ops,
) -> Result<Vec<Backends>, Error> {
    let mut numbers = Numbers::new(held);
    let changed = || changes.services.iter().filter_map(|id| desired.services.get(id));
    let backends: Vec<Backends> = changed()
        .map(|service| numbers.of_service(service.frontends.values().flat_map(|entry| &entry.backends)))
        .collect();
    plan_backends(held, changes, &backends, &numbers, room, ops)?;

    let entries = changed().flat_map(|service| {
        service.frontends.iter().map(|(frontend, entry)| (encode::service(frontend), (service.number, entry)))
    });
    let wanted: BTreeMap<ServiceKey, (u32, &ServiceEntry)> = entries.collect();
    let mut tables = Tables {
        held,
        numbers: &numbers,
        draft: Draft::new(&held.regions),
        counters: Counters::new(held, room.counters),
        regions: Vec::new(),
        services: Vec::new(),
        ops: &mut ops.before,
    };
    for (key, (number, entry)) in &wanted {
        tables.plan(*key, *number, entry)?;
    }
    tables.flush();

    let new = wanted.keys().filter(|key| !held.services.contains_key(key)).count();
    check_room("SERVICES", room.services, held.services.len() + new)?;
    check_room("SERVICE_TRAFFIC", room.counters, (held.services.len() + new + 1).min(MOST_COUNTERS))?;
    let before = changes.services.iter().chain(&changes.gone_services);
    let before = before.flat_map(|id| held.records.frontends(*id)).map(encode::service);
    let stale: BTreeSet<ServiceKey> = before
        .chain(held.loose.services.iter().copied())
        .filter(|key| !wanted.contains_key(key) && held.services.contains_key(key))
        .collect();
    ops.after.extend(stale.into_iter().map(MapOp::DeleteService));
    Ok(backends)
}

/// The ids of backends. What is there keeps its id.
struct Numbers<'a> {
    held: &'a Held,
    next: u32,
    /// Those that are new.
    new: HashMap<Identity, u32>,
    /// What the changed services say of their backends.
    values: HashMap<u32, BackendValue>,
}

impl<'a> Numbers<'a> {
    fn new(held: &'a Held) -> Self {
        Self { held, next: held.next_backend.max(1), new: HashMap::new(), values: HashMap::new() }
    }

    fn of_service<'b>(&mut self, all: impl Iterator<Item = &'b crate::desired::Backend>) -> Backends {
        let mut ids = BTreeMap::new();
        for backend in all {
            let value = encode::backend(backend);
            let id = self.number(&value);
            *ids.entry(id).or_default() |= backend.draining;
            self.values.insert(id, value);
        }
        ids.into_iter().collect()
    }

    fn number(&mut self, value: &BackendValue) -> u32 {
        let identity = identity(value);
        if let Some(id) = self.get(&identity) {
            return id;
        }
        while self.held.backends.contains_key(&self.next) || self.values.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1).max(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        self.new.insert(identity, id);
        id
    }

    fn get(&self, identity: &Identity) -> Option<u32> {
        self.held.id(identity).or_else(|| self.new.get(identity).copied())
    }
}

fn plan_backends(
    held: &Held,
    changes: &Changes,
    backends: &[Backends],
    numbers: &Numbers<'_>,
    room: &Capacities,
    ops: &mut Ops,
) -> Result<(), Error> {
    let mut usage: BTreeMap<u32, Usage> = BTreeMap::new();
    let leaving = changes.services.iter().chain(&changes.gone_services);
    for (id, draining) in leaving.flat_map(|id| held.records.backends(*id)) {
        usage.entry(*id).or_insert_with(|| held.records.usage(*id)).subtract(*draining);
    }
    for (id, draining) in backends.iter().flatten() {
        usage.entry(*id).or_insert_with(|| held.records.usage(*id)).add(*draining);
    }
    for id in &held.loose.backends {
        usage.entry(*id).or_insert_with(|| held.records.usage(*id));
    }
    let mut new = 0;
    for (id, Usage { users, draining }) in usage {
        let before = held.backends.get(&id);
        let Some(mut value) = numbers.values.get(&id).or(before).copied() else { continue };
        if users == 0 {
            ops.after.extend(before.map(|_| MapOp::DeleteBackend(id)));
            continue;
        }
        value.flags = if draining > 0 { backend_flags::DRAINING } else { 0 };
        if before != Some(&value) {
            new += usize::from(before.is_none());
            ops.before.push(MapOp::PutBackend(id, value));
        }
    }
    check_room("BACKENDS", room.backends, held.backends.len() + new)
}

/// The tables behind the services.
struct Tables<'a> {
    held: &'a Held,
    numbers: &'a Numbers<'a>,
    draft: Draft<'a>,
    counters: Counters<'a>,
    /// Tables to write, and services to point to them when all of these are written: many writes of one kind together
    /// cost less.
    regions: Vec<MapOp>,
    services: Vec<MapOp>,
    ops: &'a mut Vec<MapOp>,
}

impl Tables<'_> {
    fn plan(&mut self, key: ServiceKey, number: u32, entry: &ServiceEntry) -> Result<(), Error> {
        let before = self.held.services.get(&key);
        let table = self.table(entry, before)?;
        let counter = before.map(ServiceValue::counter).filter(|counter| *counter != 0);
        let counter = counter.unwrap_or_else(|| self.counters.next());
        let value = encode::service_value(number, entry, table, counter);
        if before != Some(&value) {
            self.services.push(MapOp::PutService(key, value));
            let base = |service: &ServiceValue| (service.table_len > 0).then_some(service.table_base);
            self.draft.point(before.and_then(base), base(&value));
        }
        Ok(())
    }

    /// Base and length of the region with the service's table, written if it is not there yet.
    fn table(&mut self, entry: &ServiceEntry, before: Option<&ServiceValue>) -> Result<(u32, u32), Error> {
        let Some(inputs) = self.inputs(entry) else { return Ok((0, 0)) };
        let len = maglev::table_len(inputs.iter().map(|(.., weight)| *weight));
        if let Some(base) = self.draft.find(&inputs) {
            return Ok((base, len));
        }
        if let Some(ServiceValue { table_base, .. }) = before
            && self.draft.holds(*table_base, &inputs)
        {
            let base = *table_base;
            self.draft.learn(base, inputs.clone());
            self.regions.push(MapOp::LearnRegion { base, inputs });
            return Ok((base, len));
        }
        let base = self.allocate(space(len), &inputs)?;
        self.regions.push(MapOp::WriteRegion { base, len: space(len), inputs });
        Ok((base, len))
    }

    /// The backends that take new flows, each once; none when there is none.
    fn inputs(&self, entry: &ServiceEntry) -> Option<Inputs> {
        let ready = entry.backends.iter().filter(|b| !b.draining);
        let by_key: BTreeMap<BackendKey, (u32, u16)> = ready
            .filter_map(|b| {
                let id = self.numbers.get(&identity(&encode::backend(b)))?;
                Some((b.key, (id, b.weight.clamp(1, MAX_WEIGHT))))
            })
            .collect();
        if by_key.is_empty() {
            return None;
        }
        Some(by_key.into_iter().map(|(key, (id, weight))| (id, key, weight)).collect())
    }

    /// Free space, or else what this plan's earlier writes have freed.
    fn allocate(&mut self, len: u32, inputs: &Inputs) -> Result<u32, Error> {
        if let Some(base) = self.draft.take(len, inputs.clone()) {
            return Ok(base);
        }
        self.flush();
        let again = if self.draft.reuse() { self.draft.take(len, inputs.clone()) } else { None };
        again.ok_or(Error::Full {
            map: "MAGLEV",
            capacity: self.held.regions.capacity(),
            wanted: self.draft.in_use() as usize + len as usize,
        })
    }

    /// Puts the writes so far into order.
    fn flush(&mut self) {
        self.ops.append(&mut self.regions);
        self.ops.append(&mut self.services);
    }
}
