//! The agent's handle, its start and its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_ca::IdentityCell;
use mesh_dns::{DnsThread, Forwarder};
use mesh_gossip::{EndpointTable, Gossip, GossipConfig, KeyRing, MemberState, Timing};
use mesh_lb::{DataPath, FlowTimeouts};
use mesh_netlink::Netlink;
use mesh_types::{ClusterId, ClusterView, Endpoint, GOSSIP_PORT, Listener, NodeId};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    AgentError, Attachment, Leases, LocalTask, SessionError, SessionState,
    detach::Departures,
    ending::Ending,
    follow::gossip_peers,
    health::Checks,
    host::{Host, HostOptions, Known, TASK_LINK_PREFIX, is_task_link},
    kept_sockets::KeptSockets,
    leases::boot_time,
    planner::{Planner, announcements, interest},
    reconcile::{Dns, REMEMBER, Reconciler, Spoken},
    renewing::Renewing,
    session::{Session, Told},
    state::{Files, State, Tasks},
    watch::Watching,
    way_out::{self, WaysOut},
};

/// How long a new member waits for the cluster's state.
const FIRST_STATE: Duration = Duration::from_secs(15);

/// How long to wait for word of every node at a restart, and for how long nothing more must come.
const HEAR: Duration = Duration::from_millis(600);
const SETTLED: Duration = Duration::from_millis(60);

/// What an agent starts with.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What to make of its links.
    pub host: HostOptions,
    /// Where others reach it, as it was known last.
    pub advertise_addr: IpAddr,
    /// Where it listens for gossip: mostly any address.
    pub listen: IpAddr,
    /// Its certificate.
    pub identity: Arc<IdentityCell>,
    /// The formats of the managers' state that this daemon reads; told to the managers, who may make it one of them.
    pub formats: RangeInclusive<u8>,
    /// Managers to try first.
    pub managers: Vec<SocketAddr>,
    /// Folder of its kept files.
    pub state_dir: PathBuf,
    /// Pinned maps and links, and how the data path behaves.
    pub data_path: mesh_lb::Options,
    /// Where the node's own resolvers are listed.
    pub resolv_conf: PathBuf,
    /// Whether services may have commands run here to check their tasks; [`Agent::follow`] changes it.
    pub health_commands: bool,
    /// How long the tables that let tasks out stay after the last task that needed them.
    pub egress_linger: Duration,
}

/// A running agent. Clones are handles on the same one.
#[derive(Clone)]
pub struct Agent {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub node: NodeId,
    pub options: AgentOptions,
    pub netlink: Netlink,
    pub gossip: Gossip,
    pub session: Session,
    pub files: Files,
    pub state: Mutex<State>,
    pub reconciler: tokio::sync::Mutex<Reconciler>,
    pub dns: tokio::sync::Mutex<BTreeMap<mesh_types::TaskId, Dns>>,
    pub dns_thread: DnsThread,
    pub kept_sockets: KeptSockets,
    pub spoken: tokio::sync::Mutex<Spoken>,
    pub forwarder: Arc<Forwarder>,
    pub stop: CancellationToken,
    pub tickets: AtomicU64,
    /// Tasks that are to be ended.
    pub departures: Departures,
    pub unhealthy: Mutex<Option<String>>,
    /// Wakes the watcher of drains.
    pub drains: tokio::sync::Notify,
    /// Health checks.
    pub checks: Checks,
    /// Who has a way out.
    pub ways_out: tokio::sync::Mutex<WaysOut>,
    /// The work on leases.
    pub renewing: Renewing,
    /// Wakes what lets tasks follow their services.
    pub services: tokio::sync::Notify,
    /// Processes of this node that published ports shadow.
    pub listeners: Mutex<Vec<Listener>>,
    /// Those of all nodes, as the managers tell.
    pub all_listeners: Mutex<BTreeMap<NodeId, Vec<Listener>>>,
    /// What the host's firewall has against tasks.
    pub closed: Mutex<Vec<String>>,
    /// Who watches what the programs tell.
    pub watching: Watching,
    pub runner: Mutex<Option<JoinHandle<()>>>,
}

impl Agent {
    /// Starts the agent: adopts what a predecessor left in the kernel, and returns once the node works.
    pub async fn start(options: AgentOptions) -> Result<Self, AgentError> {
        let kept_sockets = KeptSockets::from_environment();
        let files = Files::new(&options.state_dir);
        let Tasks { running: mut tasks, absent, holds, generation } = files.load_tasks()?;
        let (kept_leases, same_boot) = files.load_leases()?;
        let mut leases = Leases::restore(kept_leases, same_boot);
        tasks.retain(|task| {
            let now = boot_time();
            let on = |a: &Attachment| a.addresses.iter().all(|x| leases.may_go_on(a.network, *x, now));
            let may = task.attachments.iter().all(on);
            if !may {
                warn!(task = %task.name, "no manager confirmed its address in time; it is detached");
            }
            may
        });
        let remembered = files.load_remote()?;
        let kept = files.load_view()?;
        let features = DataPath::probe();
        let missing: Vec<_> = features.missing().map(ToString::to_string).collect();
        for feature in &missing {
            warn!(feature, "kernel feature missing");
        }
        if !features.usable() {
            return Err(AgentError::Features(missing.join("; ")));
        }

        let netlink = Netlink::connect()?;
        let last = files.load_data_path()?;
        let peers: Vec<_> = kept.iter().flat_map(|(view, _)| view.nodes.values()).collect();
        let peers =
            peers.iter().filter(|n| n.id != options.node).map(|n| n.data_path_addr).collect::<Vec<_>>();
        // What changed while no daemon ran has changed for good.
        let advertised = files.load_advertise()?;
        let known = Known {
            last: last.as_ref(),
            may_change: true,
            advertise: advertised.as_ref(),
            advertise_may_change: true,
            peers: &peers,
        };
        let host = Host::ensure(&netlink, &options.host, known).await?;
        mesh_netlink::enable_forwarding()?;
        way_out::ensure_for(&tasks)?;
        let settings = host.settings;
        // The verifier takes its time; the local socket and Raft share these threads and must not wait for it.
        let opening = options.data_path.clone();
        let opening = tokio::task::spawn_blocking(move || DataPath::open(opening));

        let stop = CancellationToken::new();
        let (told_sender, mut told) = mpsc::channel(4);
        let managers = match &kept {
            Some((_, managers)) => managers.iter().chain(&options.managers).copied().collect::<Vec<_>>(),
            None => options.managers.clone(),
        };
        let mut unique = BTreeSet::new();
        let managers = managers.into_iter().filter(|m| unique.insert(*m)).collect::<Vec<_>>();
        let reached = host.advertise.as_ref().map_or(options.advertise_addr, |found| found.address);
        // A manager that has moved asks itself where it is now.
        let managers = moved(managers, options.advertise_addr, reached);
        let session = Session::start(
            options.identity.clone(),
            managers,
            options.formats.clone(),
            told_sender,
            stop.clone(),
        );
        let guard = stop.clone().drop_guard();
        let (view, held) = match kept {
            Some((view, _)) => (Arc::new(view), None),
            None => {
                let first = first_state(&mut told, &session).await?;
                files.save_view(&first.view, first.managers)?;
                (first.view, Some(first.leases))
            }
        };

        let gossip = Gossip::start(GossipConfig {
            node: options.node,
            cluster: options.cluster,
            bind: SocketAddr::new(options.listen, GOSSIP_PORT),
            advertise: SocketAddr::new(reached, GOSSIP_PORT),
            keys: KeyRing::new(view.gossip_keys.clone())?,
            incarnation: now_millis(),
            timing: Timing::default(),
        })
        .await?;
        // Others give this node up if they hear nothing for seconds, which the verifier may take; and they believe no
        // longer what the daemon before this one told.
        gossip.announce(announcements(options.node, &view, &tasks)).await;
        gossip.set_interest(interest(options.node, &view, &tasks, &BTreeSet::new())).await;
        gossip.set_peers(gossip_peers(options.node, &view)).await;
        let data_path = opening.await??;
        let restarted = !remembered.is_empty() || !tasks.is_empty();

        if let Some(held) = held {
            leases.replace(view.version, &held, boot_time());
        }
        let state = State {
            view,
            tasks: Arc::default(),
            absent: Vec::new(),
            leases,
            holds: Vec::new(),
            reserved: BTreeMap::new(),
            leaving: false,
            generation,
            remember_until: (!remembered.is_empty()).then(|| Instant::now() + REMEMBER),
            data_path: last,
            data_path_lost: None,
            advertise: advertised,
            advertise_lost: None,
        };
        let mut planner = Planner::new(options.node);
        planner.remember(remembered);
        let reconciler = Reconciler::new(data_path, planner, files.heard_log(), host.clone(), missing);
        let forwarder = Forwarder::from_file(&options.resolv_conf);
        let inner = Inner {
            node: options.node,
            netlink,
            gossip,
            session,
            files,
            state: Mutex::new(state),
            reconciler: tokio::sync::Mutex::new(reconciler),
            dns: tokio::sync::Mutex::default(),
            dns_thread: DnsThread::start()?,
            kept_sockets,
            spoken: tokio::sync::Mutex::default(),
            forwarder: Arc::new(forwarder),
            stop,
            tickets: AtomicU64::new(0),
            departures: Departures::default(),
            unhealthy: Mutex::new(None),
            drains: tokio::sync::Notify::new(),
            checks: Checks::new(options.health_commands),
            ways_out: tokio::sync::Mutex::default(),
            services: tokio::sync::Notify::new(),
            renewing: Renewing::default(),
            listeners: Mutex::default(),
            all_listeners: Mutex::default(),
            closed: Mutex::default(),
            watching: Watching::default(),
            runner: Mutex::new(None),
            options,
        };
        let agent = Self { inner: Arc::new(inner) };
        agent.keep_data_path(&host);
        agent.keep_advertise(&host).await;
        agent.adopt_holds(holds, same_boot);
        agent.adopt(tasks).await;
        agent.adopt_ways_out().await?;
        agent.inner.kept_sockets.forget_rest();
        agent.expect_back(absent);
        agent.follow_availability();
        agent.apply_view_to_gossip().await;
        if restarted {
            // Names are answered already.
            hear_the_others(&agent.inner.gossip, agent.inner.node, &agent.view()).await;
        }
        agent.reconcile().await?;
        agent.remove_past_links().await;
        agent.answer_others();
        agent.save_tasks()?;
        guard.disarm();
        let settling = agent.inner.files.clone().keep_settled();
        tokio::spawn(agent.inner.stop.clone().run_until_cancelled_owned(settling));
        *lock(&agent.inner.runner) = Some(tokio::spawn(agent.clone().run(told)));
        let stop = || agent.inner.stop.clone();
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().age_flows()));
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().watch_drains()));
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().check_health()));
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().look_around()));
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().follow_services()));
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().keep_leases()));
        tokio::spawn(stop().run_until_cancelled_owned(agent.clone().bring_back()));
        info!(node = %agent.inner.node, uplink_ifindex = settings.uplink_ifindex, mtu = settings.inner_mtu, "agent runs");
        Ok(agent)
    }

    /// Takes over the tasks of before a restart that still are; forgets the others.
    async fn adopt(&self, tasks: Vec<LocalTask>) {
        let mut adopted = Vec::new();
        for task in tasks {
            let Some(ending) = Ending::adopt(&task) else {
                info!(task = %task.name, "a kept task has ended meanwhile");
                continue;
            };
            if let Some(link) = self.missing_link(&task).await {
                warn!(task = %task.name, link, "a kept task has lost its link; attach it again");
                continue;
            }
            {
                let mut state = self.lock();
                for attachment in &task.attachments {
                    let (network, now) = (attachment.network, boot_time());
                    for address in &attachment.addresses {
                        state.leases.adopt(network, *address, now);
                        state.use_held(network, *address, true);
                    }
                }
                state.tasks_mut().push(task.clone());
            }
            adopted.push((task, ending));
        }
        // All of them first, so that their names are planned once.
        for (task, ending) in adopted {
            let dns = match task.namespace.open() {
                Ok(ns) => self.start_dns(&ns, &task).await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = dns {
                warn!(task = %task.name, error, "names in an adopted task");
            }
            self.watch_end(task.id, ending);
        }
    }

    /// A veth of the task that somebody removed while no daemon ran.
    async fn missing_link(&self, task: &LocalTask) -> Option<String> {
        for attachment in &task.attachments {
            match self.inner.netlink.link(&attachment.link).await {
                Ok(Some(link)) if link.ifindex == attachment.ifindex => {}
                Ok(_) => return Some(attachment.link.clone()),
                Err(error) => warn!(link = attachment.link, %error, "look for the link of a kept task"),
            }
        }
        None
    }

    /// Removes the veths of tasks that ended, or were being attached, when the daemon was not there to do it.
    async fn remove_past_links(&self) {
        let current: BTreeSet<_> =
            self.lock().tasks.iter().flat_map(|t| t.attachments.iter().map(|a| a.link.clone())).collect();
        let links = match self.inner.netlink.links(TASK_LINK_PREFIX).await {
            Ok(links) => links,
            Err(error) => return warn!(%error, "list the links of past tasks"),
        };
        // Links of the kernel, and programs that are pinned to links which are gone.
        let attached = self.inner.reconciler.lock().await.attached_tasks();
        let ours = links.into_iter().map(|l| l.name).filter(|name| is_task_link(name));
        let past: BTreeSet<_> = ours.chain(attached).filter(|name| !current.contains(name)).collect();
        let past: Vec<_> = past.iter().map(String::as_str).collect();
        let removed = self.inner.netlink.remove_links(&past).await;
        let detached = self.detach_programs(&past).await;
        for ((link, detached), removed) in past.into_iter().zip(detached).zip(removed) {
            info!(link, "removing the link of a past task");
            let detached = detached.map_err(|e| e.to_string());
            if let Err(error) = detached.and(removed.map_err(|e| e.to_string())) {
                warn!(link, error, "remove the link of a past task");
            }
        }
    }

    /// The decided state as this node knows it.
    pub fn view(&self) -> Arc<ClusterView> {
        self.lock().view.clone()
    }

    /// Where managers listen, as far as this node was told.
    pub fn managers(&self) -> Vec<std::net::SocketAddr> {
        self.inner.session.managers()
    }

    /// Where other nodes reach this one.
    pub fn advertise_addr(&self) -> IpAddr {
        let known = self.lock().advertise.as_ref().map(|found| found.address);
        known.unwrap_or(self.inner.options.advertise_addr)
    }

    /// Whether no interface holds the address at which other nodes look for this one, and that address.
    pub(crate) fn no_advertise_addr(&self) -> (bool, IpAddr) {
        let lost = self.lock().advertise_lost.is_some();
        (lost, self.advertise_addr())
    }

    /// The tasks of this node.
    pub fn tasks(&self) -> Vec<LocalTask> {
        self.lock().tasks.to_vec()
    }

    /// Every endpoint this node knows of, and the members.
    pub fn endpoints(&self) -> (Vec<Endpoint>, BTreeMap<NodeId, MemberState>) {
        let own = self.lock().tasks.iter().flat_map(|t| t.endpoints(self.inner.node)).collect::<Vec<_>>();
        let tables = self.inner.gossip.watch().borrow().clone();
        let others = tables.endpoints.values().flat_map(EndpointTable::values);
        let others = others.filter(|e| e.node != self.inner.node).map(|e| Endpoint::clone(e));
        // One that published ports lead to is in two tables.
        let all: BTreeMap<_, _> = others.chain(own).map(|e| ((e.task, e.network), e)).collect();
        (all.into_values().collect(), self.members())
    }

    /// Processes of all nodes that published ports shadow, as far as this node was told.
    pub fn listeners(&self) -> BTreeMap<NodeId, Vec<Listener>> {
        let mut all = lock(&self.inner.all_listeners).clone();
        let own = lock(&self.inner.listeners).clone();
        match own.is_empty() {
            true => drop(all.remove(&self.inner.node)),
            false => drop(all.insert(self.inner.node, own)),
        }
        all
    }

    /// What gossip says of a node.
    pub fn member(&self, node: NodeId) -> Option<MemberState> {
        self.inner.gossip.watch().borrow().members.get(&node).map(|member| member.state)
    }

    /// The members by gossip.
    pub(crate) fn members(&self) -> BTreeMap<NodeId, MemberState> {
        self.inner.gossip.watch().borrow().members.iter().map(|(&id, m)| (id, m.state)).collect()
    }

    /// Follows what the node's configuration says now.
    pub async fn follow(&self, health_commands: bool, flows: FlowTimeouts) {
        self.inner.checks.allow_commands(health_commands);
        self.inner.reconciler.lock().await.set_flow_timeouts(flows);
    }

    /// Stops the agent; the data path stays as it is, and a new agent adopts it.
    pub async fn stop(&self) {
        self.halt().await;
        self.inner.files.settle().await;
        if let Err(error) = self.close_unused_ways_out().await {
            warn!(%error, "remove a table that let tasks out");
        }
        self.inner.gossip.shutdown().await;
    }

    /// Ends the loop; what it was just doing is done when this returns.
    async fn halt(&self) {
        self.inner.stop.cancel();
        let runner = lock(&self.inner.runner).take();
        if let Some(Err(error)) = async { Some(runner?.await) }.await {
            warn!(%error, "the agent's loop");
        }
    }

    /// Tells the managers that this node leaves. Before [`Agent::leave`]; an error changes nothing.
    pub async fn tell_managers(&self) -> Result<(), SessionError> {
        match self.inner.session.state() {
            SessionState::Removed(_) => Ok(()),
            _ => self.inner.session.leave().await,
        }
    }

    /// Leaves: detaches every task, removes everything from the kernel and the kept files. Goes on past errors and
    /// tells them.
    pub async fn leave(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.close().await;
        let ids: Vec<_> = self.lock().tasks.iter().map(|t| t.id).collect();
        let mut ends = JoinSet::new();
        for id in ids {
            let agent = self.clone();
            ends.spawn(async move { agent.detach_id(id, None).await });
        }
        while let Some(ended) = ends.join_next().await {
            problems.extend(ended.ok().flatten().and_then(Result::err).map(|e| e.to_string()));
        }
        self.inner.gossip.leave().await;
        // The loop would make the node's links anew.
        self.halt().await;
        self.inner.gossip.shutdown().await;
        problems.extend(
            DataPath::remove_pins(&self.inner.options.data_path.bpf_dir).err().map(|e| e.to_string()),
        );
        problems.extend(Host::remove(&self.inner.netlink).await.iter().map(ToString::to_string));
        problems.extend(self.inner.files.remove().err().map(|e| e.to_string()));
        problems
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }

    pub(crate) fn save_tasks(&self) -> Result<(), AgentError> {
        let state = self.lock();
        let all: Vec<_> = state.tasks.iter().chain(&state.absent).cloned().collect();
        Ok(self.inner.files.save_tasks(all, state.holds.clone(), state.generation)?)
    }
}

/// Removes what an agent that failed to start made on this node; goes on past errors and tells them. Not while one runs.
pub async fn remove_from_node(bpf_dir: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(DataPath::remove_pins(bpf_dir).err().map(|e| e.to_string()));
    match Netlink::connect() {
        Ok(netlink) => {
            problems.extend(Host::remove(&netlink).await.iter().map(ToString::to_string));
            problems.extend(remove_task_links(&netlink).await.err().map(|e| e.to_string()));
        }
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

/// Tasks keep their namespaces, and lose what leads into them.
async fn remove_task_links(netlink: &Netlink) -> Result<(), mesh_netlink::Error> {
    let links = netlink.links(TASK_LINK_PREFIX).await?;
    for link in links.iter().filter(|link| is_task_link(&link.name)) {
        netlink.remove_link(&link.name).await?;
    }
    Ok(())
}

/// Waits until gossip knows what the others run. The data path goes on by what an earlier daemon knew, which may be more
/// than it had time to keep: what this one lacks the data path would let go.
async fn hear_the_others(gossip: &Gossip, node: NodeId, view: &ClusterView) {
    let mut tables = gossip.watch();
    let heard = async {
        loop {
            let all = {
                let tables = tables.borrow_and_update();
                view.nodes.keys().all(|other| *other == node || tables.members.contains_key(other))
            };
            // After word of a member comes word of what it runs.
            match tokio::time::timeout(SETTLED, tables.changed()).await {
                Err(_) if all => return,
                Ok(Err(_)) => return,
                Err(_) | Ok(Ok(())) => {}
            }
        }
    };
    if tokio::time::timeout(HEAR, heard).await.is_err() {
        debug!("some nodes are not heard of yet");
    }
}

async fn first_state(told: &mut mpsc::Receiver<Told>, session: &Session) -> Result<Told, AgentError> {
    match tokio::time::timeout(FIRST_STATE, told.recv()).await {
        Ok(Some(first)) => Ok(first),
        _ => Err(AgentError::NoState { seconds: FIRST_STATE.as_secs(), why: session.state().to_string() }),
    }
}

/// The managers, the one at `old` at its address of now.
pub(crate) fn moved(managers: Vec<SocketAddr>, old: IpAddr, now: IpAddr) -> Vec<SocketAddr> {
    let at = |manager: SocketAddr| match manager.ip() == old {
        true => SocketAddr::new(now, manager.port()),
        false => manager,
    };
    let mut known = BTreeSet::new();
    managers.into_iter().map(at).filter(|manager| known.insert(*manager)).collect()
}

/// Grows from start to start, unless the clock is set back.
fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_millis() as u64).unwrap_or(1)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
