//! What a container is to be in the mesh: from its labels, checked while Docker still listens.

use std::{collections::BTreeMap, io::ErrorKind, net::UdpSocket, path::Path};

use mesh_api::v1::{self, MemberState, attach_request::Namespace};
use mesh_types::{Availability, ClusterView, Family, Name, Network, PortConfig, PublishAt, Service};
use tracing::{info, warn};

use crate::{
    book::KeptEndpoint,
    engine::{Container, DockerNetwork, EngineError},
    http::CallError,
    labels::Labels,
    places,
    plugin::{OWNER, Plugin, PluginError, owner},
    protocol::EndpointOnly,
};

/// Stands for the name server that the namespace had at 127.0.0.11 before ours: Docker's.
const DOCKERS_RESOLVER: &str = "127.0.0.10";

/// What a container is to be.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// The container.
    pub container: Container,
    /// Its name, where it is one in the mesh too.
    name: Option<Name>,
    network: Network,
    service: Option<Service>,
    /// By label.
    pub aliases: Vec<Name>,
}

impl Wishes {
    /// Whether the container will have an IPv6 address.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.network.subnets.iter().any(|subnet| subnet.family() == Family::V6)
    }
}

impl Plugin {
    /// The wishes of an endpoint's container. None if the engine does not answer at all: it starts containers itself before
    /// it serves anybody, so that whoever waited for it here would wait in vain.
    pub(crate) async fn wishes_now(
        &self,
        request: &EndpointOnly,
        kept: &KeptEndpoint,
        sandbox: &Path,
    ) -> Result<Option<Wishes>, PluginError> {
        match self.wishes(request, kept, sandbox).await {
            Err(PluginError::Engine(EngineError { source: CallError::Silent(_), .. })) => {
                warn!(endpoint = request.endpoint, "Docker does not answer; labels are read when it does");
                Ok(None)
            }
            wishes => wishes.map(Some),
        }
    }

    /// As [`Plugin::wishes_now`], of an engine that answers.
    pub(crate) async fn wishes(
        &self,
        request: &EndpointOnly,
        kept: &KeptEndpoint,
        sandbox: &Path,
    ) -> Result<Wishes, PluginError> {
        let (wishes, publish, view) = self.read_wishes(request, kept, sandbox).await?;
        self.check(&view, &wishes.network, wishes.name.as_ref(), kept, sandbox).await?;
        if let Some(service) = &wishes.service {
            self.publish(service, publish).await?;
        }
        Ok(wishes)
    }

    /// The wishes of a container that is attached: nothing of it is refused any more, nor published.
    pub(crate) async fn wishes_of_attached(
        &self,
        request: &EndpointOnly,
        kept: &KeptEndpoint,
        sandbox: &Path,
    ) -> Result<Wishes, PluginError> {
        self.read_wishes(request, kept, sandbox).await.map(|(wishes, _, _)| wishes)
    }

    /// What the container's labels mean, the ports that are to be open for its service, and the view that it was found in.
    async fn read_wishes(
        &self,
        request: &EndpointOnly,
        kept: &KeptEndpoint,
        sandbox: &Path,
    ) -> Result<(Wishes, Vec<PortConfig>, ClusterView), PluginError> {
        let (called, container) = self.container_of(request).await?;
        let mut labels: BTreeMap<String, String> = container.labels.clone();
        labels.extend(kept.options.clone());
        let labels = Labels::read(&labels)?;

        let place = self.place(&request.network).await?;
        let elsewhere = self.book.read(|pages| {
            let mut others = pages.endpoints.iter().filter(|(id, _)| **id != request.endpoint);
            others.any(|(_, other)| other.sandbox.as_deref() == Some(sandbox))
        });
        let find = |view: &ClusterView| {
            let network = places::by_id(view, place.network)?;
            let service = service(view, network, labels.service.as_deref(), elsewhere)?;
            Ok::<_, PluginError>((network.clone(), service))
        };
        let view = self.view_with(|view| find(view).is_ok()).await?;
        let (network, service) = find(&view)?;
        let name = Name::new(called).ok();
        let wishes = Wishes { container, name, network, service, aliases: labels.aliases };
        Ok((wishes, labels.publish, view))
    }

    /// The container that an endpoint is of, and its name.
    pub(crate) async fn container_of(
        &self,
        request: &EndpointOnly,
    ) -> Result<(String, Container), PluginError> {
        let page = self.engine.network(&request.network).await?;
        let other = || PluginError::OtherEngine(self.engine.socket().to_owned());
        let called = page.as_ref().and_then(|page| name_of(page, &request.endpoint)).ok_or_else(other)?;
        let container = self.engine.container(called).await?.ok_or_else(other)?;
        Ok((called.to_owned(), container))
    }

    /// What the daemon would refuse too, but later. A task of this container's former life, which nobody ended, is ended.
    async fn check(
        &self,
        view: &ClusterView,
        network: &Network,
        name: Option<&Name>,
        kept: &KeptEndpoint,
        sandbox: &Path,
    ) -> Result<(), PluginError> {
        self.check_node(view).await?;
        let mut tasks = self.mesh.tasks().await?;
        if let Some(name) = name {
            let named = tasks.local.iter().filter(|task| task.name.eq_ignore_ascii_case(name.as_str()));
            let former: Vec<String> = named.flat_map(|task| self.former_lives(task, sandbox)).collect();
            for endpoint in &former {
                info!(endpoint, %name, "Docker has forgotten an endpoint of a container that it starts again");
                self.end(endpoint).await?;
            }
            if !former.is_empty() {
                tasks = self.mesh.tasks().await?;
            }
            let own = |task: &str| {
                tasks.local.iter().any(|local| local.task_id == task && self.is_in(local, sandbox))
            };
            let gone = |node: &str| {
                let member = tasks.members.iter().find(|member| member.node_id == node);
                member.is_some_and(|m| matches!(m.state(), MemberState::Down | MemberState::Left))
            };
            let id = network.id.to_string();
            let mut there = tasks.endpoints.iter().filter(|e| e.network_id == id && !gone(&e.node_id));
            let same = |e: &&v1::Endpoint| e.name.eq_ignore_ascii_case(name.as_str()) && !own(&e.task_id);
            if let Some(other) = there.find(same) {
                let node = view.nodes.values().find(|node| node.id.to_string() == other.node_id);
                let node = node.map_or(other.node_id.clone(), |node| node.name.to_string());
                return Err(PluginError::NameTaken {
                    name: name.clone(),
                    network: network.name.clone(),
                    node,
                });
            }
        }
        for port in &kept.host_ports {
            place(port, network)?;
            let by_service = view.services.values().find(|s| s.ports.iter().any(|p| p.clashes(port)));
            if let Some(service) = by_service {
                return Err(PluginError::PortTaken { port: *port, by: format!("service {}", service.name) });
            }
            let clashes =
                |other: &v1::Port| PortConfig::try_from(other.clone()).is_ok_and(|p| p.clashes(port));
            let by_task = tasks.local.iter().find(|task| {
                // Its own, when it is attached already.
                task.host_ports.iter().any(clashes) && !self.is_in(task, sandbox)
            });
            if let Some(task) = by_task {
                return Err(PluginError::PortTaken { port: *port, by: format!("task {}", task.name) });
            }
        }
        Ok(())
    }

    /// Whether the managers let this node have tasks.
    async fn check_node(&self, view: &ClusterView) -> Result<(), PluginError> {
        if view.nodes.values().all(|node| node.availability == Availability::Active) {
            return Ok(());
        }
        let own = self.mesh.node().await?;
        let inactive = |view: &ClusterView| {
            let own = view.nodes.values().find(|node| node.id.to_string() == own);
            own.filter(|node| node.availability != Availability::Active).cloned()
        };
        if inactive(view).is_none() {
            return Ok(());
        }
        match inactive(&self.view_with(|view| inactive(view).is_none()).await?) {
            Some(node) => {
                let (node, availability) = (node.name, node.availability);
                Err(PluginError::Unavailable { node, availability })
            }
            None => Ok(()),
        }
    }

    /// The endpoints of Docker's that made a task, if it is not one of the sandbox: Docker has no two containers of a name.
    fn former_lives(&self, task: &v1::LocalTask, sandbox: &Path) -> Vec<String> {
        if self.is_in(task, sandbox) {
            return Vec::new();
        }
        task.owners.iter().filter_map(|owner| owner.strip_prefix(OWNER)).map(str::to_owned).collect()
    }

    /// Whether an endpoint in the sandbox made the task.
    fn is_in(&self, task: &v1::LocalTask, sandbox: &Path) -> bool {
        let mut endpoints = task.owners.iter().filter_map(|owner| owner.strip_prefix(OWNER));
        self.book.read(|pages| {
            let of = |id: &str| pages.endpoints.get(id).and_then(|kept| kept.sandbox.as_deref());
            endpoints.any(|id| of(id) == Some(sandbox))
        })
    }

    /// Opens the ports that are not open yet.
    async fn publish(&self, service: &Service, ports: Vec<PortConfig>) -> Result<(), PluginError> {
        for port in ports.into_iter().filter(|port| !service.ports.contains(port)) {
            if let Err(why) = self.mesh.publish(service.id, vec![port]).await {
                return Err(PluginError::Publish { port, service: service.name.clone(), why });
            }
        }
        Ok(())
    }

    /// Makes the namespace a task; it is there.
    pub(crate) async fn attach(
        &self,
        endpoint: &str,
        kept: &KeptEndpoint,
        wishes: &Wishes,
    ) -> Result<(), PluginError> {
        let request = attach_request(endpoint, kept, wishes);
        Ok(self.mesh.attach(request).await.map(drop)?)
    }

    /// Gives the task the names that Docker tells only of a container that is started.
    pub(crate) async fn tell_aliases(&self, endpoint: &str, wishes: &Wishes) {
        let told = match self.engine.aliases(&wishes.container.id, endpoint).await {
            Ok(Some(told)) => told,
            Ok(None) => return,
            Err(error) => {
                warn!(container = wishes.container.id, %error, "read the aliases of a container");
                return;
            }
        };
        // Its own name Docker gives too, which may end as no name of ours does.
        for alias in told.iter().filter(|alias| !wishes.container.names.contains(&format!("/{alias}"))) {
            if let Err(error) = Name::new(alias.as_str()) {
                warn!(container = wishes.container.id, %error, "an alias of Docker's is left out");
            }
        }
        let aliases = aliases(wishes, told);
        if aliases.len() > wishes.aliases.len()
            && let Err(error) = self.mesh.set_aliases(&owner(endpoint), aliases).await
        {
            warn!(container = wishes.container.id, %error, "give a container's aliases to its task");
        }
    }
}

/// The name of the container that an endpoint is of.
fn name_of<'a>(page: &'a DockerNetwork, endpoint: &str) -> Option<&'a str> {
    let all = page.containers.iter().flatten().map(|(_, other)| other);
    all.into_iter().find(|other| other.endpoint == endpoint).map(|other| other.name.as_str())
}

/// Whether the host has the address that the port is asked for at, and the network its family.
fn place(port: &PortConfig, network: &Network) -> Result<(), PluginError> {
    let PublishAt::Address(address) = port.at else { return Ok(()) };
    let family = Family::of(address);
    if !network.subnets.iter().any(|subnet| subnet.family() == family) {
        return Err(PluginError::PortFamily { port: *port, network: network.name.clone(), family });
    }
    // The kernel gives a socket no address that is not the host's; meshd itself looks again when it opens the port.
    match UdpSocket::bind((address, 0)) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            Err(PluginError::PortAddress { port: *port, address })
        }
        _ => Ok(()),
    }
}

/// The service that the label means. A container that is on another network of the mesh may be of a service there.
fn service(
    view: &ClusterView,
    network: &Network,
    reference: Option<&str>,
    elsewhere: bool,
) -> Result<Option<Service>, PluginError> {
    let found = match reference {
        Some(reference) => match view.service(reference) {
            Ok(service) => Some(service),
            Err(_) => {
                let (service, network) = (reference.to_owned(), network.name.clone());
                return Err(PluginError::NoSuchService { service, network });
            }
        },
        None => None,
    };
    let here = found.filter(|service| service.networks.iter().any(|on| on.network == network.id));
    match (found, here) {
        (Some(service), None) if !elsewhere => Err(PluginError::ServiceElsewhere {
            service: service.name.clone(),
            network: network.name.clone(),
        }),
        (_, None) if !network.attachable => Err(PluginError::NotAttachable(network.name.clone())),
        (_, here) => Ok(here.cloned()),
    }
}

fn attach_request(endpoint: &str, kept: &KeptEndpoint, wishes: &Wishes) -> v1::AttachRequest {
    let sandbox = kept.sandbox.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    v1::AttachRequest {
        namespace: Some(Namespace::Path(sandbox)),
        name: wishes.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        service: wishes.service.as_ref().map(|service| service.id.to_string()).unwrap_or_default(),
        networks: vec![wishes.network.id.to_string()],
        addresses: kept.addresses.iter().map(ToString::to_string).collect(),
        aliases: wishes.aliases.iter().map(ToString::to_string).collect(),
        dns: Some(v1::TaskDns { servers: vec![DOCKERS_RESOLVER.to_owned()], ..Default::default() }),
        owner: owner(endpoint),
        interface: kept.interface.clone(),
        host_ports: kept.host_ports.iter().map(|port| (*port).into()).collect(),
        mac: kept.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ..Default::default()
    }
}

/// Those by label and those of Docker, without the container's name, and without those that are no names. Nor those of its
/// service: compose gives each container the name of its part of the file, which is often that of the service in the mesh
/// too, and would then lead to this one container past the service's address.
fn aliases(wishes: &Wishes, told: Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = wishes.aliases.iter().map(ToString::to_string).collect();
    let member = |service: &Service| {
        let on = service.networks.iter().find(|on| on.network == wishes.network.id);
        let aliases = on.into_iter().flat_map(|on| on.aliases.clone());
        std::iter::once(service.name.clone()).chain(aliases).collect::<Vec<_>>()
    };
    let named: Vec<Name> =
        wishes.name.iter().cloned().chain(wishes.service.iter().flat_map(member)).collect();
    for alias in told {
        let own = named.iter().any(|name| name.as_str().eq_ignore_ascii_case(&alias));
        let known = own || all.iter().any(|other| other.eq_ignore_ascii_case(&alias));
        if !known && Name::new(alias.as_str()).is_ok() {
            all.push(alias);
        }
    }
    all
}
