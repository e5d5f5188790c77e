//! What the ends of flows are called.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_lb::{FlowEntry, Frontend, HOST_SERVICE_ADDRESS, HOST_SERVICE_ADDRESS6, PublishedOn, ServicePlan};
use mesh_types::{ClusterView, Endpoint, LocalEndpointId, NetworkId, NodeId, Protocol, ServiceId, Vni};

use super::NamedFlow;
use crate::LocalTask;

/// Names as of one moment.
pub(crate) struct FlowNames {
    node: NodeId,
    view: Arc<ClusterView>,
    fronts: HashMap<Frontend, Front>,
    by_port: HashMap<(u16, Protocol), Front>,
    endpoints: Vec<Endpoint>,
    /// Indexes into `endpoints`.
    places: HashMap<(Vni, IpAddr), usize>,
    local: HashMap<LocalEndpointId, usize>,
    networks: HashMap<Vni, NetworkId>,
    nodes: HashMap<IpAddr, NodeId>,
}

/// What is behind an address that clients speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Front {
    /// The service; or, for a port of the node that leads to one task, what stands for it.
    pub service: ServiceId,
    /// The port that its tasks listen on; none when it is the same.
    pub target: Option<u16>,
}

impl FlowNames {
    pub(crate) fn new(
        node: NodeId,
        view: Arc<ClusterView>,
        services: &BTreeMap<ServiceId, Arc<ServicePlan>>,
        endpoints: Vec<Endpoint>,
        tasks: &[LocalTask],
    ) -> Self {
        let vnis: HashMap<NetworkId, Vni> = view.networks.values().map(|n| (n.id, n.vni)).collect();
        let (mut fronts, mut by_port) = (HashMap::new(), HashMap::new());
        for (&service, plan) in services {
            for (&frontend, entry) in &plan.frontends {
                let front = Front { service, target: entry.target_port };
                fronts.insert(frontend, front);
                if let Frontend::Published { port, protocol, .. } = frontend {
                    by_port.entry((port, protocol)).or_insert(front);
                }
            }
        }
        let mut places = HashMap::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Some(&vni) = vnis.get(&endpoint.network) {
                places.extend(endpoint.addresses.iter().map(|address| ((vni, *address), index)));
            }
        }
        let own = tasks.iter().flat_map(|task| task.attachments.iter().map(move |a| (task.id, a)));
        let local = own.filter_map(|(task, a)| {
            let is = |e: &Endpoint| e.task == task && e.network == a.network;
            Some((a.local_id, endpoints.iter().position(is)?))
        });
        let local = local.collect();
        let nodes = view.nodes.values();
        let nodes = nodes.flat_map(|n| [(n.advertise_addr, n.id), (n.data_path_addr, n.id)]).collect();
        let networks = vnis.into_iter().map(|(network, vni)| (vni, network)).collect();
        Self { node, view, fronts, by_port, endpoints, places, local, networks, nodes }
    }

    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint that has an address of a network.
    pub(crate) fn endpoint(&self, vni: Vni, address: IpAddr) -> Option<&Endpoint> {
        self.endpoints.get(*self.places.get(&(vni, address))?)
    }

    /// An endpoint of this node.
    pub(crate) fn local(&self, id: LocalEndpointId) -> Option<&Endpoint> {
        self.endpoints.get(*self.local.get(&id)?)
    }

    /// All endpoints of this node.
    pub(crate) fn locals(&self) -> impl Iterator<Item = (LocalEndpointId, &Endpoint)> {
        self.local.iter().filter_map(|(id, index)| Some((*id, self.endpoints.get(*index)?)))
    }

    /// What is behind a VIP of a network, or an address and port of a node.
    pub(crate) fn front(&self, vni: Option<Vni>, spoken_to: SocketAddr, protocol: u8) -> Option<Front> {
        let address = spoken_to.ip();
        if let Some(vni) = vni {
            return self.fronts.get(&Frontend::Vip { vni, address }).copied();
        }
        let protocol =
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == protocol)?;
        let port = spoken_to.port();
        let any = if address.is_ipv4() { PublishedOn::AnyV4 } else { PublishedOn::AnyV6 };
        let on = |on| self.fronts.get(&Frontend::Published { on, port, protocol });
        // A socket of the node speaks to an address that stands for all of the node's.
        on(PublishedOn::Address(address))
            .or_else(|| on(any))
            .or_else(|| self.by_port.get(&(port, protocol)))
            .copied()
    }

    /// The service that a flow is for.
    pub(crate) fn service(&self, flow: &FlowEntry) -> Option<ServiceId> {
        let front = self.front(flow.vni, flow.front, flow.protocol).map(|front| front.service);
        let known = front.filter(|service| self.view.services.contains_key(service));
        known.or_else(|| self.task(flow)?.service)
    }

    /// The endpoint of the task that a flow was given to.
    pub(crate) fn task(&self, flow: &FlowEntry) -> Option<&Endpoint> {
        let task = flow.task.as_ref()?;
        self.endpoint(task.vni, task.address)
    }

    /// The endpoint of the task that began a flow.
    pub(crate) fn client(&self, flow: &FlowEntry) -> Option<&Endpoint> {
        match (flow.client_task, flow.vni) {
            (Some(id), _) => self.local(id),
            (None, Some(vni)) => self.endpoint(vni, flow.client.ip()),
            (None, None) => None,
        }
    }

    pub(crate) fn node_at(&self, address: IpAddr) -> Option<String> {
        Some(self.node_name(*self.nodes.get(&address)?))
    }

    pub(crate) fn node_name(&self, node: NodeId) -> String {
        self.view.nodes.get(&node).map_or_else(|| node.to_string(), |n| n.name.to_string())
    }

    pub(crate) fn service_name(&self, service: ServiceId) -> String {
        self.view.services.get(&service).map_or_else(|| service.to_string(), |s| s.name.to_string())
    }

    pub(crate) fn network_name(&self, vni: Vni) -> Option<String> {
        let network = self.view.networks.get(self.networks.get(&vni)?)?;
        Some(network.name.to_string())
    }

    /// The flow with the names of whatever takes part in it.
    pub(crate) fn named(&self, entry: FlowEntry) -> NamedFlow {
        let task = self.task(&entry);
        let entrance =
            entry.entrance.map_or_else(|| Some(self.node_name(self.node)), |vtep| self.node_at(vtep));
        let by_socket = [IpAddr::from(HOST_SERVICE_ADDRESS), IpAddr::from(HOST_SERVICE_ADDRESS6)];
        let client = self.client(&entry).map(|client| client.name.to_string());
        let client = client.or_else(|| match by_socket.contains(&entry.front.ip()) {
            true => entrance.clone(),
            false if entry.vni.is_none() => self.node_at(entry.client.ip()),
            false => None,
        });
        let front = self.front(entry.vni, entry.front, entry.protocol);
        let task_address = entry.task.map(|end| {
            let same = |a: &&IpAddr| a.is_ipv4() == entry.front.is_ipv4();
            let own = task.and_then(|task| task.addresses.iter().find(same)).copied();
            let port = end.port.or_else(|| front?.target).unwrap_or(entry.front.port());
            SocketAddr::new(own.unwrap_or(end.address), port)
        });
        NamedFlow {
            client,
            service: self.service(&entry).map(|service| self.service_name(service)),
            network: entry.task.map(|end| end.vni).or(entry.vni).and_then(|vni| self.network_name(vni)),
            task: task.map(|task| task.name.to_string()),
            task_address,
            node: entry.task.and_then(|end| self.node_at(end.vtep)),
            entrance,
            entry,
        }
    }
}
