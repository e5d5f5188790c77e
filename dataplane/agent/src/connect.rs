//! Joining a running task to one more network, and taking it from one.
//!
//! A task that was attached without naming networks follows its service: it joins the networks that the service joins.
//! Places that a task has because its service has them go when the service leaves the network; the last one stays, for
//! as long as the task does.

use std::{net::IpAddr, sync::atomic::Ordering, time::Duration};

use mesh_netlink::{NetNs, Netlink};
use mesh_types::{
    ClusterView, InterfaceName, LookupError, Mac, Name, Network, NetworkId, Owner, PortConfig, TaskId,
};
use thiserror::Error;
use tracing::{info, warn};

use crate::{
    Agent, AgentError, AttachError, AttachSpec, Attachment, LocalTask, TaskError,
    addresses::Taken,
    attach::{NewLink, interface, name_taken, same_name, way_out},
    host_ports::settle,
    one_line,
    planner::Family,
    state::{MAX_ENDPOINTS, Reservation},
};

/// How long after a failure a task is joined to its service's networks again.
const RETRY: Duration = Duration::from_secs(5);

/// Which task on which network.
#[derive(Debug, Clone)]
pub struct ConnectSpec {
    /// The task: its name, id, id prefix, namespace path or pid.
    pub task: String,
    /// The network, by name, id or prefix.
    pub network: String,
    /// Static addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Further names on this network alone.
    pub aliases: Vec<Name>,
}

/// What is asked for of a task's place on a network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Static addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Further names on this network alone.
    pub aliases: Vec<Name>,
    /// Whether it is for the service's sake.
    pub by_service: bool,
    /// Who asks.
    pub owner: Option<Owner>,
    /// The interface's name; the next free one when there is none.
    pub interface: Option<InterfaceName>,
    /// The interface's address; made from the IP address when there is none.
    pub mac: Option<Mac>,
    /// Ports of the node that lead there.
    pub host_ports: Vec<PortConfig>,
}

impl Place {
    /// A further place of a task that is attached.
    pub fn of(spec: &AttachSpec) -> Self {
        Self {
            addresses: spec.addresses.clone(),
            aliases: spec.aliases.clone(),
            by_service: false,
            owner: spec.owner.clone(),
            interface: spec.interface,
            mac: spec.mac,
            host_ports: spec.host_ports.clone(),
        }
    }
}

/// A task was not joined to a network or taken from it. Nothing has changed, but after [`ConnectError::Leftovers`].
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No such task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// No such network.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is there already.
    #[error("task {task} is on network {network} already")]
    On {
        /// The task.
        task: Name,
        /// The network.
        network: Name,
    },
    /// It is not there.
    #[error("task {task} is not on network {network}")]
    NotOn {
        /// The task.
        task: Name,
        /// The network.
        network: Name,
    },
    /// It would be on no network.
    #[error("network {network} is the only one of task {task}; `meshctl detach {task}` ends the task")]
    Last {
        /// The task.
        task: Name,
        /// The network.
        network: Name,
    },
    /// Something else is being done to it.
    #[error("task {0} is just being connected, disconnected or detached; try again")]
    Busy(Name),
    /// It cannot be attached there.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It is off the network, but something could not be removed.
    #[error("task {task} is off network {network}, but not all of it could be removed: {problems}")]
    Leftovers {
        /// The task.
        task: Name,
        /// The network.
        network: Name,
        /// What remains and why.
        problems: String,
    },
}

/// What brings a task in line with its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Join(NetworkId),
    Leave(NetworkId),
}

impl Agent {
    /// Joins a task to a network; when it returns, its packets flow there, and the others are being told.
    pub async fn connect(&self, spec: ConnectSpec) -> Result<LocalTask, ConnectError> {
        let task = self.task(&spec.task)?;
        self.wait_for_news(|view| view.network(&spec.network).is_ok()).await;
        let network = self.view().network(&spec.network)?.clone();
        let place = Place { addresses: spec.addresses, aliases: spec.aliases, ..Place::default() };
        self.join(&task, &network, place).await
    }

    /// Takes a task from a network. One that followed its service does so no more: it goes its own way.
    pub async fn disconnect(&self, task: &str, network: &str) -> Result<LocalTask, ConnectError> {
        let task = self.task(task)?;
        let network = self.view().network(network)?.clone();
        self.leave_network(&task, network.id, &network.name, true).await
    }

    pub(crate) async fn join(
        &self,
        task: &LocalTask,
        network: &Network,
        mut place: Place,
    ) -> Result<LocalTask, ConnectError> {
        let ns = task.namespace.open().map_err(AttachError::from)?;
        let ticket = self.inner.tickets.fetch_add(1, Ordering::Relaxed);
        let (local_id, generation) = self.reserve(ticket, task, network, &mut place)?;
        // It comes while address and link are made.
        self.want_tables().await;
        place.by_service |= self.is_service_network(task, network.id);
        let new = NewLink {
            ns: &ns,
            task: task.id,
            network,
            local_id,
            generation,
            task_link: String::new(),
            ways_out: Vec::new(),
            place,
        };
        let joined = self.make_place(task, new).await;
        self.lock().reserved.remove(&ticket);
        match joined {
            Ok(now) => {
                info!(task = %now.name, network = %network.name, "connected");
                Ok(now)
            }
            Err(error) => {
                self.want_tables().await;
                Err(error)
            }
        }
    }

    /// Checks what can be checked before anything is made, and reserves the name and an id.
    fn reserve(
        &self,
        ticket: u64,
        task: &LocalTask,
        network: &Network,
        place: &mut Place,
    ) -> Result<(mesh_types::LocalEndpointId, mesh_types::Generation), ConnectError> {
        let own = self.is_service_network(task, network.id);
        let mut state = self.lock();
        if state.leaving {
            return Err(AttachError::Leaving.into());
        }
        let now = state.tasks.iter().find(|t| t.id == task.id);
        let now = now.ok_or_else(|| TaskError::Unknown(task.name.to_string()))?;
        if now.attachments.iter().any(|a| a.network == network.id) {
            return Err(ConnectError::On { task: task.name.clone(), network: network.name.clone() });
        }
        if !network.attachable && !own {
            return Err(AttachError::NotAttachable(network.name.clone()).into());
        }
        if state.reserved.values().any(|r| r.namespace == task.namespace_id) {
            return Err(ConnectError::Busy(task.name.clone()));
        }
        let local = state.tasks.iter().filter(|t| t.attachments.iter().any(|a| a.network == network.id));
        let reserved = state.reserved.values().filter(|r| r.networks.contains(&network.id));
        let mut names = local.map(|t| &t.name).chain(reserved.map(|r| &r.name));
        if names.any(|name| same_name(name, &task.name)) {
            return Err(name_taken(&state.view, network, &task.name, self.inner.node).into());
        }
        // Runtimes ask for a container's ports with each of its networks: those that are open close with the last one.
        let mut open: Vec<PortConfig> = Vec::new();
        place.host_ports.retain(|port| {
            open.extend(now.opened(port));
            now.opened(port).is_none()
        });
        place.host_ports = settle(&state, &place.host_ports)?;
        place.host_ports.extend(open);
        let (ids, generation) = state.free_ids(1).ok_or(AttachError::Full(MAX_ENDPOINTS))?;
        let &[id] = ids.as_slice() else { return Err(AttachError::Full(MAX_ENDPOINTS).into()) };
        let reservation = Reservation {
            namespace: task.namespace_id,
            name: task.name.clone(),
            networks: vec![network.id],
            ids,
            owners: place.owner.iter().cloned().collect(),
            host_ports: place.host_ports.clone(),
        };
        state.reserved.insert(ticket, reservation);
        Ok((id, generation))
    }

    fn is_service_network(&self, task: &LocalTask, network: NetworkId) -> bool {
        let view = self.view();
        let service = task.service.and_then(|id| view.services.get(&id));
        service.is_some_and(|service| service.networks.iter().any(|on| on.network == network))
    }

    /// Takes addresses, makes the link, programs the data path, tells the others; undoes all of it on an error.
    async fn make_place(&self, task: &LocalTask, new: NewLink<'_>) -> Result<LocalTask, ConnectError> {
        let network = new.network;
        let taken = self
            .take_addresses(std::slice::from_ref(network), &new.place.addresses, new.place.owner.as_ref())
            .await?;
        let made = async {
            let addresses = taken.first().ok_or(AttachError::NoNetwork)?;
            let task_link = interface(new.ns, new.place.interface)?;
            self.make_link(NewLink { task_link, ..new.clone() }, addresses).await
        };
        let attachment = match made.await {
            Ok(attachment) => attachment,
            Err(error) => {
                self.give_back(taken).await;
                return Err(error.into());
            }
        };
        let mut added = false;
        let up = match self.check_name_elsewhere(network, &task.name) {
            Ok(()) => self.bring_place_up(task.id, &attachment, &mut added).await,
            Err(taken) => Err(taken.into()),
        };
        let Err(error) = up else {
            self.settle_routes(task.id, None).await;
            return self.task(&task.id.to_string()).map_err(ConnectError::from);
        };
        // Whoever has detached the task meanwhile has taken this place too if it was there, and gives its addresses back.
        let ours = !added || self.remove_place(task.id, network.id).is_some();
        for problem in self.take_place_down(&attachment).await {
            warn!(task = %task.name, network = %network.name, problem, "roll back of connect");
        }
        if ours {
            self.give_back(taken).await;
        }
        Err(error)
    }

    async fn bring_place_up(
        &self,
        id: TaskId,
        attachment: &Attachment,
        added: &mut bool,
    ) -> Result<(), ConnectError> {
        {
            let mut state = self.lock();
            let task = state.tasks_mut().iter_mut().find(|t| t.id == id);
            let task = task.ok_or_else(|| TaskError::Unknown(id.to_string()))?;
            task.attachments.push(attachment.clone());
            *added = true;
        }
        self.reconcile().await.map_err(AttachError::from)?;
        self.save_tasks().map_err(AttachError::from)?;
        Ok(())
    }

    pub(crate) async fn leave_network(
        &self,
        task: &LocalTask,
        id: NetworkId,
        network: &Name,
        own_way: bool,
    ) -> Result<LocalTask, ConnectError> {
        let (name, network) = (task.name.clone(), network.clone());
        let ticket = self.inner.tickets.fetch_add(1, Ordering::Relaxed);
        let attachment = {
            let mut state = self.lock();
            if state.reserved.values().any(|r| r.namespace == task.namespace_id) {
                return Err(ConnectError::Busy(name));
            }
            let now = state.tasks_mut().iter_mut().find(|t| t.id == task.id);
            let now = now.ok_or_else(|| TaskError::Unknown(name.to_string()))?;
            let Some(place) = now.attachments.iter().position(|a| a.network == id) else {
                return Err(ConnectError::NotOn { task: name, network });
            };
            if now.attachments.len() == 1 {
                return Err(ConnectError::Last { task: name, network });
            }
            let attachment = now.attachments.remove(place);
            now.follows_service &= !(own_way && attachment.by_service);
            // Until the link is gone, so that no new task has its routes.
            let held = Reservation {
                namespace: task.namespace_id,
                name: name.clone(),
                networks: Vec::new(),
                ids: vec![attachment.local_id],
                owners: attachment.owner.iter().cloned().collect(),
                host_ports: Vec::new(),
            };
            state.reserved.insert(ticket, held);
            attachment
        };
        // The others first: nobody should send any more when the link goes.
        self.announce().await;
        self.settle_routes(task.id, Some(&attachment.task_link)).await;
        let mut problems = self.take_place_down(&attachment).await;
        problems.extend(self.save_tasks().err().map(|e| e.to_string()));
        let Attachment { network: of, addresses, fixed, .. } = attachment;
        self.give_back(vec![Taken { network: of, addresses, fixed }]).await;
        self.lock().reserved.remove(&ticket);
        info!(task = %name, %network, "disconnected");
        if !problems.is_empty() {
            return Err(ConnectError::Leftovers { task: name, network, problems: problems.join("; ") });
        }
        Ok(self.task(&task.id.to_string())?)
    }

    fn remove_place(&self, task: TaskId, network: NetworkId) -> Option<Attachment> {
        let mut state = self.lock();
        let task = state.tasks_mut().iter_mut().find(|t| t.id == task)?;
        let place = task.attachments.iter().position(|a| a.network == network)?;
        Some(task.attachments.remove(place))
    }

    /// Removes what a place on a network was from this node; goes on past errors and tells them.
    async fn take_place_down(&self, attachment: &Attachment) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.reconcile().await.err().map(|e| e.to_string()));
        let unhooked = self.detach_programs(&[&attachment.link]).await;
        problems.extend(unhooked.into_iter().filter_map(Result::err).map(|e| e.to_string()));
        let removed = self.inner.netlink.remove_link(&attachment.link).await;
        problems.extend(removed.err().map(|e| e.to_string()));
        problems.extend(self.close_way_out(attachment).await.err().map(|e| e.to_string()));
        problems
    }

    /// Lets the task's default routes lead where attaching it to the networks it is on now would have them lead, away
    /// from the interface `leaving` too.
    async fn settle_routes(&self, id: TaskId, leaving: Option<&str>) {
        let (view, task) = {
            let state = self.lock();
            (state.view.clone(), state.tasks.iter().find(|t| t.id == id).cloned())
        };
        let Some(task) = task else { return };
        let settled = match task.namespace.open() {
            Ok(ns) => lead_routes(&ns, &view, &task, leaving).await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            warn!(task = %task.name, error = one_line(&error), "default routes");
        }
    }

    /// Brings tasks in line with their services whenever those change, until the agent stops.
    pub(crate) async fn follow_services(self) {
        loop {
            let (view, tasks) = (self.view(), self.tasks());
            let mut done = true;
            for (task, step) in tasks.iter().flat_map(|t| steps(&view, t).into_iter().map(move |s| (t, s))) {
                let (Step::Join(id) | Step::Leave(id)) = step;
                let Some(network) = view.networks.get(&id) else { continue };
                let stepped = match step {
                    Step::Join(_) => {
                        // It goes with the place that the task began with.
                        let owner = task.attachments.first().and_then(|a| a.owner.clone());
                        let place = Place { by_service: true, owner, ..Place::default() };
                        self.join(task, network, place).await
                    }
                    Step::Leave(_) => self.leave_network(task, id, &network.name, false).await,
                };
                if let Err(error) = stepped {
                    done = false;
                    warn!(task = %task.name, network = %network.name, error = one_line(&error), "follow the service");
                }
            }
            let news = self.inner.services.notified();
            match done {
                true => news.await,
                false => drop(tokio::time::timeout(RETRY, news).await),
            }
        }
    }
}

/// Joins before leaves, so that the task is always on a network.
fn steps(view: &ClusterView, task: &LocalTask) -> Vec<Step> {
    let Some(service) = task.service.and_then(|id| view.services.get(&id)) else { return Vec::new() };
    let there = |network: NetworkId| task.attachments.iter().any(|a| a.network == network);
    let wanted = || service.networks.iter().map(|on| on.network);
    let joins: Vec<_> = wanted().filter(|network| task.follows_service && !there(*network)).collect();
    let leaves = task.attachments.iter().filter(|a| a.by_service && wanted().all(|on| on != a.network));
    let stays = task.attachments.len() + joins.len() - leaves.clone().count();
    // The last place stays.
    let leaves = leaves.skip(usize::from(stays == 0)).map(|a| Step::Leave(a.network));
    joins.into_iter().map(Step::Join).chain(leaves).collect()
}

pub(crate) async fn lead_routes(
    ns: &NetNs,
    view: &ClusterView,
    task: &LocalTask,
    leaving: Option<&str>,
) -> mesh_netlink::Result<()> {
    let places: Vec<_> = task
        .attachments
        .iter()
        .filter_map(|attachment| Some((attachment, view.networks.get(&attachment.network)?)))
        .collect();
    let networks: Vec<&Network> = places.iter().map(|(_, network)| *network).collect();
    let links = task.attachments.iter().map(|a| a.task_link.as_str());
    let links: Vec<&str> = links.chain(leaving).collect();
    for family in Family::ALL {
        let Some(&(attachment, network)) = way_out(&networks, family).and_then(|at| places.get(at)) else {
            continue;
        };
        let gateway = network.subnets.iter().map(|s| s.gateway()).find(|g| Family::of(*g) == family);
        if let Some(gateway) = gateway {
            Netlink::lead_default_route(ns, &attachment.task_link, gateway, &links).await?;
        }
    }
    Ok(())
}

impl From<AgentError> for ConnectError {
    fn from(error: AgentError) -> Self {
        Self::Attach(error.into())
    }
}

#[cfg(test)]
mod tests;
