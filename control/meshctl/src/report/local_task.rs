//! What only a task's own node knows of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, GetTaskRequest};
use mesh_types::{Lookup, format_seconds};
use serde::Serialize;

use super::{TaskReport, health};
use crate::{
    daemon::{Daemon, answer},
    output::{Page, Table, list, state},
};

/// A task of this node, as its verbs answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalTaskReport {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its share of its service's new flows.
    pub weight: u32,
    /// `ready`, `draining` or `drained`.
    pub state: &'static str,
    /// How long it may still drain; `null` unless it does.
    pub drain_left_secs: Option<u32>,
    /// How many flows were open when its drain timeout ended; `null` unless it is drained.
    pub flows_cut: Option<u64>,
    /// Established flows now; `null` in answers to changes.
    pub flows: Option<u64>,
    /// The last check of its health; `null` before there was one, and in answers to changes.
    pub last_check: Option<LastCheckReport>,
    /// What its resolver was told when it was attached, and its host name.
    pub dns: DnsReport,
    /// Ports of its node that lead to it alone.
    pub host_ports: Vec<String>,
    /// Who attached it, if it was a runtime: what that calls it.
    pub owners: Vec<String>,
}

/// A task's settings for names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsReport {
    /// Name servers outside; none: the node's.
    pub servers: Vec<String>,
    /// Domains that names are looked for in.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
    /// `null` if none was given.
    pub hostname: Option<String>,
}

impl DnsReport {
    fn new(dns: v1::TaskDns) -> Self {
        let v1::TaskDns { servers, search, options, hostname } = dns;
        Self { servers, search, options, hostname: Some(hostname).filter(|name| !name.is_empty()) }
    }

    fn fields(&self, page: &mut Page) {
        if let Some(hostname) = &self.hostname {
            page.field("Host name", hostname);
        }
        if !self.servers.is_empty() {
            page.field("Name servers", list(&self.servers));
        }
        if !self.search.is_empty() {
            page.field("Search domains", list(&self.search));
        }
        if !self.options.is_empty() {
            page.field("Resolver options", list(&self.options));
        }
    }
}

/// A check of a task's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastCheckReport {
    /// How long ago it ended.
    pub age_millis: u64,
    /// How long it took.
    pub took_millis: u64,
    /// Why it failed; `null` if it passed.
    pub failure: Option<String>,
}

impl LocalTaskReport {
    /// About `task`.
    pub fn new(task: &v1::LocalTask) -> Self {
        let (draining, drained) =
            (task.drain() == v1::DrainState::Draining, task.drain() == v1::DrainState::Drained);
        Self {
            id: task.task_id.clone(),
            name: task.name.clone(),
            weight: task.weight,
            state: match task.drain() {
                v1::DrainState::Unspecified => "ready",
                v1::DrainState::Draining => "draining",
                v1::DrainState::Drained => "drained",
            },
            drain_left_secs: draining.then_some(task.drain_left_secs),
            flows_cut: drained.then_some(task.flows_cut),
            flows: task.flows,
            last_check: task.last_check.as_ref().map(|check| LastCheckReport {
                age_millis: check.age_millis,
                took_millis: check.took_millis,
                failure: Some(check.failure.clone()).filter(|failure| !failure.is_empty()),
            }),
            dns: DnsReport::new(task.dns.clone().unwrap_or_default()),
            host_ports: task.host_ports.iter().map(host_port).collect(),
            owners: task.owners.clone(),
        }
    }
}

/// As it is written: `8080:80/tcp`.
fn host_port(port: &v1::Port) -> String {
    match mesh_types::PortConfig::try_from(port.clone()) {
        // That it is of this node alone is what its heading says.
        Ok(port) => mesh_types::PortConfig { mode: mesh_types::PublishMode::Ingress, ..port }.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A task, for `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskDetail {
    /// What every node knows.
    #[serde(flatten)]
    pub task: TaskReport,
    /// What its own node knows; `null` for tasks of other nodes.
    pub local: Option<LocalTaskReport>,
}

impl LastCheckReport {
    /// For people.
    fn shown(&self) -> String {
        let outcome = self.failure.as_deref().map_or("passed".to_owned(), |why| format!("failed: {why}"));
        let age = Duration::from_millis(self.age_millis).as_secs();
        format!("{outcome} ({} ms, {age} s ago)", self.took_millis)
    }
}

impl Lookup for TaskReport {
    const KIND: &'static str = "task";

    fn id_text(&self) -> String {
        self.id.clone()
    }

    fn name_text(&self) -> &str {
        &self.name
    }
}

impl TaskDetail {
    /// About `task`, with what the daemon knows if it is on this node.
    pub async fn fetch(daemon: &Daemon, task: &TaskReport) -> Result<Self> {
        let local = match &task.namespace {
            None => None,
            Some(_) => {
                let request = GetTaskRequest { reference: task.id.clone(), ..GetTaskRequest::default() };
                let what = || format!("cannot inspect task {}", task.name);
                let local = answer(daemon.local().get_task(request)).await.with_context(what)?;
                Some(LocalTaskReport::new(&local))
            }
        };
        Ok(Self { task: task.clone(), local })
    }

    /// For people.
    pub fn page(&self) -> String {
        let task = &self.task;
        let mut page = Page::new();
        page.field("ID", &task.id)
            .field("Name", &task.name)
            .field("Service", task.service.as_deref().unwrap_or("-"))
            .field("Node", &task.node)
            .field("State", state(self.local.as_ref().map_or(task.state, |local| local.state)))
            .field("Health", health(&task.health))
            .field("Weight", task.weight);
        if let Some(why) = &task.health_note {
            page.field("Why", why);
        }
        if let Some(check) = self.local.as_ref().and_then(|local| local.last_check.as_ref()) {
            page.field("Last check", check.shown());
        }
        if let Some(namespace) = &task.namespace {
            page.field("Namespace", namespace);
        }
        if let Some(local) = &self.local {
            if !local.host_ports.is_empty() {
                page.field("Ports of this node", list(&local.host_ports));
            }
            if !local.owners.is_empty() {
                page.field("Attached by", list(&local.owners));
            }
            local.dns.fields(&mut page);
            if let Some(flows) = local.flows {
                page.field("Connections", flows);
            }
            if let Some(left) = local.drain_left_secs {
                page.field("Drain time left", format_seconds(left));
            }
            if let Some(cut) = local.flows_cut {
                page.field("Connections cut", cut);
            }
        }
        let mut networks = Table::new(&["NAME", "ADDRESSES", "MAC", "ALIASES"]);
        for place in &task.networks {
            let (addresses, aliases) = (list(&place.addresses), list(&place.aliases));
            networks.row([place.network.clone(), addresses, place.mac.clone(), aliases]);
        }
        page.section("Networks", networks);
        page.render()
    }
}
