//! What a node counted and how it stands at one moment, with the names that people know.
//!
//! The one source of what metrics, `meshctl top` and the dashboard show of a node.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use mesh_dns::DnsStats;
use mesh_lb::{Counts, Frontend, ProgramStats, ServiceTraffic, Traffic};
use mesh_types::{
    ClusterView, EndpointState, Health, LocalEndpointId, NetworkId, NodeId, ServiceId, TaskId, Vni,
};

use crate::{
    Agent, AgentError, GossipStatus, LocalTask, MemberState, SessionState, agent::lock, leases::boot_time,
};

/// See the module.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was made.
    pub at: SystemTime,
    /// This node.
    pub node: NodeId,
    /// Its name; its id while no manager told one.
    pub node_name: String,
    /// Version of the decided state that the data path and the names follow.
    pub applied: u64,
    /// Version of the decided state that the node knows.
    pub known: u64,
    /// The manager session.
    pub session: SessionState,
    /// Why the last change of the data path failed; none if it did not.
    pub fault: Option<String>,
    /// Members by gossip, this node included.
    pub members: BTreeMap<NodeId, MemberState>,
    /// Tasks of this node.
    pub tasks: usize,
    /// What the data path counted.
    pub data_path: Counts,
    /// What all tasks of this node sent and got since the daemon's start.
    pub traffic: Traffic,
    /// What the programs took while the kernel counted that.
    pub programs: Vec<ProgramStats>,
    /// Networks with an endpoint on this node, by name.
    pub networks: Vec<NetworkCounts>,
    /// Services, by name.
    pub services: Vec<ServiceCounts>,
    /// Virtual addresses and published ports, by service.
    pub frontends: Vec<FrontendCounts>,
    /// The endpoints of this node, by network, service and task.
    pub endpoints: Vec<EndpointCounts>,
    /// What the name servers of this node's tasks counted since the daemon's start.
    pub dns: DnsStats,
    /// How far it knows by gossip what the others know; none while it stops.
    pub gossip: Option<GossipStatus>,
    /// How long it may give addresses to tasks without a word from a manager.
    pub lease_left: Duration,
    /// Addresses of tasks that no manager knows of yet.
    pub unconfirmed: usize,
    /// When its certificate ends.
    pub certificate_expires: SystemTime,
    /// When the certificate of the cluster's CA ends that this one is of.
    pub ca_expires: SystemTime,
}

/// What one network carries for this node's tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCounts {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Its number in packets.
    pub vni: Vni,
    /// Endpoints of this node on it.
    pub endpoints: usize,
    /// Established flows that these endpoints serve; see [`EndpointCounts::flows`].
    pub flows: u64,
    /// What tasks of this node sent and got on it since the daemon's start, those that ended included.
    pub traffic: Traffic,
}

/// A service as this node serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCounts {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// Tasks of it on this node.
    pub tasks: usize,
    /// Of these, how many take new flows.
    pub ready: usize,
    /// Established flows that these tasks serve; see [`EndpointCounts::flows`].
    pub flows: u64,
}

/// What clients of a service spoke to and heard, as far as they enter by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendCounts {
    /// The service; for a port that leads to one task alone, what stands for it.
    pub service: ServiceId,
    /// Its name; empty for a port that leads to one task alone.
    pub service_name: String,
    /// What they speak to.
    pub frontend: Frontend,
    /// The network's name, for a virtual address; else empty.
    pub network_name: String,
    /// What they said and heard since the frontend is there; drops are packets for which there was no task.
    pub traffic: Traffic,
}

/// One task's place on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointCounts {
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub task_name: String,
    /// The service it belongs to, and its name.
    pub service: Option<(ServiceId, String)>,
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub network_name: String,
    /// Its id in the data path.
    pub local_id: LocalEndpointId,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it takes new flows.
    pub state: EndpointState,
    /// Whether its task works, where that is checked.
    pub health: Health,
    /// Established flows by way of a virtual address or a published port that it serves, as of the last walk through all
    /// flows: some seconds ago, more where there are more than 16,384.
    pub flows: u64,
    /// What it sent and got since it is there.
    pub traffic: Traffic,
}

impl EndpointCounts {
    /// Whether new flows of its service come to it.
    pub fn is_ready(&self) -> bool {
        self.state == EndpointState::Ready && !matches!(self.health, Health::Starting | Health::Unhealthy)
    }
}

impl Agent {
    /// How the node stands now.
    pub async fn snapshot(&self) -> Result<Snapshot, AgentError> {
        let gossip = self.gossip_status().await;
        let identity = self.inner.options.identity.current();
        let dns = self.inner.dns_thread.stats();
        let mut reconciler = self.inner.reconciler.lock().await;
        let (view, tasks, lease_left, unconfirmed) = {
            let state = self.lock();
            let left = state.leases.left(boot_time());
            (state.view.clone(), state.tasks.clone(), left, state.leases.unsure().len())
        };
        let (data_path, applied) = (reconciler.counts()?, reconciler.applied());
        let (traffic, flows) = (reconciler.look()?, reconciler.served_flows());
        let frontends = frontends(&view, &reconciler.service_traffic()?);
        let programs = reconciler.program_stats()?;
        let endpoints = endpoints(&view, &tasks, &flows, &traffic);
        let mut networks = networks(&view, &endpoints);
        networks.iter_mut().for_each(|network| network.traffic = reconciler.totals().of(network.network));
        let traffic = reconciler.totals().node();
        drop(reconciler);
        Ok(Snapshot {
            at: SystemTime::now(),
            node: self.inner.node,
            node_name: name_of_node(&view, self.inner.node),
            applied,
            known: view.version,
            session: self.inner.session.state(),
            fault: lock(&self.inner.unhealthy).clone(),
            members: self.members(),
            tasks: tasks.len(),
            data_path,
            traffic,
            programs,
            networks,
            services: services(&view, &endpoints),
            frontends,
            endpoints,
            dns,
            gossip,
            lease_left,
            unconfirmed,
            certificate_expires: identity.not_after(),
            ca_expires: identity.ca_not_after(),
        })
    }
}

fn name_of_node(view: &ClusterView, node: NodeId) -> String {
    view.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.to_string())
}

/// The endpoints of `tasks` with their names, and what was counted of each. What the managers know no more is called by its
/// id.
pub fn endpoints(
    view: &ClusterView,
    tasks: &[LocalTask],
    flows: &BTreeMap<LocalEndpointId, u64>,
    traffic: &BTreeMap<LocalEndpointId, Traffic>,
) -> Vec<EndpointCounts> {
    let service_name = |id: ServiceId| match view.services.get(&id) {
        Some(service) => (id, service.name.to_string()),
        None => (id, id.to_string()),
    };
    let network_name = |id: NetworkId| match view.networks.get(&id) {
        Some(network) => network.name.to_string(),
        None => id.to_string(),
    };
    let of_task = |task: &LocalTask| {
        let service = task.service.map(service_name);
        let place = move |a: &crate::Attachment| EndpointCounts {
            task: task.id,
            task_name: task.name.to_string(),
            service: service.clone(),
            network: a.network,
            network_name: network_name(a.network),
            local_id: a.local_id,
            addresses: a.addresses.clone(),
            state: task.endpoint_state(),
            health: task.health,
            flows: flows.get(&a.local_id).copied().unwrap_or(0),
            traffic: traffic.get(&a.local_id).copied().unwrap_or_default(),
        };
        task.attachments.iter().map(place).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = tasks.iter().flat_map(of_task).collect();
    let name = |e: &EndpointCounts| {
        (e.network_name.clone(), e.service.as_ref().map(|s| s.1.clone()), e.task_name.clone(), e.task)
    };
    all.sort_by_cached_key(name);
    all
}

fn networks(view: &ClusterView, endpoints: &[EndpointCounts]) -> Vec<NetworkCounts> {
    let mut all: BTreeMap<_, NetworkCounts> = BTreeMap::new();
    for endpoint in endpoints {
        let key = (&endpoint.network_name, endpoint.network);
        let vni = view.networks.get(&endpoint.network).map(|n| n.vni);
        let Some(vni) = vni else { continue };
        let counts = all.entry(key).or_insert_with(|| NetworkCounts {
            network: endpoint.network,
            name: endpoint.network_name.clone(),
            vni,
            endpoints: 0,
            flows: 0,
            traffic: Traffic::default(),
        });
        counts.endpoints += 1;
        counts.flows += endpoint.flows;
    }
    all.into_values().collect()
}

fn services(view: &ClusterView, endpoints: &[EndpointCounts]) -> Vec<ServiceCounts> {
    let mut tasks: BTreeMap<ServiceId, BTreeMap<TaskId, bool>> = BTreeMap::new();
    let mut flows: BTreeMap<ServiceId, u64> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some((service, _)) = endpoint.service {
            tasks.entry(service).or_default().insert(endpoint.task, endpoint.is_ready());
            *flows.entry(service).or_default() += endpoint.flows;
        }
    }
    let counts = |service: &mesh_types::Service| {
        let own = tasks.get(&service.id);
        ServiceCounts {
            service: service.id,
            name: service.name.to_string(),
            tasks: own.map_or(0, BTreeMap::len),
            ready: own.map_or(0, |own| own.values().filter(|ready| **ready).count()),
            flows: flows.get(&service.id).copied().unwrap_or(0),
        }
    };
    let mut all: Vec<_> = view.services.values().map(counts).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn frontends(view: &ClusterView, traffic: &[ServiceTraffic]) -> Vec<FrontendCounts> {
    let networks: BTreeMap<_, _> = view.networks.values().map(|n| (n.vni, n.name.as_str())).collect();
    let counts = |counted: &ServiceTraffic| FrontendCounts {
        service: counted.service,
        service_name: view.services.get(&counted.service).map_or_else(String::new, |s| s.name.to_string()),
        frontend: counted.frontend,
        network_name: match counted.frontend {
            Frontend::Vip { vni, .. } => networks.get(&vni).copied().unwrap_or_default().to_owned(),
            Frontend::Published { .. } => String::new(),
        },
        traffic: counted.traffic,
    };
    let mut all: Vec<_> = traffic.iter().map(counts).collect();
    all.sort_by(|a, b| {
        (&a.service_name, a.service, a.frontend).cmp(&(&b.service_name, b.service, b.frontend))
    });
    all
}

#[cfg(test)]
mod tests;
