//! Tasks that come back after a reboot: those whose namespaces have names, such as systemd and `ip netns` make them. Each
//! keeps its name and addresses until its namespace is there again.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use mesh_netlink::NetNs;
use mesh_types::{InterfaceName, Owner};
use tracing::{info, warn};

use crate::{
    Agent, AttachError, Attachment, Drain, LocalTask, NsIdentity, NsRef,
    addresses::Taken,
    attach::{Plan, interface_names},
    connect::Place,
    ending::Ending,
    leases::boot_time,
    state::Reservation,
};

/// How often the namespaces are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How long they are looked for; who makes namespaces at boot has done it by then.
const WAIT: Duration = Duration::from_secs(1800);

impl Agent {
    /// Keeps names and addresses for tasks of before a reboot. One whose address no manager ever heard of is forgotten: it
    /// may be another's by now.
    pub(crate) fn expect_back(&self, tasks: Vec<LocalTask>) {
        for task in tasks {
            let (mut state, now) = (self.lock(), boot_time());
            let on = |a: &Attachment| a.addresses.iter().map(|x| (a.network, *x)).collect::<Vec<_>>();
            let addresses: Vec<_> = task.attachments.iter().flat_map(on).collect();
            let known = task.attachments.iter().all(|a| state.view.networks.contains_key(&a.network));
            if !known || !addresses.iter().all(|(network, a)| state.leases.is_sure(*network, *a)) {
                warn!(task = %task.name, "its addresses were not confirmed before the reboot; attach it again");
                continue;
            }
            for (network, address) in &addresses {
                state.leases.adopt(*network, *address, now);
                state.use_held(*network, *address, true);
            }
            info!(task = %task.name, namespace = %task.namespace, "waits for its namespace after the reboot");
            state.absent.push(task);
        }
    }

    /// Attaches them as their namespaces come back, until all are there or it has taken too long.
    pub(crate) async fn bring_back(self) {
        let until = Instant::now() + WAIT;
        loop {
            let absent = self.lock().absent.clone();
            if absent.is_empty() {
                return;
            }
            for task in absent {
                match task.namespace.open() {
                    Ok(ns) if !is_own(&ns) => self.come_back(&task, ns).await,
                    _ if Instant::now() > until => {
                        warn!(task = %task.name, namespace = %task.namespace, "its namespace did not come back");
                        self.forget_absent(|t| t.id == task.id).await;
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Forgets a task that has not come back; its addresses are free.
    pub(crate) async fn forget_absent(&self, which: impl Fn(&LocalTask) -> bool) -> Option<LocalTask> {
        let task = {
            let mut state = self.lock();
            let place = state.absent.iter().position(which)?;
            state.absent.remove(place)
        };
        self.give_back(taken(&task)).await;
        if let Err(error) = self.save_tasks() {
            warn!(%error, "keep tasks");
        }
        Some(task)
    }

    async fn come_back(&self, task: &LocalTask, ns: NetNs) {
        match self.attach_again(task.clone(), ns).await {
            Ok(task) => info!(task = %task.name, id = %task.id, namespace = %task.namespace, "came back"),
            Err(error) => {
                warn!(task = %task.name, error = crate::one_line(&error), "the task cannot come back");
                self.forget_absent(|t| t.id == task.id).await;
            }
        }
    }

    async fn attach_again(&self, mut task: LocalTask, ns: NetNs) -> Result<LocalTask, AttachError> {
        task.namespace_id = NsIdentity::from(ns.id()?);
        if task.drain != Drain::None {
            // Its flows ended with the machine.
            task.drain = Drain::Done { cut: 0, by_node: false };
        }
        let ticket = self.inner.tickets.fetch_add(1, Ordering::Relaxed);
        let plan = self.plan_again(&task, ns, ticket)?;
        // What it was before the reboot is another matter.
        (task.health, task.health_note) = self.first_health(plan.service.as_ref());
        self.want_tables().await;
        let had = taken(&task);
        task.attachments.clear();
        let made = match self.make_links(&plan, &had, &mut task).await {
            Ok(()) => self.bring_up(&plan.ns, &task).await,
            Err(error) => Err(error),
        };
        self.lock().reserved.remove(&ticket);
        if let Err(error) = made {
            for problem in self.take_down(&[&task]).await.concat() {
                warn!(task = %task.name, problem, "roll back of a task that came back");
            }
            return Err(error);
        }
        // The others know it now; it is absent no more, and its addresses stay with it.
        self.lock().absent.retain(|t| t.id != task.id);
        self.save_tasks()?;
        self.watch_end(task.id, Ending::Namespace(Box::new(task.clone())));
        Ok(task)
    }

    fn plan_again(&self, task: &LocalTask, ns: NetNs, ticket: u64) -> Result<Plan, AttachError> {
        let there = ns.run(interface_names)?;
        let places = task.attachments.iter().map(|a| place_again(a, &there)).collect();
        let mut state = self.lock();
        if let Some(other) = state.tasks.iter().find(|t| t.namespace_id == task.namespace_id) {
            let (namespace, task) = (task.namespace.clone(), other.name.clone());
            return Err(AttachError::AlreadyAttached { namespace, task });
        }
        let view = state.view.clone();
        let networks: Vec<_> =
            task.attachments.iter().filter_map(|a| view.networks.get(&a.network)).cloned().collect();
        if networks.len() != task.attachments.len() {
            return Err(AttachError::NoNetwork);
        }
        let (ids, generation) =
            state.free_ids(networks.len()).ok_or(AttachError::Full(crate::state::MAX_ENDPOINTS))?;
        let reservation = Reservation {
            namespace: task.namespace_id,
            name: task.name.clone(),
            networks: networks.iter().map(|n| n.id).collect(),
            ids: ids.clone(),
            owners: task.owners().into_iter().cloned().collect(),
            host_ports: Vec::new(),
        };
        state.reserved.insert(ticket, reservation);
        let service = task.service.and_then(|id| view.services.get(&id)).cloned();
        Ok(Plan {
            id: task.id,
            name: task.name.clone(),
            service,
            networks,
            places,
            ids,
            generation,
            ns,
            ns_id: task.namespace_id,
        })
    }

    /// Somebody attaches the namespace anew, or asks anew for another: what was attached there before the reboot is
    /// forgotten.
    pub(crate) async fn replace_absent(&self, namespace: &NsRef, owner: Option<&Owner>) {
        if let NsRef::Path(_) = namespace {
            self.forget_absent(|t| t.namespace == *namespace).await;
        }
        if let Some(owner) = owner {
            self.forget_absent(|t| t.is_of(owner)).await;
        }
    }
}

/// As it was; under another name where the namespace has an interface of that one by now.
fn place_again(had: &Attachment, there: &[String]) -> Place {
    Place {
        addresses: Vec::new(),
        aliases: had.aliases.clone(),
        by_service: had.by_service,
        owner: had.owner.clone(),
        interface: InterfaceName::new(&had.task_link)
            .ok()
            .filter(|name| there.iter().all(|other| other != name.as_str())),
        mac: Some(had.mac),
        host_ports: had.host_ports.clone(),
    }
}

fn taken(task: &LocalTask) -> Vec<Taken> {
    let of =
        |a: &Attachment| Taken { network: a.network, addresses: a.addresses.clone(), fixed: a.fixed.clone() };
    task.attachments.iter().map(of).collect()
}

fn is_own(ns: &NetNs) -> bool {
    let own = NetNs::current().and_then(|own| own.id());
    match (ns.id(), own) {
        (Ok(id), Ok(own)) => NsIdentity::from(id) == NsIdentity::from(own),
        _ => true,
    }
}
