//! Makes the node agree with the plan, whatever changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_dns::{DnsServer, NetworkNames, Sockets, TaskForwarder, TaskView};
use mesh_gossip::{Announcement, Gossip, Interest};
use mesh_lb::{
    DataPath, FlowReader, FlowTimeouts, HookKind, ProgramStats, ServicePlan, ServiceTraffic, Traffic,
};
use mesh_netlink::NetNs;
use mesh_types::{ClusterView, LocalEndpointId, NetworkId, ServiceId, TaskId};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    Agent, AgentError, AttachError, LocalTask,
    fault::point,
    heard::HeardLog,
    host::{HOST_LINK, Host, VXLAN_LINK},
    planner::{Inputs, Planned, Planner, announcements, interest},
    resolver::{self, NameServer},
    slow::watched,
    traffic::{Place, Totals},
    uplinks::Uplink,
};

/// How long endpoints of before a restart are believed without news of them, where there could be some.
pub(crate) const REMEMBER: Duration = Duration::from_secs(5);
/// How many flows are looked at for their age at a time: some milliseconds' worth.
const AGE_BUDGET: usize = 16_384;

/// What only one turn at a time may touch.
pub(crate) struct Reconciler {
    data_path: DataPath,
    planner: Planner,
    heard: HeardLog,
    host: Host,
    missing: Vec<String>,
    /// Version of the decided state that the data path and the names follow.
    applied: u64,
    /// Links that programs are attached to, with their numbers: one that came back is another one.
    attached: BTreeMap<String, u32>,
    /// The uplinks as they were when all was attached.
    uplinks_hooked: Vec<Uplink>,
    sockets_hooked: bool,
    /// Whose the endpoints are that the data path holds.
    places: BTreeMap<LocalEndpointId, Place>,
    totals: Totals,
}

/// What gossip was told last, so that it is told again only what changed.
#[derive(Default)]
pub(crate) struct Spoken {
    interest: Interest,
    announcements: Arc<Vec<Announcement>>,
}

impl Spoken {
    async fn want(&mut self, gossip: &Gossip, interest: &Interest) {
        if self.interest != *interest {
            gossip.set_interest(interest.clone()).await;
            self.interest = interest.clone();
        }
    }

    async fn announce(&mut self, gossip: &Gossip, announcements: Arc<Vec<Announcement>>) {
        if self.announcements != announcements {
            gossip.announce(announcements.to_vec()).await;
            self.announcements = announcements;
        }
    }
}

type Names = BTreeMap<NetworkId, Arc<NetworkNames>>;

/// A task's name server.
pub(crate) struct Dns {
    view: watch::Sender<Arc<TaskView>>,
    forwarder: Arc<TaskForwarder>,
    _server: DnsServer,
}

impl Reconciler {
    pub(crate) fn new(
        data_path: DataPath,
        planner: Planner,
        heard: HeardLog,
        host: Host,
        missing: Vec<String>,
    ) -> Self {
        Self {
            data_path,
            planner,
            heard,
            host,
            missing,
            applied: 0,
            attached: BTreeMap::new(),
            uplinks_hooked: Vec::new(),
            sockets_hooked: false,
            places: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    pub(crate) fn set_flow_timeouts(&mut self, timeouts: FlowTimeouts) {
        self.data_path.set_flow_timeouts(timeouts);
    }

    /// What is decided but cannot be done on this node, one line each.
    pub(crate) fn findings(&self) -> Vec<String> {
        let planned = self.planner.last().into_iter();
        let findings = planned.flat_map(|planned| planned.findings.iter().chain(&planned.host_findings));
        findings.map(ToString::to_string).collect()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) fn stats(&self) -> Result<mesh_lb::Stats, mesh_lb::Error> {
        self.data_path.stats()
    }

    /// What each endpoint of this node has counted; what they counted since the last look is added to the sums.
    pub(crate) fn look(&mut self) -> Result<BTreeMap<LocalEndpointId, Traffic>, mesh_lb::Error> {
        let traffic: BTreeMap<_, _> = self.data_path.endpoint_traffic()?.into_iter().collect();
        let of_place = |(id, place): (&LocalEndpointId, &Place)| Some((*place, *traffic.get(id)?));
        self.totals.look(self.places.iter().filter_map(of_place).collect());
        Ok(traffic)
    }

    /// What was added up so far.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What clients of each virtual address and published port said and heard by way of this node.
    pub(crate) fn service_traffic(&self) -> Result<Vec<ServiceTraffic>, mesh_lb::Error> {
        self.data_path.service_traffic()
    }

    /// What the programs took while the kernel counted that.
    pub(crate) fn program_stats(&self) -> Result<Vec<ProgramStats>, mesh_lb::Error> {
        self.data_path.program_stats()
    }

    /// Looks once more at what endpoints counted that are to go, and takes note of those that come.
    fn follow_places(&mut self, tasks: &[LocalTask], view: &ClusterView) {
        let places = |task: &LocalTask| {
            let id = task.id;
            task.attachments.iter().map(move |a| (a.local_id, (id, a.network))).collect::<Vec<_>>()
        };
        let now: BTreeMap<_, _> = tasks.iter().flat_map(places).collect();
        if self.places.iter().any(|(id, place)| now.get(id) != Some(place))
            && let Err(error) = self.look()
        {
            debug!(%error, "count what endpoints that go have carried");
        }
        self.places = now;
        self.totals.keep(|network| view.networks.contains_key(&network));
    }

    pub(crate) fn counts(&self) -> Result<mesh_lb::Counts, mesh_lb::Error> {
        self.data_path.counts()
    }

    /// Established flows of each endpoint of this node that has any.
    pub(crate) fn served_flows(&self) -> BTreeMap<LocalEndpointId, u64> {
        self.data_path.served_flows()
    }

    /// Reads the flows, without this one's turn.
    pub(crate) fn flow_reader(&self) -> Result<FlowReader, mesh_lb::Error> {
        self.data_path.flow_reader()
    }

    /// The data path, for runs by hand.
    pub(crate) fn data_path(&mut self) -> &mut DataPath {
        &mut self.data_path
    }

    /// The same to look at.
    pub(crate) fn data_path_seen(&self) -> &DataPath {
        &self.data_path
    }

    /// What clients can speak to on this node, as it was planned last.
    pub(crate) fn services(&self) -> BTreeMap<ServiceId, Arc<ServicePlan>> {
        self.planner.last().map(|planned| planned.desired.services.clone()).unwrap_or_default()
    }

    /// The task links that programs are attached to, an earlier daemon's included.
    pub(crate) fn attached_tasks(&self) -> BTreeSet<String> {
        self.data_path.attached_tasks().unwrap_or_else(|error| {
            warn!(%error, "list the attached programs");
            BTreeSet::new()
        })
    }

    /// Forgets flows that are over; a part of all with each call.
    pub(crate) fn age_flows(&mut self) -> Result<(), mesh_lb::Error> {
        let aged = self.data_path.age_flows(AGE_BUDGET)?;
        if aged.expired + aged.orphaned > 0 {
            debug!(?aged, "flows aged");
        }
        Ok(())
    }

    /// How many established flows endpoints of this node have.
    pub(crate) fn flows_of(
        &self,
        endpoints: &BTreeSet<LocalEndpointId>,
    ) -> Result<BTreeMap<LocalEndpointId, u64>, mesh_lb::Error> {
        self.data_path.flows_of(endpoints)
    }

    /// Takes what is known of the node's links now; what was known before comes back.
    pub(crate) fn set_host(&mut self, host: Host) -> Host {
        std::mem::replace(&mut self.host, host)
    }

    /// Hooks the programs to the node's links and those of `tasks`; those already hooked stay. Goes on past errors and
    /// returns the first.
    fn attach(&mut self, tasks: &[LocalTask]) -> Result<(), AgentError> {
        let settings = self.host.settings;
        let mut done = self.attach_uplinks();
        let vxlan = self.hook(VXLAN_LINK, settings.vxlan_ifindex, DataPath::attach_vxlan);
        let host = self.hook(HOST_LINK.0, settings.host_ifindex, DataPath::attach_host_link);
        done = done.and(vxlan).and(host);
        if !self.sockets_hooked {
            self.data_path.attach_cgroup()?;
            self.sockets_hooked = true;
        }
        for attachment in tasks.iter().flat_map(|t| &t.attachments) {
            done = done.and(self.hook(&attachment.link, attachment.ifindex, DataPath::attach_task));
        }
        done
    }

    fn attach_uplinks(&mut self) -> Result<(), AgentError> {
        let same = |u: &Uplink| self.attached.get(&u.name) == Some(&u.ifindex);
        if self.uplinks_hooked == self.host.uplinks && self.host.uplinks.iter().all(same) {
            return Ok(());
        }
        let uplinks = self.host.uplinks.clone();
        let now: BTreeSet<_> = uplinks.iter().map(|u| u.name.clone()).collect();
        let mut done = Ok(());
        for uplink in &uplinks {
            done = done.and(self.hook(&uplink.name, uplink.ifindex, DataPath::attach_uplink));
        }
        // An earlier daemon's too.
        let before = self.data_path.attached_uplinks()?;
        for past in before.difference(&now) {
            info!(uplink = past, "no uplink any more");
            self.attached.remove(past);
            done = done.and(self.data_path.detach_uplink(past).map_err(AgentError::from));
        }
        if done.is_ok() {
            self.uplinks_hooked = uplinks;
        }
        done
    }

    fn hook(
        &mut self,
        link: &str,
        ifindex: u32,
        attach: impl FnOnce(&mut DataPath, &str) -> Result<HookKind, mesh_lb::Error>,
    ) -> Result<(), AgentError> {
        if self.attached.get(link) != Some(&ifindex) {
            let hook = attach(&mut self.data_path, link)?;
            debug!(link, ?hook, "programs attached");
            self.attached.insert(link.to_owned(), ifindex);
        }
        Ok(())
    }
}

impl Agent {
    /// Brings the kernel, gossip and names in line with what is known now.
    pub(crate) async fn reconcile(&self) -> Result<(), AgentError> {
        watched("reconciliation", self.reconcile_now()).await
    }

    async fn reconcile_now(&self) -> Result<(), AgentError> {
        self.inner.checks.follow();
        let mut reconciler = self.inner.reconciler.lock().await;
        point("its turn");
        let reconciler = &mut *reconciler;
        let version = self.view().version;
        let (view, tasks) = (self.view(), self.lock().tasks.clone());
        reconciler.follow_places(&tasks, &view);
        self.plan(&mut reconciler.planner, &reconciler.host);
        let heard = reconciler.planner.take_heard();
        // Before it is applied: what the data path holds, the next daemon has to know of.
        reconciler.heard.note(&heard, || reconciler.planner.heard());
        let Some(planned) = reconciler.planner.last() else { return Ok(()) };
        let applied = reconciler.data_path.apply(&planned.desired)?;
        if !reconciler.totals.has_begun() {
            reconciler.look()?;
        }
        debug!(?applied, version, "data path applied");
        point("maps");
        if reconciler.planner.remembered().next().is_some() {
            self.lock().remember_until.get_or_insert_with(|| Instant::now() + REMEMBER);
        }
        // After the maps: what an earlier daemon attached goes on until then.
        let tasks = self.lock().tasks.clone();
        reconciler.attach(&tasks)?;
        point("programs");
        reconciler.data_path.settle()?;
        if let Some(planned) = reconciler.planner.last() {
            self.speak(&planned.interest, &planned.announcements).await;
            point("gossip");
            self.update_names(&planned.names).await;
        }
        reconciler.applied = version;
        self.inner.session.report_applied(version);
        Ok(())
    }

    /// Plans from what is known now.
    fn plan<'a>(&self, planner: &'a mut Planner, host: &Host) -> &'a Planned {
        let (view, tasks, attaching) = {
            let mut state = self.lock();
            if state.remember_until.is_some_and(|until| until <= Instant::now()) {
                state.remember_until = None;
                planner.forget_remembered();
            }
            (state.view.clone(), state.tasks.clone(), state.attaching())
        };
        let gossip = self.inner.gossip.watch().borrow().clone();
        planner.plan(&Inputs {
            settings: host.settings,
            host_addresses: &host.addresses,
            routes: &host.routes,
            view: &view,
            tasks: &tasks,
            attaching: &attaching,
            gossip: &gossip,
        })
    }

    /// Tells gossip what it was not told yet.
    async fn speak(&self, interest: &Interest, announcements: &Arc<Vec<Announcement>>) {
        let mut spoken = self.inner.spoken.lock().await;
        spoken.want(&self.inner.gossip, interest).await;
        if spoken.announcements == *announcements {
            return;
        }
        // A task that was detached since the plan was made is not told of again.
        let there: BTreeSet<_> = self.lock().tasks.iter().map(|t| t.id).collect();
        let still = |a: &&Announcement| there.contains(&a.endpoint.task);
        let announcements = match announcements.iter().all(|a| still(&a)) {
            true => announcements.clone(),
            false => Arc::new(announcements.iter().filter(still).cloned().collect()),
        };
        spoken.announce(&self.inner.gossip, announcements).await;
    }

    /// Tells the others how the tasks that they know of are now: before the data path here follows.
    pub(crate) async fn announce(&self) {
        let mut spoken = self.inner.spoken.lock().await;
        self.announce_as(&mut spoken).await;
    }

    /// Tells the others that a task which is no more among this node's is gone; others that are gone too are told with it.
    pub(crate) async fn withdraw(&self, task: TaskId) {
        let mut spoken = self.inner.spoken.lock().await;
        if spoken.announcements.iter().any(|a| a.endpoint.task == task) {
            self.announce_as(&mut spoken).await;
        }
    }

    async fn announce_as(&self, spoken: &mut Spoken) {
        let known: BTreeSet<_> = spoken.announcements.iter().map(|a| a.endpoint.task).collect();
        let (view, tasks) = {
            let state = self.lock();
            (state.view.clone(), state.tasks.clone())
        };
        let mut announcements = announcements(self.inner.node, &view, &tasks);
        announcements.retain(|a| known.contains(&a.endpoint.task));
        spoken.announce(&self.inner.gossip, Arc::new(announcements)).await;
    }

    /// Asks for the tables of networks on which something is being attached.
    pub(crate) async fn want_tables(&self) {
        let mut spoken = self.inner.spoken.lock().await;
        let wanted = {
            let state = self.lock();
            interest(self.inner.node, &state.view, &state.tasks, &state.attaching())
        };
        spoken.want(&self.inner.gossip, &wanted).await;
    }

    pub(crate) async fn inner_mtu(&self) -> u32 {
        self.inner.reconciler.lock().await.host.settings.inner_mtu
    }

    /// Takes the programs from tasks' links; tells what became of each.
    pub(crate) async fn detach_programs(&self, links: &[&str]) -> Vec<Result<(), AgentError>> {
        let mut reconciler = self.inner.reconciler.lock().await;
        for &link in links {
            reconciler.attached.remove(link);
        }
        let detached = reconciler.data_path.detach_tasks(links).into_iter();
        detached.map(|done| done.map_err(AgentError::from)).collect()
    }

    /// Starts the name server in a task's namespace.
    pub(crate) async fn start_dns(&self, ns: &NetNs, task: &LocalTask) -> Result<(), AttachError> {
        let view = {
            let mut reconciler = self.inner.reconciler.lock().await;
            let reconciler = &mut *reconciler;
            self.task_view(task, &self.plan(&mut reconciler.planner, &reconciler.host).names)
        };
        let (sender, receiver) = watch::channel(Arc::new(view));
        let sockets = self.dns_sockets(ns, task.id)?;
        let thread = &self.inner.dns_thread;
        let forwarder = Arc::new(resolver::forwarder(&self.inner.forwarder, ns, &task.dns)?);
        let server = DnsServer::start(thread, sockets, receiver, Arc::clone(&forwarder))?;
        resolver::come_first(ns, &task.dns).await?;
        self.inner.dns.lock().await.insert(task.id, Dns { view: sender, forwarder, _server: server });
        Ok(())
    }

    /// Those of the daemon before this one where they were handed over, new ones otherwise.
    fn dns_sockets(&self, ns: &NetNs, task: TaskId) -> Result<Sockets, mesh_dns::Error> {
        let kept = &self.inner.kept_sockets;
        if let Some(descriptors) = kept.take(task) {
            match Sockets::adopt(ns, descriptors) {
                Ok(sockets) => return Ok(sockets),
                Err(error) => {
                    warn!(%task, %error, "sockets of a name server were handed over");
                    kept.forget(task);
                }
            }
        }
        let sockets = Sockets::open(ns)?;
        kept.keep(task, &sockets.descriptors());
        Ok(sockets)
    }

    pub(crate) async fn stop_dns(&self, task: TaskId) {
        self.inner.kept_sockets.forget(task);
        self.inner.dns.lock().await.remove(&task);
    }

    /// A task's view of names and its way to others, as they are now.
    pub(crate) async fn name_server(&self, task: TaskId) -> Option<NameServer> {
        let dns = self.inner.dns.lock().await;
        let dns = dns.get(&task)?;
        let view = Arc::clone(&dns.view.borrow());
        Some((view, Arc::clone(&dns.forwarder)))
    }

    async fn update_names(&self, names: &Names) {
        let tasks = self.lock().tasks.clone();
        let dns = self.inner.dns.lock().await;
        for task in tasks.iter() {
            if let Some(dns) = dns.get(&task.id) {
                let view = self.task_view(task, names);
                dns.view.send_if_modified(|current| {
                    let changed = **current != view;
                    if changed {
                        *current = Arc::new(view);
                    }
                    changed
                });
            }
        }
    }

    fn task_view(&self, task: &LocalTask, names: &Names) -> TaskView {
        let view = self.view();
        let on = || task.attachments.iter().map(|a| a.network);
        TaskView {
            networks: on().filter_map(|n| names.get(&n)).cloned().collect(),
            forward: on().any(|n| view.networks.get(&n).is_some_and(|n| !n.internal)),
            keep_single_labels: resolver::ndots(&task.dns.options).is_some_and(|ndots| ndots > 0),
        }
    }
}
