//! Networks.

use ipnet::IpNet;
use mesh_types::{Network, Subnet};
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr};

use super::{Cluster, PortReport, TaskReport};
use crate::{
    filter::Filtered,
    label,
    output::{Cell, Page, Table, list, short, state, time, yes_no},
    ports,
};

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkReport {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Always `overlay`.
    pub driver: &'static str,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Its subnets.
    pub subnets: Vec<SubnetReport>,
    /// Whether tasks of no service may join.
    pub attachable: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether it carries published ports.
    pub ingress: bool,
    /// The tasks' MTU in bytes if set by hand; else it follows each node's uplink.
    pub mtu: Option<u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: u64,
    /// The version of the cluster's state that changed it last.
    pub version: u64,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubnetReport {
    /// The range.
    pub subnet: IpNet,
    /// The gateway.
    pub gateway: IpAddr,
    /// The part that addresses are given out of; `null` for all of it.
    pub ip_range: Option<IpNet>,
    /// Addresses that are never given out, by what they are for.
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// A network, for `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkDetail {
    /// The network.
    #[serde(flatten)]
    pub network: NetworkReport,
    /// The nodes that have tasks on it.
    pub nodes: Vec<NetworkNode>,
    /// The services on it.
    pub services: Vec<NetworkService>,
    /// The tasks on it, with their addresses on it alone.
    pub tasks: Vec<TaskReport>,
}

/// A node that has tasks on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkNode {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where VXLAN packets reach it.
    pub address: Option<IpAddr>,
    /// How many tasks it has on the network.
    pub tasks: usize,
}

/// A service on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkService {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its virtual addresses on the network.
    pub vips: Vec<IpAddr>,
    /// Its published ports.
    pub ports: Vec<PortReport>,
    /// The same for people, ranges in one.
    #[serde(skip)]
    pub ports_shown: Vec<String>,
    /// How many tasks it has on the network.
    pub tasks: usize,
}

impl NetworkReport {
    /// About `network`.
    pub fn new(network: &Network) -> Self {
        let subnets = network.subnets.iter();
        Self {
            id: network.id.to_string(),
            name: network.name.to_string(),
            driver: "overlay",
            vni: network.vni.get(),
            subnets: subnets.map(|subnet| SubnetReport::new(network, subnet)).collect(),
            attachable: network.attachable,
            internal: network.internal,
            ingress: network.ingress,
            mtu: network.mtu,
            labels: network.labels.clone(),
            created_at: network.created_at,
            version: network.version,
        }
    }

    /// `attachable`, `internal`, `ingress`, as far as they are so.
    pub fn flags(&self) -> String {
        let flags = [(self.attachable, "attachable"), (self.internal, "internal"), (self.ingress, "ingress")];
        let set: Vec<_> = flags.into_iter().filter_map(|(set, flag)| set.then_some(flag)).collect();
        if set.is_empty() { "-".to_owned() } else { set.join(", ") }
    }
}

impl Filtered for NetworkReport {
    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.labels)
    }

    fn is(&self, key: &str, value: &str) -> bool {
        let flag = match key {
            "attachable" => self.attachable,
            "internal" => self.internal,
            "ingress" => self.ingress,
            _ => return self.driver == value,
        };
        flag == (value == "true")
    }
}

impl SubnetReport {
    fn new(network: &Network, subnet: &Subnet) -> Self {
        let net = subnet.net();
        let aux = network.aux_addresses.iter().filter(|(_, address)| net.contains(*address));
        Self {
            subnet: net,
            gateway: subnet.gateway(),
            ip_range: network.ip_ranges.iter().find(|range| net.contains(*range)).copied(),
            aux_addresses: aux.map(|(name, address)| (name.clone(), *address)).collect(),
        }
    }

    /// For people.
    fn line(&self) -> String {
        let range = self.ip_range.map(|range| format!(", range {range}")).unwrap_or_default();
        let aux: Vec<_> = self.aux_addresses.iter().map(|(name, a)| format!("{name}={a}")).collect();
        let aux = if aux.is_empty() { String::new() } else { format!(", kept out {}", aux.join(" ")) };
        format!("{}, gateway {}{range}{aux}", self.subnet, self.gateway)
    }
}

impl NetworkDetail {
    /// About `network`.
    pub fn new(cluster: &Cluster, network: &Network) -> Self {
        let id = network.id.to_string();
        let tasks: Vec<TaskReport> = cluster
            .tasks()
            .into_iter()
            .map(|mut task| {
                task.networks.retain(|on| on.network_id == id);
                task
            })
            .filter(|task| !task.networks.is_empty())
            .collect();

        let mut nodes: BTreeMap<&str, NetworkNode> = BTreeMap::new();
        for task in &tasks {
            let address = task.node_id.parse().ok().and_then(|id| cluster.view.nodes.get(&id));
            let node = nodes.entry(&task.node).or_insert_with(|| NetworkNode {
                id: task.node_id.clone(),
                name: task.node.clone(),
                address: address.map(|node| node.data_path_addr),
                tasks: 0,
            });
            node.tasks += 1;
        }
        let mut services: Vec<_> = cluster
            .view
            .services
            .values()
            .filter_map(|service| {
                let place = service.networks.iter().find(|place| place.network == network.id)?;
                let id = service.id.to_string();
                Some(NetworkService {
                    name: service.name.to_string(),
                    vips: place.vips.clone(),
                    ports: service.ports.iter().copied().map(PortReport::from).collect(),
                    ports_shown: ports::arrows(&service.ports),
                    tasks: tasks.iter().filter(|task| task.service_id.as_ref() == Some(&id)).count(),
                    id,
                })
            })
            .collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let nodes = nodes.into_values().collect();
        Self { network: NetworkReport::new(network), nodes, services, tasks }
    }

    /// For people.
    pub fn page(&self) -> String {
        let network = &self.network;
        let mut page = Page::new();
        page.field("ID", &network.id)
            .field("Name", &network.name)
            .field("Driver", network.driver)
            .field("VNI", network.vni);
        for subnet in &network.subnets {
            page.field("Subnet", subnet.line());
        }
        page.field("Attachable", yes_no(network.attachable))
            .field("Internal", yes_no(network.internal))
            .field("Ingress", yes_no(network.ingress))
            .field("MTU", network.mtu.map_or("follows the uplink".to_owned(), |mtu| mtu.to_string()))
            .field("Labels", label::list(&network.labels))
            .field("Created", time(network.created_at))
            .field("Version", network.version);

        let mut nodes = Table::new(&["NAME", "ADDRESS", "TASKS"]);
        for node in &self.nodes {
            let address = node.address.map_or("-".to_owned(), |address| address.to_string());
            nodes.row([node.name.clone(), address, node.tasks.to_string()]);
        }
        let mut services = Table::new(&["NAME", "VIP", "TASKS", "PORTS"]);
        for service in &self.services {
            let vips = if service.vips.is_empty() { "-".to_owned() } else { list(&service.vips) };
            services.row([service.name.clone(), vips, service.tasks.to_string(), list(&service.ports_shown)]);
        }
        let mut tasks = Table::new(&["ID", "NAME", "SERVICE", "NODE", "ADDRESS", "STATE"]);
        for task in &self.tasks {
            tasks.row([
                Cell::new(short(&task.id)),
                Cell::new(&task.name),
                Cell::new(task.service.as_deref().unwrap_or("-")),
                Cell::new(&task.node),
                Cell::new(list(task.addresses())),
                state(task.state),
            ]);
        }
        page.section("Nodes", nodes).section("Services", services).section("Tasks", tasks);
        page.render()
    }
}
