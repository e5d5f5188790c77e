//! The daemon: in no cluster, or a member with an agent and perhaps a manager.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_agent::{
    Agent, AgentOptions, DataPathChoice, HostOptions, MemberState, PathChoice, SessionError, one_line,
};
use mesh_api::v1::{self, control_server::Control};
use mesh_ca::IdentityCell;
use mesh_manager::{Backup, EndpointView, Heard, Manager, ManagerOptions, NewCluster, RestoredCluster};
use mesh_types::{ClusterView, Endpoint, MANAGER_PORT, Name, NodeId, Role};
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};
use tonic::{Request, Status};
use tracing::{info, warn};

use crate::{
    address,
    config::{Config, PathMode},
    identity::Renewal,
    join::{self, JoinSpec},
    lock::{Keys, LOCKED},
    membership::Membership,
    roles, state_dir,
};

/// How long the others may take to let this manager go.
const STEP_DOWN: Duration = Duration::from_secs(15);

/// See the module.
pub struct Daemon {
    pub(crate) config: Config,
    pub(crate) member: RwLock<Option<Member>>,
    /// What a manager's files are encrypted with.
    pub(crate) keys: Arc<Keys>,
}

/// A node that is in a cluster.
pub struct Member {
    /// What it keeps of it.
    pub membership: Membership,
    /// Its agent.
    pub agent: Agent,
    /// Its manager, if its role says so.
    pub manager: Option<Manager>,
    /// Why there is none although its role says so.
    pub manager_fault: Option<String>,
    /// Its certificate.
    pub identity: Arc<IdentityCell>,
    /// Keeps its certificate fresh.
    pub renewal: Renewal,
}

/// What a cluster is made of.
enum Beginning {
    New(NewCluster),
    Restored(RestoredCluster),
}

/// What `init` made.
#[derive(Debug)]
pub struct NewMember {
    /// The node's membership.
    pub membership: Membership,
    /// What workers join with.
    pub worker_token: String,
    /// Where they join.
    pub managers: Vec<SocketAddr>,
}

/// What `init` was asked for.
#[derive(Debug, Default)]
pub struct InitSpec {
    /// This node's name; the host's unless given.
    pub name: String,
    /// Address or interface.
    pub advertise_addr: String,
    /// Address or interface.
    pub data_path_addr: String,
    /// `HOST:PORT` of the managers' API.
    pub listen_addr: String,
    /// Where subnets come from, at most one per family.
    pub default_addr_pools: Vec<String>,
    /// Whether the ingress network has IPv6.
    pub ipv6: bool,
    /// How long certificates are valid, in seconds; the usual time unless set.
    pub cert_expiry_secs: Option<u64>,
}

/// The manager's window on what runs; empty until the agent runs.
struct AgentView(Arc<OnceLock<Agent>>);

impl EndpointView for AgentView {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.0.get().map(|agent| agent.endpoints().0).unwrap_or_default()
    }

    fn heard(&self, node: NodeId) -> Heard {
        let member = self.0.get().and_then(|agent| agent.member(node));
        match member {
            Some(MemberState::Alive) => Heard::Alive,
            Some(MemberState::Down) => Heard::Dead,
            Some(MemberState::Left) => Heard::Left,
            Some(MemberState::Unattended) => Heard::Unattended,
            Some(MemberState::Suspect) | None => Heard::Nothing,
        }
    }
}

impl Daemon {
    /// Opens the state folder; a node that is in a cluster comes back as its member.
    pub async fn open(config: Config) -> Result<Self> {
        let keys = Keys::find(&config.state_dir)?;
        let member = match Membership::load(&config.state_dir)? {
            Some(membership) => {
                state_dir::finished(&config.state_dir)?;
                Some(reopen(&config, membership, &keys).await?)
            }
            None if state_dir::is_unfinished(&config.state_dir) => {
                info!("undoing an init or join that was cut off, or finishing a leave");
                for problem in mesh_agent::remove_from_node(&config.bpf_dir).await {
                    warn!(problem, "roll back");
                }
                state_dir::wipe(&config.state_dir)?;
                None
            }
            None => None,
        };
        Ok(Self { config, member: RwLock::new(member), keys })
    }

    /// The member, or what to do to become one.
    pub async fn member(&self) -> Result<tokio::sync::RwLockReadGuard<'_, Member>, Status> {
        let guard = self.member.read().await;
        tokio::sync::RwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| {
            Status::failed_precondition(
                "this node is in no cluster; run `meshctl init` or `meshctl join` first",
            )
        })
    }

    /// Makes a cluster with this node as its manager. An error leaves the node as it was.
    pub async fn init(&self, spec: InitSpec) -> Result<NewMember> {
        let mut member = self.member.write().await;
        refuse_member(member.as_ref())?;
        state_dir::refuse_leftovers(&self.config.state_dir)?;
        let advertise_addr = advertise("--advertise-addr", &spec.advertise_addr)?;
        let (data_path_addr, data_path) =
            data_path(&spec.data_path_addr, &spec.advertise_addr, advertise_addr)?;
        let listen_addr = listen_address(&spec.listen_addr, advertise_addr)?;
        let pools = spec.default_addr_pools.iter();
        let pools = pools.map(|text| text.parse().with_context(|| format!("--default-addr-pool {text}")));
        let new = NewCluster {
            name: node_name(&spec.name)?,
            data_path_addr,
            pools: pools.collect::<Result<_>>()?,
            ingress_ipv6: spec.ipv6,
            cert_validity_secs: spec.cert_expiry_secs,
        };
        state_dir::begin(&self.config.state_dir)?;
        let made = self.make_cluster(Beginning::New(new), advertise_addr, data_path, listen_addr).await;
        let (made, new) = self.or_wipe(made).await?;
        *member = Some(made);
        Ok(new)
    }

    /// Makes a cluster anew from a backup, with this node as its only manager. An error leaves the node as it was.
    pub async fn restore(&self, spec: InitSpec, backup: Vec<u8>) -> Result<NewMember> {
        let mut member = self.member.write().await;
        refuse_member(member.as_ref())?;
        state_dir::refuse_leftovers(&self.config.state_dir)?;
        let backup = Backup::decode(&backup)?;
        let advertise_addr = advertise("--advertise-addr", &spec.advertise_addr)?;
        let (data_path_addr, data_path) =
            data_path(&spec.data_path_addr, &spec.advertise_addr, advertise_addr)?;
        let listen_addr = listen_address(&spec.listen_addr, advertise_addr)?;
        let from = RestoredCluster { state: backup.state, name: node_name(&spec.name)?, data_path_addr };
        state_dir::begin(&self.config.state_dir)?;
        let made = self.make_cluster(Beginning::Restored(from), advertise_addr, data_path, listen_addr).await;
        let (made, new) = self.or_wipe(made).await?;
        *member = Some(made);
        Ok(new)
    }

    /// Makes this manager the only one, after the others were lost. An error leaves it as it was.
    pub async fn force_new_cluster(&self, spec: InitSpec) -> Result<NewMember> {
        let mut guard = self.member.write().await;
        let Some(member) = guard.as_mut() else {
            anyhow::bail!(
                "this node is in no cluster: --force-new-cluster is for a manager that has lost the others"
            );
        };
        let asked = [&spec.advertise_addr, &spec.data_path_addr, &spec.listen_addr, &spec.name];
        if asked.iter().any(|text| !text.is_empty()) || !spec.default_addr_pools.is_empty() || spec.ipv6 {
            anyhow::bail!("--force-new-cluster goes on with the cluster as it is; give no other options");
        }
        let Some(manager) = member.manager.take() else {
            let why = member.manager_fault.clone().unwrap_or_else(|| "it is a worker".to_owned());
            anyhow::bail!("this node runs no manager: {why}");
        };
        manager.shutdown().await;
        let membership = &member.membership;
        let options = || {
            let watch = watch_of(&member.agent);
            let (advertise, listen) = (membership.advertise_addr, membership.listen_addr);
            manager_options(&self.config, advertise, listen, &watch, &self.keys)
        };
        let forced = Manager::force_new_cluster(options()?, member.identity.clone()).await;
        let manager = match forced {
            Ok(manager) => manager,
            Err(error) => {
                // As before, if that is possible; else the next look at the role tries again.
                match Manager::open(options()?, member.identity.clone()).await {
                    Ok(manager) => member.manager = Some(manager),
                    Err(fault) => member.manager_fault = Some(one_line(&fault)),
                }
                return Err(error.into());
            }
        };
        warn!(cluster = %membership.cluster, "this node is the only manager now: made so by an operator");
        let new = NewMember {
            membership: membership.clone(),
            worker_token: manager.join_token(Role::Worker).unwrap_or_default(),
            managers: manager.managers(),
        };
        member.manager = Some(manager);
        Ok(new)
    }

    async fn make_cluster(
        &self,
        beginning: Beginning,
        advertise: IpAddr,
        data_path: DataPathChoice,
        listen: SocketAddr,
    ) -> Result<(Member, NewMember)> {
        let (name, data_path_addr) = match &beginning {
            Beginning::New(new) => (new.name.clone(), new.data_path_addr),
            Beginning::Restored(from) => (from.name.clone(), from.data_path_addr),
        };
        let cell = Arc::new(OnceLock::new());
        let options = manager_options(&self.config, advertise, listen, &cell, &self.keys)?;
        let manager = match beginning {
            Beginning::New(new) => Manager::init(options, new).await?,
            Beginning::Restored(from) => Manager::restore(options, from).await?,
        };
        let own = manager.identity().current().own();
        let membership = Membership {
            cluster: own.cluster,
            node: own.node,
            name,
            role: Role::Manager,
            advertise_addr: advertise,
            data_path_addr,
            listen_addr: listen,
            managers: manager.managers(),
            data_path,
        };
        let agent = match self.begin(&membership, manager.identity()).await {
            Ok(agent) => agent,
            Err(error) => {
                manager.shutdown().await;
                return Err(error);
            }
        };
        let _ = cell.set(agent.clone());
        info!(cluster = %membership.cluster, node = %membership.node, "cluster made");
        let new = NewMember {
            membership: membership.clone(),
            worker_token: manager.join_token(Role::Worker).unwrap_or_default(),
            managers: manager.managers(),
        };
        let identity = manager.identity().clone();
        let renewal = Renewal::start(identity.clone(), self.keys.clone(), agent.clone());
        Ok((
            Member { membership, agent, manager: Some(manager), manager_fault: None, identity, renewal },
            new,
        ))
    }

    /// Joins a cluster; tells also whether a manager still catches up. An error leaves the node as it was.
    pub async fn join(&self, spec: JoinSpec) -> Result<(Membership, bool)> {
        let mut member = self.member.write().await;
        refuse_member(member.as_ref())?;
        state_dir::refuse_leftovers(&self.config.state_dir)?;
        state_dir::begin(&self.config.state_dir)?;
        let joined = self.join_cluster(spec).await;
        let joined = self.or_wipe(joined).await?;
        let membership = joined.membership.clone();
        *member = Some(joined);
        drop(member);
        let guard = self.member.read().await;
        let manager = guard.as_ref().and_then(|member| member.manager.as_ref());
        let catching_up = match manager {
            Some(manager) => !roles::votes(manager).await,
            None => false,
        };
        Ok((membership, catching_up))
    }

    async fn join_cluster(&self, spec: JoinSpec) -> Result<Member> {
        let (membership, identity) = join::join(&spec).await?;
        let cell = IdentityCell::new(identity)?;
        let watch = Arc::new(OnceLock::new());
        let begun = async {
            let (advertise, listen) = (membership.advertise_addr, membership.listen_addr);
            let manager = match membership.role {
                Role::Manager => {
                    let options = manager_options(&self.config, advertise, listen, &watch, &self.keys)?;
                    Some(Manager::join(options, cell.clone()).await?)
                }
                Role::Worker => None,
            };
            match self.begin(&membership, &cell).await {
                Ok(agent) => Ok((manager, agent)),
                Err(error) => {
                    if let Some(manager) = manager {
                        manager.shutdown().await;
                    }
                    Err(error)
                }
            }
        };
        let (manager, agent) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                // The managers count the node as a member already; it must be able to try again under its name.
                if let Err(left) = join::withdraw(&membership, cell.clone()).await {
                    warn!(error = format!("{left:#}"), "take the membership back");
                }
                return Err(error);
            }
        };
        let _ = watch.set(agent.clone());
        info!(cluster = %membership.cluster, node = %membership.node, role = %membership.role, "joined");
        let renewal = Renewal::start(cell.clone(), self.keys.clone(), agent.clone());
        Ok(Member { membership, agent, manager, manager_fault: None, identity: cell, renewal })
    }

    /// Starts the agent, then makes the membership last.
    async fn begin(&self, membership: &Membership, cell: &Arc<IdentityCell>) -> Result<Agent> {
        cell.current().save(&self.config.state_dir)?;
        let agent = start_agent(&self.config, membership, cell.clone()).await?;
        let state_dir = &self.config.state_dir;
        if let Err(error) = membership.save(state_dir).and_then(|()| state_dir::finished(state_dir)) {
            agent.stop().await;
            return Err(error);
        }
        Ok(agent)
    }

    /// Leaves the cluster, removing everything of it from this node.
    pub async fn leave(&self, force: bool) -> Result<()> {
        let mut guard = self.member.write().await;
        let Some(member) = guard.as_ref() else { anyhow::bail!("this node is in no cluster") };
        refuse_leave(member, force)?;
        // The only manager tells nobody: with it the cluster ends.
        let told = match &member.manager {
            Some(_) if member.managers().len() < 2 => Ok(()),
            Some(manager) => match step_down(member, manager, force).await {
                Ok(()) => tell_managers(member).await,
                Err(error) if force => Err(SessionError::Failed(format!("{error:#}"))),
                Err(error) => return Err(error),
            },
            None => tell_managers(member).await,
        };
        if let (Err(error), false) = (&told, force) {
            let why = match error {
                SessionError::NoManager(why) => format!("no manager is reachable ({why})"),
                other => other.to_string(),
            };
            anyhow::bail!(
                "{why}; with --force this node leaves all the same, and a manager has to forget it with \
                 `meshctl node rm {}`",
                member.membership.name
            );
        }
        let Some(Member { agent, manager, membership, renewal, .. }) = guard.take() else { return Ok(()) };
        drop(renewal);
        let mut problems = agent.leave().await;
        problems.extend(told.err().map(|e| e.to_string()));
        if let Some(manager) = manager {
            manager.shutdown().await;
        }
        problems.extend(state_dir::wipe(&self.config.state_dir).err().map(|e| format!("{e:#}")));
        info!(cluster = %membership.cluster, "left the cluster");
        for problem in &problems {
            warn!(problem, "while leaving");
        }
        if problems.is_empty() || force {
            return Ok(());
        }
        anyhow::bail!("this node has left the cluster, but: {}", problems.join("; "))
    }

    /// Stops what runs; the data path stays.
    pub async fn stop(&self) {
        if let Some(Member { agent, manager, .. }) = self.member.write().await.take() {
            agent.stop().await;
            if let Some(manager) = manager {
                manager.shutdown().await;
            }
        }
    }

    /// Removes what a failed `init` or `join` left.
    async fn or_wipe<T>(&self, made: Result<T>) -> Result<T> {
        if made.is_err() {
            let mut problems = mesh_agent::remove_from_node(&self.config.bpf_dir).await;
            problems.extend(state_dir::wipe(&self.config.state_dir).err().map(|e| format!("{e:#}")));
            for problem in problems {
                warn!(problem, "roll back");
            }
        }
        made
    }
}

fn refuse_member(member: Option<&Member>) -> Result<()> {
    match member {
        Some(member) => anyhow::bail!(
            "this node is already part of cluster {}; run `meshctl leave` first",
            member.membership.cluster.short()
        ),
        None => Ok(()),
    }
}

fn refuse_leave(member: &Member, force: bool) -> Result<()> {
    if force {
        return Ok(());
    }
    if member.membership.role == Role::Manager && member.managers().len() < 2 {
        let others = member.agent.view().nodes.len().saturating_sub(1);
        anyhow::bail!(
            "this node is the only manager: when it leaves, the cluster ends ({others} other nodes are in it); \
             use --force if that is meant"
        );
    }
    let names: Vec<_> = member.agent.tasks().iter().map(|t| t.name.to_string()).collect();
    if !names.is_empty() {
        anyhow::bail!("tasks run on this node: {}; detach them first, or use --force", names.join(", "));
    }
    Ok(())
}

/// Has the other managers take this one out before it leaves.
async fn step_down(member: &Member, manager: &Manager, force: bool) -> Result<()> {
    let request =
        v1::SetRoleRequest { node: member.membership.node.to_string(), role: v1::Role::Worker.into(), force };
    let demoted = manager.control().set_role(Request::new(request)).await;
    demoted.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let deadline = Instant::now() + STEP_DOWN;
    while !manager.is_out(&member.managers()).await {
        anyhow::ensure!(
            Instant::now() < deadline,
            "this node is a worker now, but the managers have not taken it out yet; try again"
        );
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Tells the managers that this node leaves; while the session moves to another one, that is waited for.
async fn tell_managers(member: &Member) -> Result<(), SessionError> {
    let deadline = Instant::now() + STEP_DOWN;
    let was_manager = member.manager.is_some();
    loop {
        match member.agent.tell_managers().await {
            Err(SessionError::NoManager(_)) if was_manager && Instant::now() < deadline => {
                sleep(Duration::from_millis(200)).await;
            }
            told => return told,
        }
    }
}

async fn reopen(config: &Config, membership: Membership, keys: &Arc<Keys>) -> Result<Member> {
    let cell = IdentityCell::new(keys.identity()?)?;
    let watch = Arc::new(OnceLock::new());
    let manager = async {
        if membership.role != Role::Manager {
            return Ok(None);
        }
        if keys.is_locked() {
            return Ok(None);
        }
        let (advertise, listen) = (membership.advertise_addr, membership.listen_addr);
        let options = manager_options(config, advertise, listen, &watch, keys)?;
        // One that was promoted just before it was stopped has none yet.
        if !Manager::has_state(&config.state_dir) && membership.managers.len() > 1 {
            return Ok(None);
        }
        anyhow::Ok(Some(Manager::open(options, cell.clone()).await?))
    };
    let (manager, agent) = tokio::join!(manager, start_agent(config, &membership, cell.clone()));
    let agent = agent?;
    let _ = watch.set(agent.clone());
    let renewal = Renewal::start(cell.clone(), keys.clone(), agent.clone());
    let mut member =
        Member { membership, agent, manager: None, manager_fault: None, identity: cell, renewal };
    if keys.is_locked() && member.membership.role == Role::Manager {
        warn!("{LOCKED}");
        member.manager_fault = Some(LOCKED.to_owned());
    }
    match manager {
        Ok(manager) => member.manager = manager,
        // The others go on, and this node's tasks with them; they can make it a worker and then a manager anew.
        Err(error) if member.managers().len() > 1 => {
            let fault = one_line(error.as_ref());
            warn!(error = fault, "this node's manager does not start");
            member.manager_fault = Some(fault);
        }
        Err(error) => {
            member.agent.stop().await;
            return Err(error);
        }
    }
    Ok(member)
}

/// What a manager sees by this agent.
pub(crate) fn watch_of(agent: &Agent) -> Arc<OnceLock<Agent>> {
    Arc::new(OnceLock::from(agent.clone()))
}

pub(crate) fn manager_options(
    config: &Config,
    advertise: IpAddr,
    listen: SocketAddr,
    agent: &Arc<OnceLock<Agent>>,
    keys: &Keys,
) -> Result<ManagerOptions> {
    Ok(ManagerOptions {
        state_dir: config.state_dir.clone(),
        listen,
        advertise: SocketAddr::new(advertise, listen.port()),
        endpoints: Arc::new(AgentView(agent.clone())),
        keyring: keys.ring()?,
    })
}

async fn start_agent(config: &Config, membership: &Membership, identity: Arc<IdentityCell>) -> Result<Agent> {
    let options = AgentOptions {
        node: membership.node,
        cluster: membership.cluster,
        host: HostOptions {
            data_path: membership.data_path.clone(),
            path: match config.path {
                PathMode::Auto => PathChoice::Auto,
                PathMode::General => PathChoice::General,
            },
            outer_checksum: config.outer_checksum,
            uplinks: config.uplinks.clone(),
        },
        advertise_addr: membership.advertise_addr,
        identity,
        managers: membership.managers.clone(),
        state_dir: config.state_dir.clone(),
        data_path: config.data_path(),
        resolv_conf: config.resolv_conf.clone(),
    };
    Ok(Agent::start(options).await?)
}

/// What a flag says, or the only address there is.
pub fn advertise(flag: &str, given: &str) -> Result<IpAddr> {
    if given.is_empty() { address::only(flag) } else { address::resolve(flag, given) }
}

/// What `--data-path-addr` means, or else what `--advertise-addr` does.
pub fn data_path(given: &str, advertised: &str, advertise_addr: IpAddr) -> Result<(IpAddr, DataPathChoice)> {
    match (given, advertised) {
        ("", "") => Ok((advertise_addr, DataPathChoice::Address(advertise_addr))),
        ("", advertised) => address::data_path("--advertise-addr", advertised),
        (given, _) => address::data_path("--data-path-addr", given),
    }
}

/// The name given, or the host's.
pub fn node_name(given: &str) -> Result<Name> {
    if !given.is_empty() {
        return Ok(Name::new(given)?);
    }
    let host = nix::unistd::gethostname().context("the host's name")?;
    let host = host.to_string_lossy();
    Name::new(host.as_ref())
        .with_context(|| format!("the host's name {host:?} does not do; give another with --name"))
}

/// Stands for every address of the family.
pub fn any_of(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn listen_address(given: &str, advertise: IpAddr) -> Result<SocketAddr> {
    if given.is_empty() {
        return Ok((any_of(advertise), MANAGER_PORT).into());
    }
    let parsed = given
        .parse::<SocketAddr>()
        .or_else(|e| given.parse::<IpAddr>().map(|a| (a, MANAGER_PORT).into()).map_err(|_| e));
    let listen = parsed.with_context(|| format!("--listen-addr {given}: give ADDRESS:PORT"))?;
    anyhow::ensure!(listen.port() != 0, "--listen-addr {given}: give a port, other nodes have to know it");
    Ok(listen)
}

/// The managers of a view as people name them: `n1 (192.168.0.1)`.
pub fn managers_of(view: &ClusterView) -> String {
    let managers = view.nodes.values().filter(|n| n.role == Role::Manager);
    let names: Vec<_> = managers.map(|n| format!("{} ({})", n.name, n.advertise_addr)).collect();
    names.join(", ")
}
