//! Services.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use anyhow::{Context as _, Result};
use mesh_api::v1;
use mesh_types::{Name, NetworkId, PortConfig, Service};
use serde::Serialize;

use super::{Cluster, TaskReport, task_table};
use crate::{
    label,
    output::{Page, Table, list, time},
};

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceReport {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `vip` or `dnsrr`.
    pub endpoint_mode: String,
    /// The networks that its tasks join.
    pub networks: Vec<ServiceNetworkReport>,
    /// Its published ports.
    pub ports: Vec<PortReport>,
    /// How many tasks it has.
    pub task_count: usize,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: u64,
}

/// A service's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceNetworkReport {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// Virtual addresses, one per family; none with `dnsrr`.
    pub vips: Vec<IpAddr>,
    /// Further names there.
    pub aliases: Vec<Name>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortReport {
    /// The port that clients use on every node.
    pub published: u16,
    /// The port that the tasks listen on.
    pub target: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Always `ingress`.
    pub mode: String,
}

impl From<PortConfig> for PortReport {
    fn from(port: PortConfig) -> Self {
        Self {
            published: port.published,
            target: port.target,
            protocol: port.protocol.as_str(),
            mode: port.mode.to_string(),
        }
    }
}

impl fmt::Display for PortReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*:{}->{}/{}", self.published, self.target, self.protocol)
    }
}

/// A service, for `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceDetail {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceReport,
    /// Its tasks.
    pub tasks: Vec<TaskReport>,
}

impl ServiceReport {
    /// About `service`.
    pub fn new(cluster: &Cluster, service: &Service) -> Self {
        Self::with_names(Some(cluster), service)
    }

    /// About the service that a change answers with; without `names`, networks are named by their ids.
    pub fn of_answer(names: Option<&Cluster>, service: v1::Service) -> Result<Self> {
        let service = Service::try_from(service).context("the daemon's answer makes no sense")?;
        Ok(Self::with_names(names, &service))
    }

    fn with_names(names: Option<&Cluster>, service: &Service) -> Self {
        let name = |id: NetworkId| names.map_or_else(|| id.short(), |cluster| cluster.network_name(id));
        let networks = service.networks.iter().map(|place| ServiceNetworkReport {
            network: name(place.network),
            network_id: place.network.to_string(),
            vips: place.vips.clone(),
            aliases: place.aliases.clone(),
        });
        Self {
            id: service.id.to_string(),
            name: service.name.to_string(),
            endpoint_mode: service.endpoint_mode.to_string(),
            networks: networks.collect(),
            ports: service.ports.iter().copied().map(PortReport::from).collect(),
            task_count: names.map_or(0, |cluster| cluster.tasks_of(service.id)),
            labels: service.labels.clone(),
            created_at: service.created_at,
        }
    }
}

impl ServiceDetail {
    /// About `service`.
    pub fn new(cluster: &Cluster, service: &Service) -> Self {
        let service = ServiceReport::new(cluster, service);
        let tasks = cluster.tasks().into_iter();
        let tasks = tasks.filter(|task| task.service_id.as_ref() == Some(&service.id)).collect();
        Self { service, tasks }
    }

    /// For people.
    pub fn page(&self) -> String {
        let service = &self.service;
        let mut page = Page::new();
        page.field("ID", &service.id)
            .field("Name", &service.name)
            .field("Endpoint mode", &service.endpoint_mode)
            .field("Ports", list(&service.ports))
            .field("Labels", label::list(&service.labels))
            .field("Created", time(service.created_at));
        let mut networks = Table::new(&["NAME", "VIP", "ALIASES"]);
        for place in &service.networks {
            networks.row([place.network.clone(), list(&place.vips), list(&place.aliases)]);
        }
        page.section("Networks", networks).section("Tasks", task_table(&self.tasks));
        page.render()
    }
}
