//! What the kernel's maps hold, as far as user space alone writes them: read once, then kept in step.

use std::collections::{BTreeMap, BTreeSet};

use mesh_abi::{
    BackendValue, EndpointKey, EndpointValue, HostAddressKey, LocalEndpoint, NetworkKey, NetworkValue,
    NodeConfig, PeerKey, PeerValue, ServiceKey, ServiceValue,
};

use crate::{
    datapath::Applied,
    regions::{Inputs, Known, Region, Regions},
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
        elements: Vec<u32>,
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

/// What the maps hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) config: NodeConfig,
    pub(crate) peers: BTreeMap<PeerKey, PeerValue>,
    pub(crate) host_addresses: BTreeSet<HostAddressKey>,
    pub(crate) networks: BTreeMap<NetworkKey, NetworkValue>,
    pub(crate) endpoints: BTreeMap<EndpointKey, EndpointValue>,
    pub(crate) local_by_id: BTreeMap<u32, LocalEndpoint>,
    pub(crate) local_by_ifindex: BTreeMap<u32, LocalEndpoint>,
    pub(crate) services: BTreeMap<ServiceKey, ServiceValue>,
    pub(crate) backends: BTreeMap<u32, BackendValue>,
    pub(crate) regions: Regions,
    /// The id that the next new backend is to have, if free. It only grows, so a flow never finds its backend's id with
    /// another backend.
    pub(crate) next_backend: u32,
}

impl Held {
    /// Empty maps.
    pub(crate) fn new(table_capacity: u32) -> Self {
        Self { regions: Regions::new(table_capacity), next_backend: 1, ..Self::default() }
    }

    /// Takes over the services and tables found in the maps. `contents` reads a part of the table array.
    pub(crate) fn adopt_services<E>(
        &mut self,
        services: BTreeMap<ServiceKey, ServiceValue>,
        mut contents: impl FnMut(u32, u32) -> Result<Vec<u32>, E>,
    ) -> Result<(), E> {
        for value in services.values() {
            let (base, len) = (value.table_base, value.table_len);
            let inside = base.checked_add(len).is_some_and(|end| end <= self.regions.capacity());
            if len > 0 && inside && self.regions.get(base).is_none() {
                let known = Known::Contents(contents(base, len)?);
                self.regions.insert(base, Region { len, users: 0, known });
            }
            self.use_table(value);
        }
        self.services = services;
        Ok(())
    }

    /// Records a write that succeeded.
    pub(crate) fn record(&mut self, op: MapOp) {
        match op {
            MapOp::SetConfig(value) => self.config = value,
            MapOp::PutPeer(key, value) => drop(self.peers.insert(key, value)),
            MapOp::PutHostAddress(key) => drop(self.host_addresses.insert(key)),
            MapOp::PutNetwork(key, value) => drop(self.networks.insert(key, value)),
            MapOp::PutLocalById(value) => drop(self.local_by_id.insert(value.id, value)),
            MapOp::PutLocalByIfindex(value) => drop(self.local_by_ifindex.insert(value.ifindex, value)),
            MapOp::PutEndpoint(key, value) => drop(self.endpoints.insert(key, value)),
            MapOp::PutBackend(id, value) => {
                if self.backends.insert(id, value).is_none() {
                    self.next_backend = id.wrapping_add(1).max(1);
                }
            }
            MapOp::WriteRegion { base, elements, inputs } => {
                let region = Region { len: elements.len() as u32, users: 0, known: Known::Inputs(inputs) };
                self.regions.insert(base, region);
            }
            MapOp::LearnRegion { base, inputs } => self.regions.learn(base, inputs),
            MapOp::PutService(key, value) => {
                self.use_table(&value);
                let before = self.services.insert(key, value);
                self.leave_table(before);
            }
            MapOp::DeleteService(key) => {
                let before = self.services.remove(&key);
                self.leave_table(before);
            }
            MapOp::DeleteBackend(id) => drop(self.backends.remove(&id)),
            MapOp::DeleteEndpoint(key) => drop(self.endpoints.remove(&key)),
            MapOp::DeleteLocalByIfindex(ifindex) => drop(self.local_by_ifindex.remove(&ifindex)),
            MapOp::DeleteLocalById(id) => drop(self.local_by_id.remove(&id)),
            MapOp::DeleteNetwork(key) => drop(self.networks.remove(&key)),
            MapOp::DeleteHostAddress(key) => drop(self.host_addresses.remove(&key)),
            MapOp::DeletePeer(key) => drop(self.peers.remove(&key)),
        }
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
