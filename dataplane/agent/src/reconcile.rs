//! The loop that makes the node agree with the plan, whatever changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_dns::{DnsServer, NetworkNames, TaskView};
use mesh_gossip::{KeyRing, MemberState};
use mesh_lb::{DataPath, HookKind};
use mesh_netlink::{NetNs, Netlink};
use mesh_types::{GOSSIP_PORT, NetworkId, TaskId};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::{
    Agent, AgentError, AttachError, LocalTask,
    agent::lock,
    host::{HOST_LINK, Host, VXLAN_LINK},
    names::network_names,
    planner::{Inputs, Tables, announcements, interest, plan, tables},
    session::{Told, one_line},
};

/// After a failed turn, and for what no event tells.
const RETRY: Duration = Duration::from_secs(2);
/// How long changes of the others' endpoints may wait to be kept on disk.
const KEEP_REMOTE: Duration = Duration::from_secs(1);

/// What only one turn at a time may touch.
pub(crate) struct Reconciler {
    data_path: DataPath,
    host: Host,
    missing: Vec<String>,
    attached: BTreeSet<String>,
    sockets_hooked: bool,
}

/// A task's name server.
pub(crate) struct Dns {
    view: watch::Sender<Arc<TaskView>>,
    _server: DnsServer,
}

impl Reconciler {
    pub(crate) fn new(data_path: DataPath, host: Host, missing: Vec<String>) -> Self {
        Self { data_path, host, missing, attached: BTreeSet::new(), sockets_hooked: false }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    pub(crate) fn stats(&self) -> Result<mesh_lb::Stats, mesh_lb::Error> {
        self.data_path.stats()
    }

    /// The task links that programs are attached to, an earlier daemon's included.
    pub(crate) fn attached_tasks(&self) -> BTreeSet<String> {
        self.data_path.attached_tasks().unwrap_or_else(|error| {
            warn!(%error, "list the attached programs");
            BTreeSet::new()
        })
    }

    /// Hooks the programs to the node's links and those of `tasks`; those already hooked stay.
    fn attach(&mut self, tasks: &[LocalTask]) -> Result<(), AgentError> {
        let uplink = self.host.uplink.name.clone();
        self.hook(&uplink, DataPath::attach_uplink)?;
        self.hook(VXLAN_LINK, DataPath::attach_vxlan)?;
        self.hook(HOST_LINK.0, DataPath::attach_host_link)?;
        if !self.sockets_hooked {
            self.data_path.attach_cgroup()?;
            self.sockets_hooked = true;
        }
        for attachment in tasks.iter().flat_map(|t| &t.attachments) {
            self.hook(&attachment.link, DataPath::attach_task)?;
        }
        Ok(())
    }

    fn hook(
        &mut self,
        link: &str,
        attach: impl FnOnce(&mut DataPath, &str) -> Result<HookKind, mesh_lb::Error>,
    ) -> Result<(), AgentError> {
        if !self.attached.contains(link) {
            let hook = attach(&mut self.data_path, link)?;
            debug!(link, ?hook, "programs attached");
            self.attached.insert(link.to_owned());
        }
        Ok(())
    }
}

impl Agent {
    /// Follows managers, gossip and the node's links until the agent stops.
    pub(crate) async fn run(self, mut told: mpsc::Receiver<Told>) {
        let stop = self.inner.stop.clone();
        let mut gossip = self.inner.gossip.watch();
        let (changed, mut links) = mpsc::channel(1);
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(follow_links(self.inner.netlink.clone(), changed)),
        );
        let mut retry: Option<Instant> = self.lock().remembered.as_ref().map(|(_, until)| *until);
        let mut keep: Option<Instant> = None;
        let mut host = Ok(());
        loop {
            let wake = [retry, keep].into_iter().flatten().min();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(told) = told.recv() => self.take_view(told).await,
                Ok(()) = gossip.changed() => { keep.get_or_insert(Instant::now() + KEEP_REMOTE); }
                Some(()) = links.recv() => host = self.refresh_host().await,
                // What failed is tried again.
                () = sleep => if host.is_err() { host = self.refresh_host().await },
            }
            if keep.is_some_and(|at| at <= Instant::now()) {
                keep = None;
                if let Err(error) = self.inner.files.save_remote(&self.remote_now()) {
                    warn!(%error, "keep endpoints");
                }
            }
            let reconciled = self.reconcile().await;
            retry = match host.as_ref().and(reconciled.as_ref()) {
                Ok(()) => {
                    if lock(&self.inner.unhealthy).take().is_some() {
                        info!("reconciled again");
                    }
                    self.lock().remembered.as_ref().map(|(_, until)| *until)
                }
                Err(error) => {
                    let error = one_line(error);
                    let told = Some(format!("the data path is behind: {error}"));
                    if std::mem::replace(&mut *lock(&self.inner.unhealthy), told.clone()) != told {
                        warn!(error, "reconcile");
                    }
                    Some(Instant::now() + RETRY)
                }
            };
        }
    }

    /// Brings the kernel, gossip and names in line with what is known now.
    pub(crate) async fn reconcile(&self) -> Result<(), AgentError> {
        let mut reconciler = self.inner.reconciler.lock().await;
        let (view, tasks, attaching) = {
            let state = self.lock();
            (state.view.clone(), state.tasks.clone(), state.attaching())
        };
        let tables = tables(self.inner.node, &view, &tasks, &self.remote());
        let desired = plan(&Inputs {
            node: self.inner.node,
            settings: reconciler.host.settings,
            host_addresses: &reconciler.host.addresses,
            view: &view,
            tasks: &tasks,
            tables: &tables,
        });
        let applied = reconciler.data_path.apply(&desired)?;
        debug!(?applied, version = view.version, "data path applied");
        // After the maps: what an earlier daemon attached goes on until then.
        reconciler.attach(&tasks)?;
        self.inner.gossip.set_interest(interest(self.inner.node, &view, &tasks, &attaching)).await;
        self.inner.gossip.announce(announcements(self.inner.node, &view, &tasks)).await;
        self.update_names(&tables).await;
        Ok(())
    }

    /// Tells the others what this node runs now.
    pub(crate) async fn announce(&self) {
        let (view, tasks) = {
            let state = self.lock();
            (state.view.clone(), state.tasks.clone())
        };
        self.inner.gossip.announce(announcements(self.inner.node, &view, &tasks)).await;
    }

    /// Asks for the tables of networks on which something is being attached.
    pub(crate) async fn want_tables(&self) {
        let wanted = {
            let state = self.lock();
            interest(self.inner.node, &state.view, &state.tasks, &state.attaching())
        };
        self.inner.gossip.set_interest(wanted).await;
    }

    /// The endpoints of the others: what gossip says, and for a while after a start what was kept, for members of whom
    /// gossip says nothing yet.
    fn remote(&self) -> Tables {
        let mut now = self.remote_now();
        let members = self.inner.gossip.watch().borrow().members.clone();
        let mut state = self.lock();
        if state.remembered.as_ref().is_some_and(|(_, until)| *until <= Instant::now()) {
            state.remembered = None;
        }
        let Some((remembered, _)) = &state.remembered else { return now };
        for (&scope, endpoints) in remembered {
            let known = now.entry(scope).or_default();
            let is_gone = |node| {
                members.get(&node).is_some_and(|m| matches!(m.state, MemberState::Down | MemberState::Left))
            };
            let missing = |e: &&mesh_types::Endpoint| {
                !is_gone(e.node)
                    && !known
                        .iter()
                        .any(|k| k.network == e.network && (k.task == e.task || k.addresses == e.addresses))
            };
            let kept: Vec<_> = endpoints.iter().filter(missing).cloned().collect();
            known.extend(kept);
        }
        now
    }

    async fn take_view(&self, told: Told) {
        let Told { view, leases, managers } = told;
        {
            let mut state = self.lock();
            if view.version < state.view.version {
                debug!(version = view.version, "an older state is ignored");
                return;
            }
            state.leases.replace(&leases);
            state.view = Arc::new(view.clone());
        }
        if let Err(error) = self.inner.files.save_view(&view, leases, managers) {
            warn!(%error, "keep the cluster's state");
        }
        self.apply_view_to_gossip().await;
    }

    pub(crate) async fn apply_view_to_gossip(&self) {
        let view = self.view();
        match KeyRing::new(view.gossip_keys.clone()) {
            Ok(keys) => self.inner.gossip.set_keys(keys).await,
            Err(error) => warn!(%error, "gossip keys from the managers"),
        }
        let others = view.nodes.values().filter(|n| n.id != self.inner.node);
        let peers = others.map(|n| (n.id, (n.advertise_addr, GOSSIP_PORT).into())).collect();
        self.inner.gossip.set_peers(peers).await;
    }

    /// Reads the node's links again, and lets the tasks' MTU follow the uplink's.
    async fn refresh_host(&self) -> Result<(), AgentError> {
        let options = &self.inner.options;
        let host = Host::ensure(&self.inner.netlink, options.data_path_addr, options.path).await?;
        let mut reconciler = self.inner.reconciler.lock().await;
        let before = std::mem::replace(&mut reconciler.host, host);
        // A link that somebody removed has come back without its programs.
        let now = &reconciler.host;
        let (old, new) = (before.settings, now.settings);
        let links = [
            (now.uplink.name.clone(), old.uplink_ifindex != new.uplink_ifindex),
            (VXLAN_LINK.to_owned(), old.vxlan_ifindex != new.vxlan_ifindex),
            (HOST_LINK.0.to_owned(), old.host_ifindex != new.host_ifindex),
        ];
        for (link, _) in links.iter().filter(|(_, changed)| *changed) {
            info!(link, "hooking the programs to a new link");
            reconciler.attached.remove(link);
        }
        let mtu = reconciler.host.settings.inner_mtu;
        drop(reconciler);
        if before.settings.inner_mtu != mtu {
            info!(mtu, "task MTU follows the uplink");
            self.set_task_mtu(mtu).await;
        }
        Ok(())
    }

    async fn set_task_mtu(&self, node_mtu: u32) {
        let (view, tasks) = (self.view(), self.tasks());
        for task in &tasks {
            for attachment in &task.attachments {
                let fixed = view.networks.get(&attachment.network).and_then(|n| n.mtu);
                let mtu = fixed.map_or(node_mtu, |m| node_mtu.min(m.into()));
                let outside = self.inner.netlink.set_mtu(&attachment.link, mtu).await;
                let inside = match task.namespace.open() {
                    Ok(ns) => Netlink::set_mtu_in(&ns, &attachment.task_link, mtu).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = outside.and(inside) {
                    warn!(task = %task.name, %error, "set the MTU");
                }
            }
        }
    }

    pub(crate) async fn inner_mtu(&self) -> u32 {
        self.inner.reconciler.lock().await.host.settings.inner_mtu
    }

    pub(crate) async fn detach_programs(&self, link: &str) -> Result<(), AgentError> {
        let mut reconciler = self.inner.reconciler.lock().await;
        reconciler.attached.remove(link);
        Ok(reconciler.data_path.detach_task(link)?)
    }

    /// Starts the name server in a task's namespace.
    pub(crate) async fn start_dns(&self, ns: &NetNs, task: &LocalTask) -> Result<(), AttachError> {
        let view = self.view();
        let tables = tables(self.inner.node, &view, &self.tasks(), &self.remote());
        let names = self.names_by_network(&tables);
        let (sender, receiver) = watch::channel(Arc::new(self.task_view(task, &names)));
        let server = DnsServer::start(ns.as_fd(), receiver, self.inner.forwarder.clone())?;
        self.inner.dns.lock().await.insert(task.id, Dns { view: sender, _server: server });
        Ok(())
    }

    pub(crate) async fn stop_dns(&self, task: TaskId) {
        self.inner.dns.lock().await.remove(&task);
    }

    async fn update_names(&self, tables: &Tables) {
        let names = self.names_by_network(tables);
        let tasks = self.tasks();
        let dns = self.inner.dns.lock().await;
        for task in &tasks {
            if let Some(dns) = dns.get(&task.id) {
                let view = self.task_view(task, &names);
                dns.view.send_if_modified(|current| {
                    let changed = **current != view;
                    *current = Arc::new(view);
                    changed
                });
            }
        }
    }

    fn names_by_network(&self, tables: &Tables) -> BTreeMap<NetworkId, Arc<NetworkNames>> {
        let view = self.view();
        let ids: BTreeSet<_> =
            self.tasks().iter().flat_map(|t| t.attachments.iter().map(|a| a.network)).collect();
        let networks = ids.iter().filter_map(|id| view.networks.get(id));
        let names = networks.map(|n| {
            let endpoints = tables.get(&n.id).into_iter().flatten();
            (n.id, Arc::new(network_names(&view, n, endpoints)))
        });
        names.collect()
    }

    fn task_view(&self, task: &LocalTask, names: &BTreeMap<NetworkId, Arc<NetworkNames>>) -> TaskView {
        let view = self.view();
        let on = || task.attachments.iter().map(|a| a.network);
        TaskView {
            networks: on().filter_map(|n| names.get(&n)).cloned().collect(),
            forward: on().any(|n| view.networks.get(&n).is_some_and(|n| !n.internal)),
        }
    }
}

/// Tells, at most one word ahead, that links or addresses changed.
async fn follow_links(netlink: Netlink, changed: mpsc::Sender<()>) {
    loop {
        let (links, addresses) = (netlink.watch_links(), netlink.watch_addresses());
        let (Ok(mut links), Ok(mut addresses)) = (links, addresses) else {
            warn!("links cannot be followed; trying again");
            tokio::time::sleep(RETRY).await;
            continue;
        };
        loop {
            let more = tokio::select! {
                event = links.next() => event.map(drop),
                event = addresses.next() => event.map(drop),
            };
            // A full channel means that a word is on its way already. The end of the events may have swallowed some.
            if let Err(mpsc::error::TrySendError::Closed(())) = changed.try_send(()) {
                return;
            }
            if more.is_none() {
                tokio::time::sleep(RETRY).await;
                break;
            }
        }
    }
}
