//! Services.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result};
use mesh_api::v1;
use mesh_types::{HealthCheck, Name, NetworkId, PortConfig, PublishAt, Service, format_seconds};
use serde::Serialize;

use super::{Cluster, ListenerReport, TaskReport, listener_lines, task_table};
use crate::{
    filter::Filtered,
    label,
    output::{Page, Table, list, short, time, yes_no},
    ports,
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
    /// The same for people, ranges in one.
    #[serde(skip)]
    pub ports_shown: Vec<String>,
    /// `client-ip` or `client-ip,TIMEOUT`.
    pub affinity: Option<String>,
    /// Whether nodes send to their own tasks first.
    pub prefer_local: bool,
    /// How long a draining task may keep its connections.
    pub drain_timeout_secs: u32,
    /// How its tasks are checked.
    pub health: Option<HealthReport>,
    /// How many tasks it has.
    pub task_count: usize,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: u64,
    /// The version of the cluster's state that changed it last.
    pub version: u64,
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

/// How a service's tasks are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// `tcp:PORT`, `http:PORT/PATH` or `cmd:COMMAND`.
    pub probe: String,
    /// Time from one check to the next.
    pub interval_secs: u32,
    /// Time after which a check has failed.
    pub timeout_secs: u32,
    /// Failures in a row that make a task unhealthy.
    pub retries: u32,
    /// Time for which failures of a new task do not count.
    pub start_period_secs: u32,
    /// The same for people.
    #[serde(skip)]
    pub shown: String,
}

impl HealthReport {
    fn new(check: &HealthCheck) -> Self {
        Self {
            probe: check.probe.to_string(),
            interval_secs: check.interval_secs,
            timeout_secs: check.timeout_secs,
            retries: check.retries,
            start_period_secs: check.start_period_secs,
            shown: check.to_string(),
        }
    }
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortReport {
    /// The port that clients use on every node.
    pub published: u16,
    /// The port that the tasks listen on.
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// `ingress` or `host`.
    pub mode: &'static str,
    /// The address that it is open on; with no interface either, all of them.
    pub address: Option<IpAddr>,
    /// The interface that it is open on.
    pub interface: Option<String>,
    /// `tunnel` or `direct`.
    pub return_mode: &'static str,
}

impl From<PortConfig> for PortReport {
    fn from(port: PortConfig) -> Self {
        Self {
            published: port.published,
            target: port.target,
            protocol: port.protocol.as_str(),
            mode: port.mode.as_str(),
            address: match port.at {
                PublishAt::Address(address) => Some(address),
                _ => None,
            },
            interface: match port.at {
                PublishAt::Interface(name) => Some(name.to_string()),
                _ => None,
            },
            return_mode: port.return_mode.as_str(),
        }
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
    /// Processes of nodes that its ports shadow.
    pub listeners: Vec<ListenerReport>,
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
            ports_shown: ports::arrows(&service.ports),
            affinity: service.affinity.map(|affinity| affinity.to_string()),
            prefer_local: service.prefer_local,
            drain_timeout_secs: service.drain_timeout_secs,
            health: service.health.as_ref().map(HealthReport::new),
            task_count: names.map_or(0, |cluster| cluster.tasks_of(service.id)),
            labels: service.labels.clone(),
            created_at: service.created_at,
            version: service.version,
        }
    }
}

impl Filtered for ServiceReport {
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
        match key {
            "mode" => self.endpoint_mode == value,
            "network" => self.networks.iter().any(|place| place.network == value),
            _ => self.ports.iter().any(|port| port.published.to_string() == value),
        }
    }
}

impl ServiceDetail {
    /// About `service`.
    pub fn new(cluster: &Cluster, service: &Service) -> Self {
        let listeners = cluster.listeners_on(&service.ports);
        let service = ServiceReport::new(cluster, service);
        let tasks = cluster.tasks().into_iter();
        let tasks = tasks.filter(|task| task.service_id.as_ref() == Some(&service.id)).collect();
        Self { service, tasks, listeners }
    }

    /// For people.
    pub fn page(&self) -> String {
        let service = &self.service;
        let mut page = Page::new();
        page.field("ID", &service.id)
            .field("Name", &service.name)
            .field("Endpoint mode", &service.endpoint_mode)
            .field("Ports", list(&service.ports_shown))
            .field("Affinity", service.affinity.as_deref().unwrap_or("none"))
            .field("Prefer local", yes_no(service.prefer_local))
            .field("Drain timeout", format_seconds(service.drain_timeout_secs))
            .field("Health check", service.health.as_ref().map_or("none", |check| &check.shown))
            .field("Labels", label::list(&service.labels))
            .field("Created", time(service.created_at))
            .field("Version", service.version);
        let mut networks = Table::new(&["NAME", "VIP", "ALIASES"]);
        for place in &service.networks {
            networks.row([place.network.clone(), list(&place.vips), list(&place.aliases)]);
        }
        page.section("Networks", networks)
            .section("Tasks", task_table(&self.tasks, short))
            .lines("Warnings", &listener_lines(&self.listeners));
        page.render()
    }
}
