//! What the kernel's maps hold, as far as user space alone writes them: read once, then kept in step.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use mesh_abi::{
    Address, BackendValue, EndpointKey, EndpointValue, HostAddressKey, LocalEndpoint, NetworkKey,
    NetworkValue, NodeConfig, PeerKey, PeerValue, ServiceKey, ServiceValue, TABLE_BLOCK,
};

use crate::{
    datapath::Applied,
    desired::Desired,
    plan::Plan,
    records::{Changes, Loose, Records},
    regions::{Inputs, Known, Region, Regions, space},
};

/// One write to the maps. [`crate::plan::plan`] puts them into an order in which every prefix is safe to stop at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapOp {
    SetConfig(NodeConfig),
    PutPeer(PeerKey, PeerValue),
    PutHostAddress(HostAddressKey),
    PutNetwork(NetworkKey, NetworkValue),
    PutLocalById(LocalEndpoint),
    PutLocalByIfindex(LocalEndpoint),
    PutEndpoint(EndpointKey, EndpointValue),
    PutBackend(u32, BackendValue),
    WriteRegion {
        base: u32,
        len: u32,
        inputs: Inputs,
    },
    /// No write: the region was found to hold the table of these inputs.
    LearnRegion {
        base: u32,
        inputs: Inputs,
    },
    PutService(ServiceKey, ServiceValue),
    DeleteService(ServiceKey),
    DeleteBackend(u32),
    DeleteEndpoint(EndpointKey),
    DeleteLocalByIfindex(u32),
    DeleteLocalById(u32),
    DeleteNetwork(NetworkKey),
    DeleteHostAddress(HostAddressKey),
    DeletePeer(PeerKey),
}

impl MapOp {
    /// Adds itself to the sums of what was written.
    pub(crate) fn count(&self, applied: &mut Applied) {
        match self {
            Self::WriteRegion { .. } => applied.tables += 1,
            Self::LearnRegion { .. } => {}
            Self::DeleteService(_)
            | Self::DeleteBackend(_)
            | Self::DeleteEndpoint(_)
            | Self::DeleteLocalByIfindex(_)
            | Self::DeleteLocalById(_)
            | Self::DeleteNetwork(_)
            | Self::DeleteHostAddress(_)
            | Self::DeletePeer(_) => applied.deleted += 1,
            _ => applied.written += 1,
        }
    }
}

/// What makes two backends the same for flows: VTEP, address, network, endpoint and generation; not whether it drains.
pub(crate) type Identity = (Address, Address, [u8; 4], u32, u16);

pub(crate) fn identity(b: &BackendValue) -> Identity {
    (b.vtep, b.address, b.vni, b.endpoint, b.generation)
}

/// Ids of backends that are gone, the longest gone making room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Former {
    ids: HashMap<Identity, u32>,
    order: VecDeque<Identity>,
}

/// How many of them are remembered.
const FORMER: usize = 8192;

impl Former {
    fn insert(&mut self, identity: Identity, id: u32) {
        if self.ids.insert(identity, id).is_none() {
            self.order.push_back(identity);
        }
        if self.order.len() > FORMER
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// What the maps hold, and what is known of why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) config: NodeConfig,
    pub(crate) peers: BTreeMap<PeerKey, PeerValue>,
    pub(crate) host_addresses: BTreeSet<HostAddressKey>,
    pub(crate) networks: BTreeMap<NetworkKey, NetworkValue>,
    /// By network, each of which has one at least.
    pub(crate) endpoints: BTreeMap<NetworkKey, BTreeMap<Address, EndpointValue>>,
    pub(crate) endpoint_count: usize,
    pub(crate) local_by_id: BTreeMap<u32, LocalEndpoint>,
    pub(crate) local_by_ifindex: BTreeMap<u32, LocalEndpoint>,
    pub(crate) services: BTreeMap<ServiceKey, ServiceValue>,
    pub(crate) backends: BTreeMap<u32, BackendValue>,
    /// The id of each backend.
    pub(crate) ids: HashMap<Identity, u32>,
    /// The ids that backends had which are gone: one that comes back, since its node only seemed to be down, finds its
    /// flows again.
    former: Former,
    pub(crate) regions: Regions,
    /// The id that the next new backend is to have, if free. It only grows, so a flow never finds its backend's id with
    /// another backend.
    pub(crate) next_backend: u32,
    /// The index that a service was given last to be counted at.
    pub(crate) last_counter: u16,
    pub(crate) records: Records,
    pub(crate) loose: Loose,
}

impl Held {
    /// Empty maps.
    pub(crate) fn new(table_capacity: u32) -> Self {
        Self { regions: Regions::new(table_capacity), next_backend: 1, ..Self::default() }
    }

    /// Takes over the endpoints found in the map.
    pub(crate) fn adopt_endpoints(
        &mut self,
        endpoints: impl IntoIterator<Item = (EndpointKey, EndpointValue)>,
    ) {
        endpoints.into_iter().for_each(|(key, value)| self.put_endpoint(key, value));
    }

    /// Takes over the backends found in the map; flows may name ids up to `last_chosen`.
    pub(crate) fn adopt_backends(
        &mut self,
        backends: impl IntoIterator<Item = (u32, BackendValue)>,
        last_chosen: u32,
    ) {
        backends.into_iter().for_each(|(id, value)| self.put_backend(id, value));
        let last = self.backends.keys().next_back().copied().unwrap_or(0).max(last_chosen);
        self.next_backend = last.wrapping_add(1).max(1);
    }

    /// Takes over the services and tables found in the maps. `contents` reads a part of the table array.
    pub(crate) fn adopt_services<E>(
        &mut self,
        services: BTreeMap<ServiceKey, ServiceValue>,
        mut contents: impl FnMut(u32, u32) -> Result<Vec<u32>, E>,
    ) -> Result<(), E> {
        for value in services.values() {
            let (base, len) = (value.table_base, space(value.table_len));
            let inside = base.checked_add(len).is_some_and(|end| end <= self.regions.capacity());
            if len > 0 && inside && base.is_multiple_of(TABLE_BLOCK) && self.regions.get(base).is_none() {
                let known = Known::Contents(contents(base, len)?);
                self.regions.insert(base, Region { len, users: 0, known });
            }
            self.use_table(value);
        }
        self.loose.services.extend(services.keys());
        self.services = services;
        Ok(())
    }

    /// The id of a backend, if it has one or had one not long ago.
    pub(crate) fn id(&self, identity: &Identity) -> Option<u32> {
        self.ids.get(identity).or_else(|| self.former.ids.get(identity)).copied()
    }

    /// Call it before the writes of a plan are done: what they concern is not known to be right until all of them are.
    pub(crate) fn begin(&mut self, changes: &Changes) {
        self.records.forget(changes, &mut self.loose);
    }

    /// Call it when all writes of a plan are done.
    pub(crate) fn finish(&mut self, desired: &Desired, plan: Plan) {
        self.records.remember(desired, &plan.changes, plan.backends, &mut self.loose);
    }

    /// Records a write that succeeded.
    pub(crate) fn record(&mut self, op: &MapOp) {
        match op {
            MapOp::SetConfig(value) => self.config = *value,
            MapOp::PutPeer(key, value) => drop(self.peers.insert(*key, *value)),
            MapOp::PutHostAddress(key) => drop(self.host_addresses.insert(*key)),
            MapOp::PutNetwork(key, value) => drop(self.networks.insert(*key, *value)),
            MapOp::PutLocalById(value) => drop(self.local_by_id.insert(value.id, *value)),
            MapOp::PutLocalByIfindex(value) => drop(self.local_by_ifindex.insert(value.ifindex, *value)),
            MapOp::PutEndpoint(key, value) => self.put_endpoint(*key, *value),
            MapOp::PutBackend(id, value) => self.put_backend(*id, *value),
            MapOp::WriteRegion { base, len, inputs } => {
                let known = Known::Inputs(inputs.clone());
                self.regions.insert(*base, Region { len: *len, users: 0, known });
            }
            MapOp::LearnRegion { base, inputs } => self.regions.learn(*base, inputs.clone()),
            MapOp::PutService(key, value) => {
                self.use_table(value);
                let before = self.services.insert(*key, *value);
                if before.map(|before| before.counter()) != Some(value.counter()) {
                    self.last_counter = value.counter();
                }
                self.leave_table(before);
                self.loose.services.insert(*key);
            }
            MapOp::DeleteService(key) => {
                let before = self.services.remove(key);
                self.leave_table(before);
                self.loose.services.remove(key);
            }
            MapOp::DeleteBackend(id) => self.delete_backend(*id),
            MapOp::DeleteEndpoint(key) => self.delete_endpoint(key),
            MapOp::DeleteLocalByIfindex(ifindex) => drop(self.local_by_ifindex.remove(ifindex)),
            MapOp::DeleteLocalById(id) => drop(self.local_by_id.remove(id)),
            MapOp::DeleteNetwork(key) => drop(self.networks.remove(key)),
            MapOp::DeleteHostAddress(key) => drop(self.host_addresses.remove(key)),
            MapOp::DeletePeer(key) => drop(self.peers.remove(key)),
        }
    }

    fn put_endpoint(&mut self, key: EndpointKey, value: EndpointValue) {
        let network = self.endpoints.entry(NetworkKey { vni: key.vni }).or_default();
        if network.insert(key.address, value).is_none() {
            self.endpoint_count += 1;
        }
    }

    fn delete_endpoint(&mut self, key: &EndpointKey) {
        let network = NetworkKey { vni: key.vni };
        let Some(endpoints) = self.endpoints.get_mut(&network) else { return };
        if endpoints.remove(&key.address).is_some() {
            self.endpoint_count -= 1;
        }
        if endpoints.is_empty() {
            self.endpoints.remove(&network);
        }
    }

    fn put_backend(&mut self, id: u32, value: BackendValue) {
        match self.backends.insert(id, value) {
            // One that comes back has its former id.
            None if self.former.ids.get(&identity(&value)) == Some(&id) => {}
            None => self.next_backend = id.wrapping_add(1).max(1),
            Some(before) => drop(self.ids.remove(&identity(&before))),
        }
        self.ids.insert(identity(&value), id);
        self.loose.backends.insert(id);
    }

    fn delete_backend(&mut self, id: u32) {
        if let Some(value) = self.backends.remove(&id)
            && self.ids.get(&identity(&value)) == Some(&id)
        {
            self.ids.remove(&identity(&value));
            self.former.insert(identity(&value), id);
        }
        self.loose.backends.remove(&id);
    }

    fn use_table(&mut self, service: &ServiceValue) {
        if service.table_len > 0 {
            self.regions.acquire(service.table_base);
        }
    }

    fn leave_table(&mut self, service: Option<ServiceValue>) {
        if let Some(ServiceValue { table_base, table_len: 1.., .. }) = service {
            // Not freed yet: a later write of the same plan may point another service to it.
            self.regions.release(table_base);
        }
    }
}
