//! Tasks of runtimes, which ask again: for the same task, for a further network of it, for its end.

use std::time::{Duration, Instant};

use mesh_types::{ClusterView, Name, Owner, PortConfig};
use tracing::warn;

use crate::{
    Agent, AttachError, AttachSpec, ConnectError, DetachError, LocalTask, NsIdentity, TaskError,
    attach::{networks, same_name},
    connect::Place,
    host_ports::{check_families, is_port},
    state::Reservation,
};

/// Longest wait for what is just being done for the same owner or namespace: a call to a manager and then some.
pub(crate) const TURN: Duration = Duration::from_secs(15);
const TURN_POLL: Duration = Duration::from_millis(5);

/// What an owner's detach did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// The task as it was before.
    pub task: LocalTask,
    /// Whether it ended; else others hold it on their networks.
    pub ended: bool,
}

impl LocalTask {
    /// Who made it and who joined it to further networks, the maker first.
    pub fn owners(&self) -> Vec<&Owner> {
        let mut owners: Vec<&Owner> = Vec::new();
        for owner in self.attachments.iter().filter_map(|a| a.owner.as_ref()) {
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners
    }

    /// Whether the owner made it, or joined it to a network.
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.attachments.iter().any(|a| a.owner.as_ref() == Some(owner))
    }
}

impl Agent {
    /// The task that the owner made or joined to a network.
    pub fn task_of(&self, owner: &Owner) -> Result<LocalTask, TaskError> {
        let task = self.lock().tasks.iter().find(|t| t.is_of(owner)).cloned();
        task.ok_or_else(|| TaskError::NoneOf(owner.clone()))
    }

    /// Attaches for an owner: answers its task if it is there with the same wishes, after what others took of its IPv6 is put
    /// back, and joins the task of the namespace to
    /// the networks if there is one.
    pub(crate) async fn attach_for(&self, owner: &Owner, spec: AttachSpec) -> Result<LocalTask, AttachError> {
        let until = Instant::now() + TURN;
        loop {
            let ns_id = NsIdentity::from(spec.namespace.open()?.id()?);
            let concerned = |r: &Reservation| r.namespace == ns_id || r.owners.contains(owner);
            if !self.turn(concerned, until).await {
                return Err(AttachError::Busy(spec.namespace));
            }
            let (theirs, here) = {
                let state = self.lock();
                let theirs = state.tasks.iter().find(|t| t.is_of(owner));
                if let Some(task) = theirs
                    && let Some(what) = differs(task, owner, &spec, ns_id, &state.view)
                {
                    let (owner, task) = (owner.clone(), task.clone());
                    return Err(AttachError::Owned {
                        owner,
                        namespace: task.namespace,
                        task: task.name,
                        what,
                    });
                }
                (theirs.cloned(), state.tasks.iter().find(|t| t.namespace_id == ns_id).cloned())
            };
            if let Some(task) = theirs {
                self.put_back_ipv6(&task).await?;
                return Ok(task);
            }
            let attached = match here {
                Some(task) => self.join_for(owner, &spec, &task).await,
                None => self.attach_new(spec.clone()).await,
            };
            match attached {
                // Somebody else was faster by a moment; what that came to is to be looked at.
                Err(AttachError::AlreadyAttached { .. }) if Instant::now() < until => {}
                Err(AttachError::Join(error))
                    if matches!(*error, ConnectError::Busy(_)) && Instant::now() < until => {}
                attached => return attached,
            }
            tokio::time::sleep(TURN_POLL).await;
        }
    }

    /// Gives the task other names on the networks that the owner joined it to, instead of those that it had there.
    pub async fn set_aliases(&self, owner: &Owner, aliases: Vec<Name>) -> Result<LocalTask, TaskError> {
        let task = self.task_of(owner)?;
        let rename = |task: &mut LocalTask| {
            for attachment in task.attachments.iter_mut().filter(|a| a.owner.as_ref() == Some(owner)) {
                attachment.aliases.clone_from(&aliases);
            }
        };
        self.change(&task.id.to_string(), rename).await
    }

    /// Takes the owner's task from the networks that it joined it to; the task ends when no other has joined it to any.
    /// `None` when it has none.
    pub async fn detach_owner(&self, owner: &Owner) -> Result<Option<Detached>, DetachError> {
        let until = Instant::now() + TURN;
        loop {
            if !self.turn(|r| r.owners.contains(owner), until).await {
                return Err(DetachError::Busy(owner.clone()));
            }
            let Ok(task) = self.task_of(owner) else {
                let absent = self.forget_absent(|t| t.is_of(owner)).await;
                return Ok(absent.map(|task| Detached { task, ended: true }));
            };
            if task.attachments.iter().all(|a| a.owner.as_ref() == Some(owner)) {
                if let Some(detached) = self.detach_id(task.id, Some(owner)).await {
                    return detached.map(|task| Some(Detached { task, ended: true }));
                }
            } else if self.leave_for(owner, &task).await? {
                return Ok(Some(Detached { task, ended: false }));
            }
            tokio::time::sleep(TURN_POLL).await;
        }
    }

    /// Whether nothing that is under way is concerned any more; false when it took too long.
    pub(crate) async fn turn(&self, concerned: impl Fn(&Reservation) -> bool, until: Instant) -> bool {
        while self.lock().reserved.values().any(&concerned) {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(TURN_POLL).await;
        }
        true
    }

    /// Joins the task to the networks, all or none.
    async fn join_for(
        &self,
        owner: &Owner,
        spec: &AttachSpec,
        task: &LocalTask,
    ) -> Result<LocalTask, AttachError> {
        let known = |view: &ClusterView| spec.networks.iter().all(|n| view.network(n).is_ok());
        self.wait_for_news(known).await;
        let view = self.view();
        let service = task.service.and_then(|id| view.services.get(&id));
        let other =
            |what| AttachError::Other { namespace: spec.namespace.clone(), task: task.name.clone(), what };
        if spec.name.as_ref().is_some_and(|name| !same_name(name, &task.name)) {
            return Err(other("name"));
        }
        if let Some(wanted) = &spec.service
            && Some(view.service(wanted)?.id) != task.service
        {
            return Err(other("service"));
        }
        let own = |id| service.is_some_and(|s| s.networks.iter().any(|on| on.network == id));
        // A network that its service is not on takes it as one that stands free.
        let on_all = spec.networks.iter().all(|n| view.network(n).is_ok_and(|n| own(n.id)));
        let networks = networks(&view, spec, service.filter(|_| on_all))?;
        self.check_places(&spec.host_ports).await?;
        let had = task.attachments.iter().filter_map(|a| view.networks.get(&a.network));
        check_families(&spec.host_ports, had.chain(&networks))?;
        let mut joined = Vec::new();
        let mut now = task.clone();
        for network in &networks {
            let mut place = Place::of(spec);
            if !joined.is_empty() {
                place.host_ports.clear();
            }
            match self.join(task, network, place).await {
                Ok(task) => {
                    joined.push(network);
                    now = task;
                }
                Err(error) => {
                    for network in joined {
                        let left = self.leave_network(task, network.id, &network.name, false).await;
                        if let Err(error) = left {
                            warn!(%owner, network = %network.name, %error, "roll back of attach");
                        }
                    }
                    return Err(match error {
                        ConnectError::Attach(error) => error,
                        error => AttachError::Join(Box::new(error)),
                    });
                }
            }
        }
        Ok(now)
    }

    /// Takes the task from the owner's networks; false if that has to be looked at again.
    async fn leave_for(&self, owner: &Owner, task: &LocalTask) -> Result<bool, DetachError> {
        let view = self.view();
        for attachment in task.attachments.iter().filter(|a| a.owner.as_ref() == Some(owner)) {
            let name = view.networks.get(&attachment.network).map(|n| n.name.clone());
            let name = name.unwrap_or_else(|| task.name.clone());
            match self.leave_network(task, attachment.network, &name, true).await {
                Ok(_) => {}
                Err(ConnectError::Leftovers { task, problems, .. }) => {
                    return Err(DetachError::Leftovers { task, problems });
                }
                // It is being changed, or the others have left meanwhile.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// What of its wishes the owner's task was attached without.
fn differs(
    task: &LocalTask,
    owner: &Owner,
    spec: &AttachSpec,
    ns_id: NsIdentity,
    view: &ClusterView,
) -> Option<&'static str> {
    let places = || task.attachments.iter().filter(|a| a.owner.as_ref() == Some(owner));
    let network = |reference: &String| view.network(reference).ok().map(|n| n.id);
    let on: Option<Vec<_>> = spec.networks.iter().map(network).collect();
    let same_networks = on.is_some_and(|on| {
        on.iter().all(|id| places().any(|a| a.network == *id)) && places().all(|a| on.contains(&a.network))
    });
    let service = spec.service.as_ref().map(|s| view.service(s).ok().map(|s| s.id));
    let aliases = || task.aliases.iter().chain(places().flat_map(|a| &a.aliases));
    let same_aliases = spec.aliases.iter().all(|alias| aliases().any(|a| same_name(a, alias)));
    // Some may have been opened with another network of the task.
    let opened = |port: &PortConfig| task.opened(port).is_some();
    let wanted = |had: &PortConfig| spec.host_ports.iter().any(|port| is_port(had, port));
    let same_ports = spec.host_ports.iter().all(opened) && places().flat_map(|a| &a.host_ports).all(wanted);
    let first = task.attachments.first().is_some_and(|a| a.owner.as_ref() == Some(owner));
    let dns = &spec.dns;
    let same_dns = !first
        || ((dns.servers.is_empty() || dns.servers == task.dns.servers)
            && (dns.hostname.is_none() || dns.hostname == task.dns.hostname));
    let wishes = [
        (task.namespace_id == ns_id, "namespace"),
        (spec.name.as_ref().is_none_or(|name| same_name(name, &task.name)), "name"),
        (service.is_none_or(|id| id.is_some() && id == task.service), "service"),
        (spec.networks.is_empty() || same_networks, "network"),
        (spec.addresses.iter().all(|a| places().any(|p| p.addresses.contains(a))), "address"),
        (spec.interface.is_none_or(|name| places().any(|a| a.task_link == name.as_str())), "interface"),
        (spec.mac.is_none_or(|mac| places().any(|a| a.mac == mac)), "MAC"),
        (same_aliases, "alias"),
        (same_ports, "port"),
        (same_dns, "name server or host name"),
    ];
    wishes.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
}

#[cfg(test)]
mod tests;
