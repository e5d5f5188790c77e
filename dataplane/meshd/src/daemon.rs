//! The daemon: in no cluster, or a member with an agent and perhaps a manager.

mod flags;
mod leaving;
mod making;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Result;
use mesh_agent::{Agent, AgentOptions, HostOptions, MemberState, PathChoice, one_line};
use mesh_ca::IdentityCell;
use mesh_manager::{Checked, EndpointView, Heard, Manager, ManagerOptions};
use mesh_types::{ClusterView, Endpoint, NodeId, Role};
use tokio::sync::{RwLock, watch};
use tonic::Status;
use tracing::{info, warn};

pub use self::{
    flags::{advertise, any_of, data_path, node_name},
    making::{InitSpec, NewMember},
};
use crate::{
    config::{Config, MetricsConfig, PathMode},
    connectivity, dashboard,
    identity::Renewal,
    join::{self, JoinSpec},
    lock::{Keys, LOCKED},
    log::Log,
    membership::Membership,
    roles, state_dir, traces, watched,
};

/// See the module.
pub struct Daemon {
    /// As it was at the start.
    pub(crate) config: Config,
    /// With what was followed of the file since.
    followed: Mutex<Config>,
    pub(crate) member: RwLock<Option<Member>>,
    /// What a manager's files are encrypted with.
    pub(crate) keys: Arc<Keys>,
    /// The manager's dashboard, once somebody asked for it.
    pub(crate) dashboard: dashboard::Served,
    /// What is followed of `[metrics]`.
    pub(crate) metrics: watch::Sender<MetricsConfig>,
    pub(crate) log: Log,
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

/// The manager's window on what runs; empty until the agent runs.
struct AgentView(Arc<OnceLock<Agent>>);

impl EndpointView for AgentView {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.0.get().map(|agent| agent.endpoints().0).unwrap_or_default()
    }

    fn checked(&self) -> Arc<Checked> {
        self.0.get().map(Agent::checked_tasks).unwrap_or_default()
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
    pub async fn open(config: Config, log: Log) -> Result<Self> {
        let keys = Keys::find(&config.state_dir)?;
        let member = match Membership::load(&config.state_dir)? {
            Some(membership) => {
                state_dir::finished(&config.state_dir)?;
                of_node(&log, &membership);
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
        let followed = Mutex::new(config.clone());
        let metrics = watch::Sender::new(config.metrics.clone());
        let (member, dashboard) = (RwLock::new(member), dashboard::Served::default());
        Ok(Self { config, followed, member, keys, dashboard, metrics, log })
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
        let config = self.followed();
        of_node(&self.log, membership);
        let agent = start_agent(&config, membership, cell.clone()).await?;
        let state_dir = &self.config.state_dir;
        if let Err(error) = membership.save(state_dir).and_then(|()| state_dir::finished(state_dir)) {
            agent.stop().await;
            return Err(error);
        }
        Ok(agent)
    }

    /// Follows what a running daemon can of a changed configuration.
    pub async fn follow_config(&self, next: &Config) {
        // The member first, so that no agent that is just being started misses it.
        let member = self.member.read().await;
        let before = {
            let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            let before = followed.dashboard.clone();
            followed.follow(next);
            before
        };
        dashboard::follow(&self.dashboard, &before, &next.dashboard).await;
        let metrics = next.metrics.clone();
        self.metrics.send_if_modified(|now| std::mem::replace(now, metrics) != next.metrics);
        if let Some(member) = member.as_ref() {
            member.agent.follow(next.health_commands, next.conntrack.timeouts()).await;
        }
    }

    /// The configuration of now.
    pub(crate) fn followed(&self) -> Config {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops what runs; the data path stays.
    pub async fn stop(&self) {
        dashboard::close(&self.dashboard).await;
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

/// From now on the log and the spans tell which node they are of.
fn of_node(log: &Log, membership: &Membership) {
    log.of_node(&membership.node.to_string());
    traces::of_node(membership);
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
            advertise: membership.advertise.clone(),
            path: match config.path {
                PathMode::Auto => PathChoice::Auto,
                PathMode::General => PathChoice::General,
            },
            outer_checksum: config.outer_checksum,
            uplinks: config.uplinks.clone(),
        },
        advertise_addr: membership.advertise_addr,
        listen: gossip_listens(membership),
        identity,
        formats: mesh_manager::formats(),
        managers: membership.managers.clone(),
        state_dir: config.state_dir.clone(),
        data_path: config.data_path(),
        resolv_conf: config.resolv_conf.clone(),
        health_commands: config.health_commands,
        egress_linger: Duration::from_secs(config.egress_linger.into()),
    };
    let agent = Agent::start(options).await?;
    tokio::spawn(connectivity::follow(agent.clone()));
    tokio::spawn(watched::follow(agent.clone()));
    Ok(agent)
}

/// Where gossip listens: on any address, so that another one needs no new socket, unless --listen-addr names just the one
/// that is advertised.
fn gossip_listens(membership: &Membership) -> IpAddr {
    let (listen, advertise) = (membership.listen_addr.ip(), membership.advertise_addr);
    if listen == advertise { listen } else { any_of(advertise) }
}

/// The managers of a view as people name them: `n1 (192.168.0.1)`.
pub fn managers_of(view: &ClusterView) -> String {
    let managers = view.nodes.values().filter(|n| n.role == Role::Manager);
    let names: Vec<_> = managers.map(|n| format!("{} ({})", n.name, n.advertise_addr)).collect();
    names.join(", ")
}
