//! Attaching and detaching tasks.

use std::{
    net::IpAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use mesh_netlink::{NetNs, TaskLink};
use mesh_types::{
    Availability, ClusterView, Generation, InterfaceName, LocalEndpointId, Lookup, Mac, Name, Network,
    NetworkId, NodeId, Owner, PortConfig, Service, TaskDns, TaskId,
};
use tracing::{info, warn};

use crate::{
    Agent, AttachError, Attachment, Drain, LocalTask, NsIdentity, NsRef, SessionState,
    addresses::Taken,
    connect::Place,
    ending::{Ending, open_process},
    fault::point,
    host::TASK_LINK_PREFIX,
    host_ports::{check_families, settle},
    leases::boot_time,
    owned::TURN,
    planner::{Family, egress_address4, egress_address6},
    resolver,
    slow::watched,
    state::{MAX_ENDPOINTS, Reservation},
    uplinks::task_mtu,
};

/// Longest wait for attaches and detaches under way when the node leaves: a call to a manager and then some.
const CLOSE: Duration = Duration::from_secs(15);

/// Longest wait for a network or service that this node has not heard of.
const NEWS: Duration = Duration::from_millis(300);
/// How often it is looked for meanwhile.
const NEWS_POLL: Duration = Duration::from_millis(5);

/// What to attach, in the user's words.
#[derive(Debug, Clone)]
pub struct AttachSpec {
    /// The namespace.
    pub namespace: NsRef,
    /// The task's name; made from the service's name or the id when there is none.
    pub name: Option<Name>,
    /// The service, by name, id or prefix.
    pub service: Option<String>,
    /// The networks; those of the service when there are none.
    pub networks: Vec<String>,
    /// Static addresses, at most one per family; they need exactly one network.
    pub addresses: Vec<IpAddr>,
    /// Further names.
    pub aliases: Vec<Name>,
    /// Its share of its service's new flows, 1 to [`mesh_types::MAX_WEIGHT`].
    pub weight: u16,
    /// Seconds for which it may drain; its service's when there are none.
    pub drain_timeout_secs: Option<u32>,
    /// What its resolver is to be told, and its host name.
    pub dns: TaskDns,
    /// Who asks, if it is somebody who may ask again: it gets the same task, and a further network for a namespace that is
    /// a task already.
    pub owner: Option<Owner>,
    /// Name of the interface in the task; it needs exactly one network. The next free one when there is none.
    pub interface: Option<InterfaceName>,
    /// Address of that interface, likewise; made from its IP address when there is none.
    pub mac: Option<Mac>,
    /// Ports of this node that lead to this task alone. Each is asked for on all addresses or one; the mode is taken for host.
    pub host_ports: Vec<PortConfig>,
}

/// An attach that is decided but not yet made.
pub(crate) struct Plan {
    pub id: TaskId,
    pub name: Name,
    pub service: Option<Service>,
    pub networks: Vec<Network>,
    /// What is asked for on each.
    pub places: Vec<Place>,
    pub ids: Vec<LocalEndpointId>,
    pub generation: Generation,
    pub ns: NetNs,
    pub ns_id: NsIdentity,
}

/// A place on a network that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewLink<'a> {
    pub ns: &'a NetNs,
    pub task: TaskId,
    pub network: &'a Network,
    pub local_id: LocalEndpointId,
    pub generation: Generation,
    /// Name of the interface in the task.
    pub task_link: String,
    /// The families whose default routes lead here, where the namespace has none.
    pub ways_out: Vec<Family>,
    pub place: Place,
}

impl Agent {
    /// Attaches a namespace as a task; when it returns, the task's packets flow, and the others are being told.
    pub async fn attach(&self, spec: AttachSpec) -> Result<LocalTask, AttachError> {
        watched("attach", async {
            self.end_former(NsIdentity::from(spec.namespace.open()?.id()?)).await;
            point("former task");
            match spec.owner.clone() {
                Some(owner) => self.attach_for(&owner, spec).await,
                None => self.attach_new(spec).await,
            }
        })
        .await
    }

    /// The kernel gives the number of a namespace that is gone to the next one: a task that had it ends before another begins.
    async fn end_former(&self, ns_id: NsIdentity) {
        let former = self.lock().tasks.iter().find(|t| t.namespace_id == ns_id).cloned();
        if let Some(task) = former.filter(|task| !task.namespace_is_there())
            && let Some(Err(error)) = self.detach_id(task.id, None).await
        {
            warn!(task = %task.name, %error, "detach after a task's end");
        }
        self.turn(|r| r.namespace == ns_id && r.is_detach(), Instant::now() + TURN).await;
    }

    pub(crate) async fn attach_new(&self, spec: AttachSpec) -> Result<LocalTask, AttachError> {
        let ending = match spec.namespace {
            NsRef::Pid(pid) => Some(open_process(pid).map_err(|_| AttachError::Ended(pid))?),
            NsRef::Path(_) => None,
        };
        let ns = spec.namespace.open()?;
        let ns_id = NsIdentity::from(ns.id()?);
        if ns_id == NsIdentity::from(NetNs::current()?.id()?) {
            return Err(AttachError::OwnNamespace(spec.namespace));
        }
        self.replace_absent(&spec.namespace, spec.owner.as_ref()).await;
        self.wait_for_news(|view| self.places(view, &spec).is_ok()).await;
        self.check_places(&spec.host_ports).await?;
        let ticket = self.inner.tickets.fetch_add(1, Ordering::Relaxed);
        let plan = self.decide(&spec, ns, ns_id, ticket)?;
        // They come while addresses and links are made.
        self.want_tables().await;
        point("decided");
        let made = self.make(&spec, plan).await;
        self.lock().reserved.remove(&ticket);
        let task = match made {
            Ok(task) => task,
            Err(error) => {
                self.want_tables().await;
                return Err(error);
            }
        };
        let ending = match ending {
            Some(process) => Ending::Process(process),
            None => Ending::Namespace(Box::new(task.clone())),
        };
        self.watch_end(task.id, ending);
        // The service may have joined or left networks meanwhile.
        self.inner.services.notify_one();
        info!(task = %task.name, id = %task.id, namespace = %task.namespace, "attached");
        Ok(task)
    }

    /// What was decided on a manager a moment ago may still be on its way to this node: gives it a little time.
    pub(crate) async fn wait_for_news(&self, known: impl Fn(&ClusterView) -> bool) {
        let until = Instant::now() + NEWS;
        while !known(&self.view())
            && matches!(self.inner.session.state(), SessionState::Connected(_))
            && Instant::now() < until
        {
            tokio::time::sleep(NEWS_POLL).await;
        }
    }

    /// The service and the networks that the managers let such a task of this node belong to.
    fn places(
        &self,
        view: &ClusterView,
        spec: &AttachSpec,
    ) -> Result<(Option<Service>, Vec<Network>), AttachError> {
        if let Some(node) = view.nodes.get(&self.inner.node)
            && node.availability != Availability::Active
        {
            return Err(AttachError::Unavailable {
                node: node.name.clone(),
                availability: node.availability,
            });
        }
        let service = spec.service.as_deref().map(|s| view.service(s)).transpose()?.cloned();
        let networks = networks(view, spec, service.as_ref())?;
        Ok((service, networks))
    }

    /// Checks everything that can be checked before anything is made, and reserves names and ids.
    fn decide(
        &self,
        spec: &AttachSpec,
        ns: NetNs,
        ns_id: NsIdentity,
        ticket: u64,
    ) -> Result<Plan, AttachError> {
        spec.dns.check()?;
        if let Some(mac) = spec.mac.filter(|mac| !mac.is_unicast()) {
            return Err(AttachError::GroupMac(mac));
        }
        let id = TaskId::random();
        let mut state = self.lock();
        if state.leaving {
            return Err(AttachError::Leaving);
        }
        let view = state.view.clone();
        let (service, networks) = self.places(&view, spec)?;
        for (place, address) in spec.addresses.iter().enumerate() {
            let same = |a: &&IpAddr| Family::of(**a) == Family::of(*address);
            if let Some(other) = spec.addresses[..place].iter().find(same) {
                return Err(AttachError::TwoOfAFamily(*other, *address));
            }
        }
        if let Some(task) = state.tasks.iter().find(|t| t.namespace_id == ns_id) {
            let (namespace, task) = (spec.namespace.clone(), task.name.clone());
            return Err(AttachError::AlreadyAttached { namespace, task });
        }
        if let Some(other) = state.reserved.values().find(|r| r.namespace == ns_id) {
            let (namespace, task) = (spec.namespace.clone(), other.name.clone());
            return Err(AttachError::AlreadyAttached { namespace, task });
        }
        if let Some(owner) = &spec.owner
            && let Some(task) = state
                .tasks
                .iter()
                .find(|t| t.is_of(owner))
                .map(|t| &t.name)
                .or_else(|| state.reserved.values().find(|r| r.owners.contains(owner)).map(|r| &r.name))
        {
            let (namespace, task) = (spec.namespace.clone(), task.clone());
            return Err(AttachError::AlreadyAttached { namespace, task });
        }
        let name = match (&spec.name, &service) {
            (Some(name), _) => name.clone(),
            (None, service) => made_up_name(service.as_ref(), id),
        };
        let ids: Vec<_> = networks.iter().map(|n| n.id).collect();
        for network in &networks {
            let known = state.tasks.iter().chain(&state.absent);
            let local = known.filter(|t| t.attachments.iter().any(|a| a.network == network.id));
            let reserved = state.reserved.values().filter(|r| r.networks.contains(&network.id));
            if local.map(|t| &t.name).chain(reserved.map(|r| &r.name)).any(|n| same_name(n, &name)) {
                return Err(name_taken(&view, network, &name, self.inner.node));
            }
        }
        check_families(&spec.host_ports, networks.iter())?;
        let host_ports = settle(&state, &spec.host_ports)?;
        let (local_ids, generation) =
            state.free_ids(networks.len()).ok_or(AttachError::Full(MAX_ENDPOINTS))?;
        let reservation = Reservation {
            namespace: ns_id,
            name: name.clone(),
            networks: ids,
            ids: local_ids.clone(),
            owners: spec.owner.iter().cloned().collect(),
            host_ports: host_ports.clone(),
        };
        state.reserved.insert(ticket, reservation);
        let mut place = Place { by_service: service.is_some(), host_ports: Vec::new(), ..Place::of(spec) };
        if !spec.names_are_of_networks() {
            place.aliases.clear();
        }
        let mut places = vec![place; networks.len()];
        if let Some(first) = places.first_mut() {
            first.host_ports = host_ports;
        }
        Ok(Plan { id, name, service, networks, places, ids: local_ids, generation, ns, ns_id })
    }

    /// Whether another node's task has the name, as far as this node was told.
    pub(crate) fn check_name_elsewhere(&self, network: &Network, name: &Name) -> Result<(), AttachError> {
        let tables = self.inner.gossip.watch().borrow().clone();
        let table = tables.endpoints.get(&network.id).into_iter().flat_map(|t| t.values());
        let mut others = table.filter(|e| e.network == network.id && e.node != self.inner.node);
        match others.find(|e| same_name(&e.name, name)) {
            Some(other) => Err(name_taken(&self.view(), network, name, other.node)),
            None => Ok(()),
        }
    }

    /// Takes addresses, makes the links, programs the data path, tells the others; undoes all of it on an error.
    async fn make(&self, spec: &AttachSpec, plan: Plan) -> Result<LocalTask, AttachError> {
        let taken = self.take_addresses(&plan.networks, &spec.addresses, spec.owner.as_ref()).await?;
        point("addresses");
        let (health, health_note) = self.first_health(plan.service.as_ref());
        let mut task = LocalTask {
            id: plan.id,
            name: plan.name.clone(),
            service: plan.service.as_ref().map(|s| s.id),
            aliases: if spec.names_are_of_networks() { Vec::new() } else { spec.aliases.clone() },
            namespace: spec.namespace.clone(),
            namespace_id: plan.ns_id,
            attachments: Vec::new(),
            weight: spec.weight,
            drain_timeout_secs: spec.drain_timeout_secs,
            drain: Drain::None,
            health,
            health_note,
            follows_service: plan.service.is_some() && spec.networks.is_empty(),
            dns: resolver::settings(&spec.dns, &self.inner.forwarder.node_resolver()),
        };
        let linked = match self.make_links(&plan, &taken, &mut task).await {
            // It may have taken days, on a machine that was suspended.
            Ok(()) => self.check_term(&plan.networks, &taken),
            error => error,
        };
        let made = match linked {
            Ok(()) => match plan.networks.iter().try_for_each(|n| self.check_name_elsewhere(n, &plan.name)) {
                Ok(()) => self.bring_up(&plan.ns, &task).await,
                taken => taken,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            for problem in self.take_down(&[&task]).await.concat() {
                warn!(task = %task.name, problem, "roll back of attach");
            }
            self.give_back(taken).await;
            return Err(error);
        }
        // The managers have to know that its addresses are in use.
        self.inner.renewing.soon();
        Ok(task)
    }

    fn check_term(&self, networks: &[Network], taken: &[Taken]) -> Result<(), AttachError> {
        let (state, now) = (self.lock(), boot_time());
        let may = |t: &Taken| t.addresses.iter().all(|a| state.leases.may_use(t.network, *a, now));
        match networks.iter().zip(taken).find(|(_, t)| !may(t)) {
            Some((network, _)) => Err(AttachError::TermOver(network.name.clone())),
            None => Ok(()),
        }
    }

    pub(crate) async fn make_links(
        &self,
        plan: &Plan,
        taken: &[Taken],
        task: &mut LocalTask,
    ) -> Result<(), AttachError> {
        let networks: Vec<&Network> = plan.networks.iter().collect();
        let ways_out = Family::ALL.map(|family| (family, way_out(&networks, family)));
        for (at, ((network, taken), place)) in plan.networks.iter().zip(taken).zip(&plan.places).enumerate() {
            let led = ways_out.iter().filter(|(_, way)| *way == Some(at)).map(|(family, _)| *family);
            let new = NewLink {
                ns: &plan.ns,
                task: plan.id,
                network,
                local_id: plan.ids[at],
                generation: plan.generation,
                task_link: interface(&plan.ns, place.interface)?,
                ways_out: led.collect(),
                place: place.clone(),
            };
            let attachment = self.make_link(new, taken).await?;
            task.attachments.push(attachment);
        }
        Ok(())
    }

    /// Makes the veth of one place on a network; nothing is left of it on an error.
    pub(crate) async fn make_link(&self, new: NewLink<'_>, taken: &Taken) -> Result<Attachment, AttachError> {
        let NewLink { ns, network, local_id, .. } = new;
        let of = |family| taken.addresses.iter().copied().find(|a| Family::of(*a) == family);
        let out = |family| !network.internal && of(family).is_some();
        let mut attachment = Attachment {
            network: network.id,
            addresses: taken.addresses.clone(),
            fixed: taken.fixed.clone(),
            mac: new.place.mac.unwrap_or_else(|| {
                taken.addresses.first().map_or(Mac([2, 0, 0, 0, 0, 0]), |a| Mac::of_address(*a))
            }),
            local_id,
            generation: new.generation,
            egress4: out(Family::V4).then(|| egress_address4(local_id)).flatten(),
            egress6: out(Family::V6).then(|| egress_address6(local_id)).flatten(),
            link: format!("{TASK_LINK_PREFIX}{:08x}", link_number(new.task, network.id)),
            task_link: new.task_link,
            ifindex: 0,
            aliases: new.place.aliases,
            by_service: new.place.by_service,
            owner: new.place.owner,
            host_ports: new.place.host_ports,
        };
        let with_prefix = |address: &IpAddr| {
            let subnet = network.subnet_of(*address)?;
            IpNet::new(*address, subnet.net().prefix_len()).ok()
        };
        let gateway = |family: &Family| Some(network.subnet_of(of(*family)?)?.gateway());
        let wanted = TaskLink {
            host_name: &attachment.link,
            task_name: &attachment.task_link,
            ns,
            mac: attachment.mac,
            addresses: taken.addresses.iter().filter_map(with_prefix).collect(),
            default_gateways: new.ways_out.iter().filter_map(gateway).collect(),
            mtu: task_mtu(self.inner_mtu().await, network),
            egress: attachment.egress(),
        };
        self.open_way_out(&attachment).await?;
        point("way out");
        match self.inner.netlink.add_task_link(&wanted).await {
            Ok(made) => attachment.ifindex = made.ifindex,
            Err(error) => {
                if let Err(error) = self.close_way_out(&attachment).await {
                    warn!(link = attachment.link, %error, "roll back of a link");
                }
                return Err(error.into());
            }
        }
        point("link");
        Ok(attachment)
    }

    pub(crate) async fn bring_up(&self, ns: &NetNs, task: &LocalTask) -> Result<(), AttachError> {
        self.start_dns(ns, task).await?;
        point("name server");
        self.lock().tasks_mut().push(task.clone());
        self.reconcile().await?;
        point("announced");
        self.save_tasks()?;
        point("kept");
        Ok(())
    }

    /// Refuses further attaches, and waits for the end of those under way.
    pub(crate) async fn close(&self) {
        self.lock().leaving = true;
        let until = Instant::now() + CLOSE;
        while !self.lock().reserved.is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Lookup for LocalTask {
    const KIND: &'static str = "task";
    fn id_text(&self) -> String {
        self.id.to_string()
    }
    fn name_text(&self) -> &str {
        self.name.as_str()
    }
}

impl AttachSpec {
    /// Whether its aliases are names on the networks that it names, not on all that the task will be on: as runtimes mean
    /// them, which attach each network by itself.
    fn names_are_of_networks(&self) -> bool {
        self.owner.is_some() && !self.networks.is_empty()
    }
}

pub(crate) fn networks(
    view: &ClusterView,
    spec: &AttachSpec,
    service: Option<&Service>,
) -> Result<Vec<Network>, AttachError> {
    let mut networks: Vec<Network> = Vec::new();
    for reference in &spec.networks {
        let network = view.network(reference)?;
        if networks.iter().any(|n| n.id == network.id) {
            return Err(AttachError::NetworkTwice(network.name.clone()));
        }
        match service {
            _ if network.ingress => return Err(AttachError::Ingress(network.name.clone())),
            Some(service) if !service.networks.iter().any(|n| n.network == network.id) => {
                let (service, network) = (service.name.clone(), network.name.clone());
                return Err(AttachError::ServiceNotOn { service, network });
            }
            None if !network.attachable => return Err(AttachError::NotAttachable(network.name.clone())),
            _ => networks.push(network.clone()),
        }
    }
    if let (true, Some(service)) = (networks.is_empty(), service) {
        networks.extend(service.networks.iter().filter_map(|n| view.networks.get(&n.network)).cloned());
    }
    match networks.len() {
        0 => Err(AttachError::NoNetwork),
        1 => Ok(networks),
        _ if !spec.addresses.is_empty() => Err(AttachError::NeedsOneNetwork("a static address")),
        _ if spec.interface.is_some() => Err(AttachError::NeedsOneNetwork("an interface's name")),
        _ if spec.mac.is_some() => Err(AttachError::NeedsOneNetwork("a MAC")),
        _ => Ok(networks),
    }
}

/// Names are resolved without regard to case.
pub(crate) fn same_name(one: &Name, other: &Name) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

pub(crate) fn name_taken(view: &ClusterView, network: &Network, name: &Name, node: NodeId) -> AttachError {
    let node = view.nodes.get(&node).map_or(node.to_string(), |n| n.name.to_string());
    AttachError::NameTaken { name: name.clone(), network: network.name.clone(), node }
}

/// `web.1a2b3c4d`, or `task-1a2b3c4d`.
fn made_up_name(service: Option<&Service>, id: TaskId) -> Name {
    let tail: String = id.to_string().chars().rev().take(8).collect();
    let made = match service {
        Some(service) => {
            let head: String = service.name.as_str().chars().take(54).collect();
            Name::new(format!("{head}.{tail}"))
        }
        None => Name::new(format!("task-{tail}")),
    };
    made.unwrap_or_else(|_| Name::from(id))
}

/// A number for a link's name: random enough that two tasks of a node do not meet (an attach that does is refused).
fn link_number(task: TaskId, network: NetworkId) -> u32 {
    let mixed = task.as_u128() ^ network.as_u128().rotate_left(32);
    (mixed ^ (mixed >> 32) ^ (mixed >> 64) ^ (mixed >> 96)) as u32
}

/// Which of `networks` a task's default route of `family` leads to: the first with a way out, else the first. The data
/// path drops what an internal network must not send.
pub(crate) fn way_out(networks: &[&Network], family: Family) -> Option<usize> {
    let open = networks.iter().position(|n| !n.internal && family.is_on(n));
    open.or_else(|| networks.iter().position(|n| family.is_on(n)))
}

/// The interface's name: what was asked for, else a free one.
pub(crate) fn interface(ns: &NetNs, asked: Option<InterfaceName>) -> Result<String, AttachError> {
    match asked {
        Some(name) => Ok(name.as_str().to_owned()),
        None => free_interface(ns),
    }
}

/// The first of `eth0`, `eth1`, ... that the namespace does not have.
fn free_interface(ns: &NetNs) -> Result<String, AttachError> {
    let names = ns.run(interface_names)?;
    Ok((0..).map(|n| format!("eth{n}")).find(|name| !names.contains(name)).unwrap_or_default())
}

pub(crate) fn interface_names() -> Vec<String> {
    let interfaces = nix::net::if_::if_nameindex();
    let interfaces = interfaces.iter().flatten().map(|i| i.name().to_string_lossy().into_owned());
    interfaces.collect()
}
