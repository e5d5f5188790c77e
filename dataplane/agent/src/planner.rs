//! The pure planner: from what is decided and what runs to what the data path holds, gossip tells and tasks resolve.
//!
//! A [`Planner`] keeps its last plan and makes anew only the networks and services that a change concerns, so that an
//! endpoint that comes or goes costs the same among ten and among 100,000. Whatever happened before, a plan is the one
//! that would be made from nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use mesh_dns::NetworkNames;
use mesh_gossip::{Announcement, Interest, Tables};
use mesh_lb::{Desired, LocalEntry, NodeSettings, PeerEntry};
use mesh_types::{ClusterView, Endpoint, LocalEndpointId, NetworkId, NodeId, ServiceId};

use crate::{
    LocalTask,
    heard::Heard,
    names::{Made, follow, network_names},
};

mod announce;
mod facts;
mod family;
mod findings;
mod host_ports;
mod network;
mod places;
mod remembered;
mod service;

pub use announce::{announcements, ingress_network, interest, published_on};
use facts::{Changes, Facts, NameChanges};
pub use family::Family;
pub use findings::Finding;
use remembered::Remembered;

/// Everything that a plan follows from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// This node's interfaces.
    pub settings: NodeSettings,
    /// Its addresses on which published ports are open, and the interfaces that hold them.
    pub host_addresses: &'a BTreeMap<IpAddr, String>,
    /// The interfaces by which the VTEP addresses of other nodes are reached; those that are not here are reached by the
    /// one that holds this node's.
    pub routes: &'a BTreeMap<IpAddr, u32>,
    /// What the managers decided.
    pub view: &'a Arc<ClusterView>,
    /// The tasks of this node.
    pub tasks: &'a Arc<Vec<LocalTask>>,
    /// Networks that tasks are just being attached to.
    pub attaching: &'a BTreeSet<NetworkId>,
    /// What runs elsewhere, and what gossip says of this node; that is not believed.
    pub gossip: &'a Arc<Tables>,
}

/// What follows.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What the data path should hold. Networks and services that did not change are the allocations of the last plan.
    pub desired: Desired,
    /// The names on the networks of this node's tasks and of those being attached; unchanged ones are shared too.
    pub names: BTreeMap<NetworkId, Arc<NetworkNames>>,
    /// What this node tells the others.
    pub announcements: Arc<Vec<Announcement>>,
    /// The tables it wants.
    pub interest: Interest,
    /// What an operator should know of.
    pub findings: Vec<Finding>,
    /// The same of ports that lead to single tasks.
    pub host_findings: Vec<Finding>,
    /// The services that stand for those ports.
    host_services: BTreeSet<ServiceId>,
    /// Networks whose names are made anew at each change.
    contested: BTreeSet<NetworkId>,
}

/// Plans for one node.
#[derive(Debug)]
pub struct Planner {
    node: NodeId,
    kept: Option<(Facts, Planned)>,
    remembered: Remembered,
    forget: bool,
    heard: Vec<Heard>,
}

impl Planner {
    /// Knows nothing yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, kept: None, remembered: Remembered::default(), forget: false, heard: Vec::new() }
    }

    /// Believes in these endpoints of other nodes, by table, until gossip tells otherwise or
    /// [`Planner::forget_remembered`] is called. Before the first plan only.
    pub fn remember(&mut self, tables: BTreeMap<NetworkId, Vec<Arc<Endpoint>>>) {
        self.remembered = Remembered::new(self.node, tables);
    }

    /// From the next plan on, only what gossip tells counts, but for nodes that nobody attends to, and those that somebody
    /// has attended to again only since the last call: they cannot tell, or hardly could.
    pub fn forget_remembered(&mut self) {
        self.forget = true;
    }

    /// What is still believed besides what gossip tells, with the tables that told of it.
    pub fn remembered(&self) -> impl Iterator<Item = (NetworkId, &Arc<Endpoint>)> {
        let remembered = self.kept.as_ref().map_or(&self.remembered, |(facts, _)| facts.remembered());
        remembered.iter().map(|((scope, _), endpoint)| (*scope, endpoint))
    }

    /// What follows from the inputs.
    pub fn plan(&mut self, inputs: &Inputs<'_>) -> &Planned {
        let (facts, planned) = self.kept.get_or_insert_with(|| {
            let facts = Facts::new(self.node, inputs, std::mem::take(&mut self.remembered));
            (facts, Planned::new(inputs.settings))
        });
        let mut changes = facts.update(inputs, std::mem::take(&mut self.forget));
        planned.follow(facts, &changes, inputs.routes);
        self.heard.append(&mut changes.heard);
        planned
    }

    /// What has changed of what other nodes run since the last call, in the order in which it holds.
    pub(crate) fn take_heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// All that other nodes run, as of the last plan.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.kept.as_ref().map(|(facts, _)| facts.heard()).unwrap_or_default()
    }

    /// The plan made last; none before the first.
    pub fn last(&self) -> Option<&Planned> {
        self.kept.as_ref().map(|(_, planned)| planned)
    }
}

impl Planned {
    fn new(settings: NodeSettings) -> Self {
        Self {
            desired: Desired::new(settings),
            names: BTreeMap::new(),
            announcements: Arc::default(),
            interest: Interest::default(),
            findings: Vec::new(),
            host_findings: Vec::new(),
            host_services: BTreeSet::new(),
            contested: BTreeSet::new(),
        }
    }

    /// Makes anew what `changes` concern.
    fn follow(&mut self, facts: &Facts, changes: &Changes, routes: &BTreeMap<IpAddr, u32>) {
        self.desired.config = *facts.settings();
        self.desired.peers = peers(facts, routes);
        if changes.view {
            self.desired.host_addresses = facts.host_addresses().keys().copied().collect();
            self.findings = findings::findings(facts);
        }
        if changes.view || changes.tasks {
            self.desired.local = local(facts);
            if self.announcements != *facts.announcements() {
                self.announcements = facts.announcements().clone();
            }
        }
        if changes.view || changes.interest {
            self.interest = interest(facts.node(), facts.view(), facts.tasks(), facts.attaching());
        }
        self.follow_networks(facts, changes);
        self.follow_names(facts, changes);
        for id in &changes.services {
            let made = facts.view().services.get(id).and_then(|s| service::service_plan(facts, s));
            put(&mut self.desired.services, *id, made);
        }
        if changes.view || changes.tasks {
            self.follow_host_ports(facts);
        }
    }

    fn follow_host_ports(&mut self, facts: &Facts) {
        let (plans, findings) = host_ports::plans(facts);
        self.host_findings = findings;
        let now = plans.keys().copied().collect();
        for gone in std::mem::replace(&mut self.host_services, now).difference(&self.host_services) {
            self.desired.services.remove(gone);
        }
        for (id, plan) in plans {
            put(&mut self.desired.services, id, Some(plan));
        }
    }

    fn follow_networks(&mut self, facts: &Facts, changes: &Changes) {
        if changes.networks.is_empty() {
            return;
        }
        if changes.view {
            // A network that is gone has left no VNI to find its plan by.
            let networks = facts.view().networks.values().filter(|n| facts.is_local(n.id));
            let vnis: BTreeSet<_> = networks.map(|n| n.vni).collect();
            self.desired.networks.retain(|vni, _| vnis.contains(vni));
        }
        for network in changes.networks.iter().filter_map(|id| facts.view().networks.get(id)) {
            let made = facts.is_local(network.id).then(|| network::network_plan(facts, network));
            put(&mut self.desired.networks, network.vni, made);
        }
    }

    fn follow_names(&mut self, facts: &Facts, changes: &Changes) {
        for (id, change) in &changes.names {
            let Some(network) = facts.view().networks.get(id).filter(|_| facts.is_named(*id)) else {
                self.names.remove(id);
                continue;
            };
            if let (NameChanges::Endpoints(changes), Some(names), false) =
                (change, self.names.get(id), self.contested.contains(id))
                // With many changes it is less work to make all anew.
                && changes.len() <= names.forward.len() / 8 + 8
            {
                let mut followed = NetworkNames::clone(names);
                if follow(&mut followed, network, |id| facts.view().services.get(&id), changes.as_slice()) {
                    put(&mut self.names, *id, Some(followed));
                    continue;
                }
            }
            let Made { names, contested } =
                network_names(network, facts.services_on(*id), facts.on_network(*id));
            if contested {
                self.contested.insert(*id)
            } else {
                self.contested.remove(id)
            };
            put(&mut self.names, *id, Some(names));
        }
    }
}

/// Puts a part in its place, or removes it; one that is as it was stays the same allocation.
fn put<K: Ord, V: PartialEq>(parts: &mut BTreeMap<K, Arc<V>>, key: K, made: Option<V>) {
    match made {
        None => drop(parts.remove(&key)),
        Some(made) if parts.get(&key).is_some_and(|part| **part == made) => {}
        Some(made) => drop(parts.insert(key, Arc::new(made))),
    }
}

/// The other nodes that packets can be sent to and may come from.
fn peers(facts: &Facts, routes: &BTreeMap<IpAddr, u32>) -> BTreeMap<IpAddr, PeerEntry> {
    let usual = facts.settings().uplink_ifindex;
    let entry = |vtep: &IpAddr| PeerEntry { ifindex: routes.get(vtep).copied().filter(|i| *i != usual) };
    facts.other_vteps().map(|vtep| (vtep, entry(&vtep))).collect()
}

/// This node's endpoints.
fn local(facts: &Facts) -> BTreeMap<LocalEndpointId, LocalEntry> {
    let attachments = facts.tasks().iter().flat_map(|t| t.attachments.iter().map(move |a| (t, a)));
    let entries = attachments.filter_map(|(task, attachment)| {
        let network = facts.view().networks.get(&attachment.network)?;
        let entry = LocalEntry {
            vni: network.vni,
            v4: attachment.v4(),
            v6: attachment.v6(),
            mac: attachment.mac,
            ifindex: attachment.ifindex,
            generation: attachment.generation,
            egress4: attachment.egress4,
            egress6: attachment.egress6,
            served: task.service.is_some() || task.has_host_ports(),
        };
        Some((attachment.local_id, entry))
    });
    entries.collect()
}

/// The node-local IPv4 address that stands for an endpoint outside: the pool's first, plus the id.
pub fn egress_address4(id: LocalEndpointId) -> Option<Ipv4Addr> {
    let (first, prefix) = mesh_lb::EGRESS_POOL;
    let size = 1u32 << (32 - u32::from(prefix));
    (id.0 > 0 && id.0 < size - 1).then(|| Ipv4Addr::from(u32::from_be_bytes(first) + id.0))
}

/// The same for IPv6: the pool's first, with the id in the last four bytes.
pub fn egress_address6(id: LocalEndpointId) -> Option<Ipv6Addr> {
    let (first, _) = mesh_lb::EGRESS_POOL6;
    (id.0 > 0).then(|| Ipv6Addr::from(u128::from_be_bytes(first) | u128::from(id.0)))
}

#[cfg(test)]
mod tests;
