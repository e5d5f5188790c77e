//! What plans follow from, indexed, and which parts of a plan a change of it concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use mesh_gossip::{Announcement, EndpointKey, EndpointTable, MemberStatus, Tables};
use mesh_lb::NodeSettings;
use mesh_types::{
    ClusterView, Endpoint, LocalEndpointId, NetworkId, NodeId, PortConfig, Protocol, PublishAt, Service,
    ServiceId, SharedMap,
};

use super::{
    Inputs,
    announce::{announcements, ingress_network, networks_of},
    remembered::Remembered,
};
use crate::{
    LocalTask,
    heard::{Heard, Told},
    names::EndpointChange,
};

/// See the module. After [`Facts::update`], what it answers is what the inputs say.
#[derive(Debug)]
pub(super) struct Facts {
    node: NodeId,
    settings: NodeSettings,
    host_addresses: BTreeMap<IpAddr, String>,
    view: Arc<ClusterView>,
    tasks: Arc<Vec<LocalTask>>,
    attaching: BTreeSet<NetworkId>,
    gossip: Arc<Tables>,
    remembered: Remembered,
    /// VTEP addresses of the nodes that packets can be sent to, this one's included.
    vteps: BTreeMap<NodeId, IpAddr>,
    ingress: Option<NetworkId>,
    services_on: BTreeMap<NetworkId, BTreeSet<ServiceId>>,
    /// All published ports.
    published: BTreeMap<(u16, Protocol), Vec<(PublishAt, ServiceId)>>,
    /// Ports published at one address.
    addressed: BTreeMap<(IpAddr, u16, Protocol), ServiceId>,
    /// Networks that tasks of this node are on.
    local: BTreeSet<NetworkId>,
    /// Host-side interfaces of this node's endpoints.
    links: BTreeMap<LocalEndpointId, u32>,
    /// What this node tells of them.
    announcements: Arc<Vec<Announcement>>,
    /// The same by name, with their interfaces.
    own: BTreeMap<Told, (Arc<Endpoint>, u32)>,
    /// By the network that they are on, as its own table tells of them.
    on_network: BTreeMap<NetworkId, BTreeMap<EndpointKey, Arc<Endpoint>>>,
    /// By service, with the table that tells of them.
    of_service: BTreeMap<ServiceId, BTreeMap<Told, Arc<Endpoint>>>,
}

/// What a change concerns. Too much does no harm.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Settings, nodes, decided state.
    pub(super) view: bool,
    /// This node's tasks.
    pub(super) tasks: bool,
    /// The networks that tasks are on or are being attached to.
    pub(super) interest: bool,
    /// Networks, for what the data path holds of them.
    pub(super) networks: BTreeSet<NetworkId>,
    /// Networks, for the names on them.
    pub(super) names: BTreeMap<NetworkId, NameChanges>,
    /// Services.
    pub(super) services: BTreeSet<ServiceId>,
    /// What other nodes run, in the order in which it holds.
    pub(super) heard: Vec<Heard>,
}

/// What may be otherwise with the names on a network.
#[derive(Debug)]
pub(super) enum NameChanges {
    /// All of it.
    All,
    /// What follows from these endpoints.
    Endpoints(Vec<EndpointChange>),
}

impl Changes {
    /// All names on these networks.
    fn all_names<'a>(&mut self, networks: impl IntoIterator<Item = &'a NetworkId>) {
        self.names.extend(networks.into_iter().map(|network| (*network, NameChanges::All)));
    }

    fn names_of(
        &mut self,
        network: NetworkId,
        before: Option<&Arc<Endpoint>>,
        after: Option<&Arc<Endpoint>>,
    ) {
        let changes = self.names.entry(network).or_insert_with(|| NameChanges::Endpoints(Vec::new()));
        if let NameChanges::Endpoints(changes) = changes {
            let on = |endpoint: &&Arc<Endpoint>| endpoint.network == network;
            changes.push((before.filter(on).cloned(), after.filter(on).cloned()));
        }
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) vtep: IpAddr,
    pub(super) ifindex: Option<u32>,
}

impl Facts {
    /// Knows its node and nothing else.
    pub(super) fn new(node: NodeId, inputs: &Inputs<'_>, remembered: Remembered) -> Self {
        let nothing = ClusterView {
            cluster: inputs.view.cluster,
            version: 0,
            nodes: BTreeMap::new(),
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
            gossip_keys: Vec::new(),
            ca_generation: 1,
        };
        let mut facts = Self {
            node,
            settings: inputs.settings,
            host_addresses: BTreeMap::new(),
            view: Arc::new(nothing),
            tasks: Arc::default(),
            attaching: BTreeSet::new(),
            gossip: Arc::default(),
            remembered: Remembered::default(),
            vteps: BTreeMap::new(),
            ingress: None,
            services_on: BTreeMap::new(),
            published: BTreeMap::new(),
            addressed: BTreeMap::new(),
            local: BTreeSet::new(),
            links: BTreeMap::new(),
            announcements: Arc::default(),
            own: BTreeMap::new(),
            on_network: BTreeMap::new(),
            of_service: BTreeMap::new(),
        };
        for ((scope, _), endpoint) in remembered.iter() {
            facts.set(*scope, None, Some(endpoint), &mut Changes::default());
        }
        facts.remembered = remembered;
        facts
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    pub(super) fn host_addresses(&self) -> &BTreeMap<IpAddr, String> {
        &self.host_addresses
    }

    pub(super) fn view(&self) -> &ClusterView {
        &self.view
    }

    pub(super) fn tasks(&self) -> &[LocalTask] {
        &self.tasks
    }

    pub(super) fn attaching(&self) -> &BTreeSet<NetworkId> {
        &self.attaching
    }

    pub(super) fn announcements(&self) -> &Arc<Vec<Announcement>> {
        &self.announcements
    }

    /// The VTEP addresses of the other nodes that packets can be sent to.
    pub(super) fn other_vteps(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vteps.values().copied().filter(|vtep| *vtep != self.settings.vtep)
    }

    pub(super) fn ingress(&self) -> Option<NetworkId> {
        self.ingress
    }

    pub(super) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Whether tasks of this node are on the network.
    pub(super) fn is_local(&self, network: NetworkId) -> bool {
        self.local.contains(&network)
    }

    /// Whether tasks of this node resolve the network's names, or will in a moment.
    pub(super) fn is_named(&self, network: NetworkId) -> bool {
        self.is_local(network) || self.attaching.contains(&network)
    }

    /// Where an endpoint is; none while its node is not known or cannot be reached.
    pub(super) fn place_of(&self, endpoint: &Endpoint) -> Option<Place> {
        if endpoint.node == self.node {
            let ifindex = *self.links.get(&endpoint.local_id)?;
            return Some(Place { vtep: self.settings.vtep, ifindex: Some(ifindex) });
        }
        Some(Place { vtep: *self.vteps.get(&endpoint.node)?, ifindex: None })
    }

    /// The endpoints on a network.
    pub(super) fn on_network(&self, network: NetworkId) -> impl Iterator<Item = &Endpoint> + Clone {
        self.on_network.get(&network).into_iter().flat_map(BTreeMap::values).map(|e| &**e)
    }

    /// The endpoints of a service that the table of `scope` tells of.
    pub(super) fn of_service(&self, service: ServiceId, scope: NetworkId) -> impl Iterator<Item = &Endpoint> {
        let all = self.of_service.get(&service).into_iter();
        all.flat_map(move |told| told.range(scope_range(scope))).map(|(_, e)| &**e)
    }

    /// The services on a network.
    pub(super) fn services_on(&self, network: NetworkId) -> impl Iterator<Item = &Service> {
        let ids = self.services_on.get(&network).into_iter().flatten();
        ids.filter_map(|id| self.view.services.get(id))
    }

    /// The service that publishes the number and transport of `port` at just this address.
    pub(super) fn publisher_at(&self, address: IpAddr, port: &PortConfig) -> Option<ServiceId> {
        self.addressed.get(&(address, port.published, port.protocol)).copied()
    }

    /// The service that publishes a port where `port` would be open.
    pub(super) fn publisher(&self, port: &PortConfig) -> Option<ServiceId> {
        let published = self.published.get(&(port.published, port.protocol)).into_iter().flatten();
        let meets = |at: PublishAt| match (at, port.at) {
            (PublishAt::Interface(name), PublishAt::Address(address)) => {
                self.host_addresses.get(&address).is_some_and(|on| on == name.as_str())
            }
            _ => at.overlaps(port.at),
        };
        published.into_iter().find(|(at, _)| meets(*at)).map(|(_, service)| *service)
    }

    /// Takes over what the inputs say.
    pub(super) fn update(&mut self, inputs: &Inputs<'_>, forget: bool) -> Changes {
        let mut changes = Changes::default();
        if forget {
            self.forget_remembered(&inputs.gossip.members, &mut changes);
        }
        let viewed = !Arc::ptr_eq(&self.view, inputs.view);
        if viewed || self.settings != inputs.settings || self.host_addresses != *inputs.host_addresses {
            changes.view = true;
            self.take_view(inputs, &mut changes);
        }
        if viewed || !Arc::ptr_eq(&self.tasks, inputs.tasks) {
            changes.tasks = true;
            self.take_tasks(inputs.tasks, &mut changes);
        }
        if self.attaching != *inputs.attaching {
            changes.interest = true;
            changes.all_names(self.attaching.symmetric_difference(inputs.attaching));
            self.attaching = inputs.attaching.clone();
        }
        if !Arc::ptr_eq(&self.gossip, inputs.gossip) {
            self.take_gossip(inputs.gossip, &mut changes);
        }
        changes
    }

    fn take_view(&mut self, inputs: &Inputs<'_>, changes: &mut Changes) {
        let new = inputs.view;
        let old = std::mem::replace(&mut self.view, new.clone());
        for id in differing(&old.networks, &new.networks) {
            changes.networks.insert(id);
            changes.all_names([&id]);
            changes.services.extend(self.services_on.get(&id).into_iter().flatten());
        }
        let services = differing(&old.services, &new.services);
        for id in &services {
            for service in [&old, new].into_iter().filter_map(|view| view.services.get(id)) {
                changes.all_names(service.networks.iter().map(|n| &n.network));
            }
        }
        if !services.is_empty() {
            self.index_services();
        }
        changes.services.extend(services);
        let ingress = ingress_network(new);
        if self.ingress != ingress {
            self.ingress = ingress;
            changes.services.extend(new.services.keys());
        }
        if self.host_addresses != *inputs.host_addresses {
            self.host_addresses = inputs.host_addresses.clone();
        }
        let placed = |s: &&Service| s.ports.iter().any(|p| p.at != PublishAt::Any);
        changes.services.extend(new.services.values().filter(placed).map(|s| s.id));
        self.take_vteps(inputs, changes);
    }

    fn index_services(&mut self) {
        self.services_on.clear();
        self.published.clear();
        self.addressed.clear();
        for service in self.view.services.values() {
            for network in &service.networks {
                self.services_on.entry(network.network).or_default().insert(service.id);
            }
            for port in &service.ports {
                let key = (port.published, port.protocol);
                self.published.entry(key).or_default().push((port.at, service.id));
                if let PublishAt::Address(address) = port.at {
                    let key = (address, port.published, port.protocol);
                    self.addressed.entry(key).or_insert(service.id);
                }
            }
        }
    }

    fn take_vteps(&mut self, inputs: &Inputs<'_>, changes: &mut Changes) {
        let own = inputs.settings.vtep;
        let others = inputs.view.nodes.values().filter(|n| n.id != self.node);
        let reached = others.filter(|n| n.data_path_addr.is_ipv4() == own.is_ipv4());
        let mut vteps: BTreeMap<_, _> = reached.map(|n| (n.id, n.data_path_addr)).collect();
        vteps.insert(self.node, own);
        let old = std::mem::replace(&mut self.vteps, vteps);
        self.settings = inputs.settings;
        let moved: BTreeSet<_> = differing(&old, &self.vteps).into_iter().collect();
        if moved.is_empty() {
            return;
        }
        for (network, endpoints) in &self.on_network {
            if endpoints.keys().any(|e| moved.contains(&e.node)) {
                changes.networks.insert(*network);
            }
        }
        for (service, endpoints) in &self.of_service {
            if endpoints.keys().any(|(_, e)| moved.contains(&e.node)) {
                changes.services.insert(*service);
            }
        }
    }

    fn take_tasks(&mut self, tasks: &Arc<Vec<LocalTask>>, changes: &mut Changes) {
        self.tasks = tasks.clone();
        self.links = tasks.iter().flat_map(|t| &t.attachments).map(|a| (a.local_id, a.ifindex)).collect();
        let mut own = BTreeMap::new();
        self.announcements = Arc::new(announcements(self.node, &self.view, tasks));
        for Announcement { scope, endpoint } in self.announcements.iter() {
            let ifindex = self.links.get(&endpoint.local_id).copied().unwrap_or(0);
            own.insert((*scope, endpoint.into()), (Arc::new(endpoint.clone()), ifindex));
        }
        let old = std::mem::replace(&mut self.own, own.clone());
        for (scope, key) in differing(&old, &own) {
            let endpoint =
                |all: &BTreeMap<Told, (Arc<Endpoint>, u32)>| Some(all.get(&(scope, key))?.0.clone());
            self.set(scope, endpoint(&old).as_ref(), endpoint(&own).as_ref(), changes);
        }
        let local: BTreeSet<_> = networks_of(tasks).collect();
        let old = std::mem::replace(&mut self.local, local);
        for network in old.symmetric_difference(&self.local) {
            changes.interest = true;
            changes.networks.insert(*network);
            changes.all_names([network]);
            changes.services.extend(self.services_on.get(network).into_iter().flatten());
        }
    }

    fn take_gossip(&mut self, new: &Arc<Tables>, changes: &mut Changes) {
        let old = std::mem::replace(&mut self.gossip, new.clone());
        let empty = EndpointTable::default();
        for (scope, before, after) in old.endpoints.changes(&new.endpoints) {
            for (key, before, after) in before.unwrap_or(&empty).changes(after.unwrap_or(&empty)) {
                // This node's own come from its tasks.
                if key.node == self.node {
                    continue;
                }
                if let Some(endpoint) = after {
                    for past in self.remembered.supersede(*scope, endpoint) {
                        self.set(*scope, Some(&past), None, changes);
                        changes.heard.push(((*scope, (&*past).into()), None));
                    }
                }
                self.set(*scope, before, after, changes);
                changes.heard.push(((*scope, *key), after.cloned()));
            }
        }
        if !old.members.is_copy_of(&new.members) {
            let gone = self.remembered.take_gone(&new.members);
            self.drop_remembered(gone, changes);
        }
    }

    fn forget_remembered(&mut self, members: &SharedMap<NodeId, MemberStatus>, changes: &mut Changes) {
        let forgotten = self.remembered.forget(members);
        self.drop_remembered(forgotten, changes);
    }

    fn drop_remembered(&mut self, dropped: Vec<(Told, Arc<Endpoint>)>, changes: &mut Changes) {
        for (told, past) in dropped {
            self.set(told.0, Some(&past), None, changes);
            changes.heard.push((told, None));
        }
    }

    /// All that other nodes run, by gossip and by what is remembered.
    pub(super) fn heard(&self) -> Vec<Heard> {
        let told = self.gossip.endpoints.iter().flat_map(|(scope, table)| {
            let others = table.iter().filter(|(key, _)| key.node != self.node);
            others.map(|(key, endpoint)| ((*scope, *key), Some(endpoint.clone())))
        });
        let remembered = self.remembered.iter().map(|(told, endpoint)| (*told, Some(endpoint.clone())));
        remembered.chain(told).collect()
    }

    /// Changes an endpoint that the table of `scope` tells of.
    fn set(
        &mut self,
        scope: NetworkId,
        before: Option<&Arc<Endpoint>>,
        after: Option<&Arc<Endpoint>>,
        changes: &mut Changes,
    ) {
        if let Some(endpoint) = before {
            let key = EndpointKey::from(&**endpoint);
            if scope == endpoint.network {
                remove(&mut self.on_network, &scope, &key);
            }
            if let Some(service) = endpoint.service {
                remove(&mut self.of_service, &service, &(scope, key));
            }
        }
        if let Some(endpoint) = after {
            let key = EndpointKey::from(&**endpoint);
            if scope == endpoint.network {
                self.on_network.entry(scope).or_default().insert(key, endpoint.clone());
            }
            if let Some(service) = endpoint.service {
                self.of_service.entry(service).or_default().insert((scope, key), endpoint.clone());
            }
        }
        let on_network = |endpoint: &&Arc<Endpoint>| endpoint.network == scope;
        if before.into_iter().chain(after).any(|endpoint| on_network(&endpoint)) {
            changes.networks.insert(scope);
            changes.names_of(scope, before, after);
        }
        changes.services.extend(before.into_iter().chain(after).filter_map(|endpoint| endpoint.service));
    }
}

/// All keys that begin with `scope`.
fn scope_range(scope: NetworkId) -> std::ops::RangeInclusive<Told> {
    let end = |n: u128| EndpointKey {
        task: mesh_types::TaskId::from_u128(n),
        network: NetworkId::from_u128(n),
        node: NodeId::from_u128(n),
    };
    (scope, end(0))..=(scope, end(u128::MAX))
}

fn remove<G: Ord, K: Ord, V>(groups: &mut BTreeMap<G, BTreeMap<K, V>>, group: &G, key: &K) {
    if let Some(entries) = groups.get_mut(group) {
        entries.remove(key);
        if entries.is_empty() {
            groups.remove(group);
        }
    }
}

/// The keys whose values are not the same in both.
fn differing<K: Ord + Copy, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<K> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(changed).copied().collect()
}
