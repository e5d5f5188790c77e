//! The Local service: what `meshctl` asks of this node.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use anyhow::Error;
use mesh_agent::{
    AgentError, AttachError, AttachSpec, DataPathStats, NsRef, SessionError, Status as AgentStatus,
    UplinkStatus, one_line,
};
use mesh_api::{
    node_listeners,
    v1::{self, attach_request::Namespace, local_server::Local, port::At},
};
use mesh_types::{
    ClusterView, InterfaceName, MAX_WEIGHT, Mac, Name, NodeId, Owner, PortConfig, ResolverError,
};
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::{
    daemon::{Daemon, InitSpec, Member, NewMember},
    dashboard,
    flows::{FlowLists, Lists},
    gossip,
    join::JoinSpec,
    log, packet_trace, reach, snapshot, tasks, traces, watch,
};

/// Where a task's own name server listens.
const NAMESERVER: &str = "127.0.0.11";

/// See the module.
pub struct LocalService {
    daemon: Arc<Daemon>,
    lists: Lists,
}

impl LocalService {
    /// For the daemon's socket.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, lists: Lists::default() }
    }
}

#[tonic::async_trait]
impl Local for LocalService {
    async fn open_dashboard(
        &self,
        request: Request<v1::OpenDashboardRequest>,
    ) -> Result<Response<v1::OpenDashboardResponse>, Status> {
        dashboard::open(&self.daemon, request.into_inner()).await.map(Response::new)
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        let request = request.into_inner();
        let spec = InitSpec {
            name: request.name,
            advertise_addr: request.advertise_addr,
            data_path_addr: request.data_path_addr,
            listen_addr: request.listen_addr,
            default_addr_pools: request.default_addr_pools,
            ipv6: request.ipv6,
            cert_expiry_secs: Some(request.cert_expiry_secs).filter(|secs| *secs != 0),
        };
        let daemon = self.daemon.clone();
        let new = match request.force_new_cluster {
            true => whole(async move { daemon.force_new_cluster(spec).await }).await?,
            false => whole(async move { daemon.init(spec).await }).await?,
        };
        Ok(Response::new(initialized(&new)))
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let request = request.into_inner();
        let spec = JoinSpec {
            token: request.token,
            managers: request.managers,
            name: request.name,
            advertise_addr: request.advertise_addr,
            data_path_addr: request.data_path_addr,
        };
        let daemon = self.daemon.clone();
        let (membership, catching_up) = whole(async move { daemon.join(spec).await }).await?;
        Ok(Response::new(v1::JoinClusterResponse {
            cluster_id: membership.cluster.to_string(),
            node_id: membership.node.to_string(),
            role: v1::Role::from(membership.role).into(),
            catching_up,
        }))
    }

    async fn restore_cluster(
        &self,
        request: Request<v1::RestoreClusterRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        let request = request.into_inner();
        let spec = InitSpec {
            name: request.name,
            advertise_addr: request.advertise_addr,
            data_path_addr: request.data_path_addr,
            listen_addr: request.listen_addr,
            ..InitSpec::default()
        };
        let daemon = self.daemon.clone();
        let new = whole(async move { daemon.restore(spec, request.backup).await }).await?;
        Ok(Response::new(initialized(&new)))
    }

    async fn leave_cluster(
        &self,
        request: Request<v1::LeaveClusterRequest>,
    ) -> Result<Response<v1::LeaveClusterResponse>, Status> {
        let (daemon, force) = (self.daemon.clone(), request.into_inner().force);
        whole(async move { daemon.leave(force).await }).await?;
        Ok(Response::new(v1::LeaveClusterResponse {}))
    }

    async fn unlock(
        &self,
        request: Request<v1::UnlockRequest>,
    ) -> Result<Response<v1::UnlockResponse>, Status> {
        let (daemon, key) = (self.daemon.clone(), request.into_inner().unlock_key);
        whole(async move { daemon.unlock(&key).await }).await?;
        Ok(Response::new(v1::UnlockResponse {}))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let Ok(member) = self.daemon.member().await else {
            let (state, log) = ("inactive".to_owned(), Some(log::status(&self.daemon.log)));
            let traces = traces::status();
            let status = v1::StatusResponse { version, state, log, traces, ..Default::default() };
            return Ok(Response::new(status));
        };
        let agent = member.agent.status().await.map_err(|e| failed(&e.into()))?;
        let mut status = status(version, &member, agent);
        if self.daemon.keys.is_locked() {
            status.state = "locked".to_owned();
        }
        status.log = Some(log::status(&self.daemon.log));
        status.traces = traces::status();
        Ok(Response::new(status))
    }

    async fn dump_gossip(
        &self,
        _: Request<v1::DumpGossipRequest>,
    ) -> Result<Response<v1::DumpGossipResponse>, Status> {
        let member = self.daemon.member().await?;
        gossip::dump(&member.membership, &member.agent).await.map(Response::new)
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::NodeSnapshot>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        let snapshot = agent.snapshot().await.map_err(|e| failed(&e.into()))?;
        Ok(Response::new(snapshot::message(&snapshot, request.get_ref().without_endpoints)))
    }

    async fn get_view(
        &self,
        _: Request<v1::GetViewRequest>,
    ) -> Result<Response<v1::GetViewResponse>, Status> {
        let member = self.daemon.member().await?;
        // A manager reads what was decided, so that a change is seen at once whoever made it; others what they were told.
        let (mut warnings, mut managers) = (Vec::new(), Vec::new());
        let decided = match &member.manager {
            Some(manager) => match manager.decided().await {
                Ok(state) => {
                    managers = manager.standings().await.map(statuses).unwrap_or_default();
                    state.view()
                }
                Err(error) => {
                    let why = one_line(&error);
                    warnings
                        .push(format!("no majority of managers: this is what this node knew last ({why})"));
                    manager.state().borrow().view()
                }
            },
            None => None,
        };
        let mut view = decided.unwrap_or_else(|| ClusterView::clone(&member.agent.view()));
        view.gossip_keys.clear();
        let there = member.manager.iter().flat_map(|manager| {
            view.nodes.keys().map(|node| v1::NodeStatus {
                node_id: node.to_string(),
                status: manager.status_of(*node).as_str().to_owned(),
            })
        });
        let there = there.collect();
        let listeners = match &member.manager {
            Some(manager) => BTreeMap::clone(&manager.listeners().borrow()),
            None => member.agent.listeners(),
        };
        let listeners = listeners.iter().map(|(node, listeners)| node_listeners(*node, listeners));
        Ok(Response::new(v1::GetViewResponse {
            view: Some((&view).into()),
            this_node: member.membership.node.to_string(),
            listeners: listeners.collect(),
            warnings,
            managers,
            statuses: there,
        }))
    }

    async fn list_tasks(
        &self,
        _: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let member = self.daemon.member().await?;
        let (endpoints, members) = member.agent.endpoints();
        Ok(Response::new(v1::ListTasksResponse {
            endpoints: endpoints.iter().map(Into::into).collect(),
            members: members_of(&members),
            local: member.agent.tasks().iter().map(tasks::message).collect(),
            reserved: member.agent.holds().iter().map(tasks::reserved).collect(),
        }))
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        let member = self.daemon.member().await?;
        let agent = member.agent.clone();
        let spec = attach_spec(request.into_inner())?;
        // In a task of its own: a caller that goes away leaves no half-made task.
        let owner = spec.owner.clone();
        let attached = mesh_trace::carried(async move { agent.attach(spec).await });
        let attached = tokio::spawn(attached).await;
        let task = attached.map_err(|e| Status::internal(e.to_string()))?.map_err(|error| {
            let status = attach_status(&error);
            warn!(code = ?status.code(), error = status.message(), "attach refused");
            status
        })?;
        let mut interfaces = member.agent.interfaces(&task).await;
        if owner.is_some() {
            interfaces.retain(|interface| interface.owner == owner);
        }
        Ok(Response::new(v1::AttachResponse {
            task_id: task.id.to_string(),
            name: task.name.to_string(),
            endpoints: task.endpoints(member.membership.node).map(|e| (&e).into()).collect(),
            nameserver: NAMESERVER.to_owned(),
            search: task.dns.search.iter().map(ToString::to_string).collect(),
            resolv_conf: task.resolv_conf().into_bytes(),
            interfaces: interfaces.iter().map(tasks::interface).collect(),
            options: task.dns.options.iter().map(ToString::to_string).collect(),
            host_ports: tasks::host_ports(&task, owner.as_ref()),
        }))
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::detach(agent, request.into_inner()).await.map(Response::new)
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let member = self.daemon.member().await?;
        let reference = tasks::reference(&member.agent, request.into_inner())?;
        tasks::get(&member.agent, member.membership.node, &reference).await.map(Response::new)
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::update(agent, request.into_inner()).await.map(Response::new)
    }

    async fn drain_task(
        &self,
        request: Request<v1::DrainTaskRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::drain(agent, request.into_inner()).await.map(Response::new)
    }

    async fn connect_network(
        &self,
        request: Request<v1::ConnectNetworkRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let member = self.daemon.member().await?;
        let connected = tasks::connect(member.agent.clone(), request.into_inner()).await?;
        tasks::get(&member.agent, member.membership.node, &connected).await.map(Response::new)
    }

    async fn disconnect_network(
        &self,
        request: Request<v1::DisconnectNetworkRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let member = self.daemon.member().await?;
        let disconnected = tasks::disconnect(member.agent.clone(), request.into_inner()).await?;
        tasks::get(&member.agent, member.membership.node, &disconnected).await.map(Response::new)
    }

    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::reserve(agent, request.into_inner()).await.map(Response::new)
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::release(agent, request.into_inner()).await.map(Response::new)
    }

    async fn change_log(
        &self,
        request: Request<v1::ChangeLogRequest>,
    ) -> Result<Response<v1::LogStatus>, Status> {
        log::change(&self.daemon.log, &request.into_inner()).map(Response::new)
    }

    async fn set_aliases(
        &self,
        request: Request<v1::SetAliasesRequest>,
    ) -> Result<Response<v1::LocalTask>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::set_aliases(agent, request.into_inner()).await.map(Response::new)
    }

    async fn explain_name(
        &self,
        request: Request<v1::ExplainNameRequest>,
    ) -> Result<Response<v1::ExplainNameResponse>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        tasks::explain_name(&agent, &request.into_inner()).await.map(Response::new)
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        reach::ping(&agent, request.into_inner()).await.map(Response::new)
    }

    async fn reach(&self, request: Request<v1::ReachRequest>) -> Result<Response<v1::ReachResponse>, Status> {
        let (agent, ends) = {
            let member = self.daemon.member().await?;
            (member.agent.clone(), member.identity.current().not_after())
        };
        reach::reach(&self.daemon.config, &agent, ends, request.get_ref()).await.map(Response::new)
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Result<Response<v1::TraceResponse>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        packet_trace::trace(&agent, request.into_inner()).await.map(Response::new)
    }

    type WatchStream = watch::Events;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<watch::Events>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        watch::watch(&agent, request.into_inner()).await.map(Response::new)
    }

    type ListFlowsStream = FlowLists;

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<FlowLists>, Status> {
        let agent = self.daemon.member().await?.agent.clone();
        self.lists.list(&agent, request.into_inner()).await.map(Response::new)
    }
}

fn statuses((members, leader): (Vec<mesh_manager::Standing>, Option<NodeId>)) -> Vec<v1::ManagerStatus> {
    let status = |m: mesh_manager::Standing| v1::ManagerStatus {
        node_id: m.node.to_string(),
        leader: leader == Some(m.node),
        voter: m.voter,
        reachable: m.reachable,
    };
    members.into_iter().map(status).collect()
}

fn initialized(new: &NewMember) -> v1::InitResponse {
    v1::InitResponse {
        cluster_id: new.membership.cluster.to_string(),
        node_id: new.membership.node.to_string(),
        worker_token: new.worker_token.clone(),
        managers: new.managers.iter().map(ToString::to_string).collect(),
    }
}

fn status(version: String, member: &Member, agent: AgentStatus) -> v1::StatusResponse {
    let membership = &member.membership;
    let clock = crate::identity::clock_warning(&member.identity.current());
    let counters =
        |map: BTreeMap<&'static str, u64>| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let hooks = agent.hooks.into_iter();
    let hooks =
        hooks.map(|(interface, program, kind)| v1::Hook { interface, program, kind: kind.to_string() });
    v1::StatusResponse {
        version,
        state: "active".to_owned(),
        cluster_id: membership.cluster.to_string(),
        node_id: membership.node.to_string(),
        node_name: membership.name.to_string(),
        role: v1::Role::from(membership.role).into(),
        advertise_addr: member.agent.advertise_addr().to_string(),
        data_path_addr: agent.data_path_addr.address.to_string(),
        managers: agent.managers.iter().map(ToString::to_string).collect(),
        manager_session: agent.session.to_string(),
        view_version: agent.view_version,
        decided_version: member.manager.as_ref().map_or(0, |m| m.state().borrow().view_version()),
        members: members_of(&agent.members),
        tasks: agent.tasks.try_into().unwrap_or(u32::MAX),
        data_path: Some(v1::DataPathStatus {
            path: agent.path,
            uplink: agent.data_path_addr.interface.clone(),
            uplink_mtu: agent.uplinks.first().map_or(0, |u| u.mtu),
            task_mtu: agent.task_mtu,
            hooks: hooks.collect(),
            drops: counters(agent.data_path.drops.iter().map(|(r, &n)| (r.as_str(), n)).collect()),
            packets: counters(agent.data_path.counters.iter().map(|(c, &n)| (c.as_str(), n)).collect()),
            features: agent.missing,
            uplinks: agent.uplinks.into_iter().map(uplink).collect(),
            flows: flow_tables(&agent.data_path),
            maps: agent.data_path.maps.iter().map(|(name, m)| map_use(name, m.used, m.capacity)).collect(),
        }),
        warnings: clock.into_iter().chain(member.manager_warnings()).chain(agent.warnings).collect(),
        leases: Some(v1::LeaseStatus {
            left_secs: agent.lease_left.as_secs(),
            unconfirmed: agent.unconfirmed.try_into().unwrap_or(u32::MAX),
        }),
        listeners: agent.listeners.iter().map(Into::into).collect(),
        gossip: agent.gossip.as_ref().map(gossip::status),
        ..Default::default()
    }
}

/// How full the tables of established flows are, as of the last look at all of them.
fn flow_tables(data_path: &DataPathStats) -> Vec<v1::FlowTable> {
    let tables = [("from clients", "CHOICES_KEPT"), ("to tasks", "REVERSE_KEPT")];
    let table =
        |(name, map): (&str, &str)| data_path.maps.get(map).map(|m| map_use(name, m.used, m.capacity));
    tables.into_iter().filter_map(table).collect()
}

fn map_use(name: &str, used: u32, capacity: u32) -> v1::FlowTable {
    v1::FlowTable { name: name.to_owned(), used: used.into(), capacity: capacity.into() }
}

fn uplink(uplink: UplinkStatus) -> v1::Uplink {
    let UplinkStatus { interface, hook, reason, mtu } = uplink;
    v1::Uplink { interface, hook, reason, mtu }
}

fn members_of(members: &BTreeMap<NodeId, mesh_agent::MemberState>) -> Vec<v1::Member> {
    let state = gossip::state;
    members.iter().map(|(id, &s)| v1::Member { node_id: id.to_string(), state: state(s).into() }).collect()
}

fn attach_spec(request: v1::AttachRequest) -> Result<AttachSpec, Status> {
    let invalid = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
    let namespace = match request.namespace {
        Some(Namespace::Path(path)) => NsRef::Path(path.into()),
        Some(Namespace::Pid(pid)) => NsRef::Pid(pid),
        None => return Err(Status::invalid_argument("no namespace is named")),
    };
    let optional = |text: String| (!text.is_empty()).then_some(text);
    let name = optional(request.name).map(Name::new).transpose().map_err(|e| invalid(&e))?;
    let parse =
        |a: &String| a.parse().map_err(|_| Status::invalid_argument(format!("{a:?} is not an IP address")));
    let addresses: Result<Vec<IpAddr>, _> = request.addresses.iter().map(parse).collect();
    let weight = match request.weight {
        0 => 1,
        given => u16::try_from(given).ok().filter(|w| (1..=MAX_WEIGHT).contains(w)).ok_or_else(|| {
            Status::invalid_argument(format!("weight {given} is not between 1 and {MAX_WEIGHT}"))
        })?,
    };
    let aliases: Result<Vec<Name>, _> = request.aliases.into_iter().map(Name::new).collect();
    Ok(AttachSpec {
        namespace,
        name,
        service: optional(request.service),
        networks: request.networks,
        addresses: addresses?,
        aliases: aliases.map_err(|e| invalid(&e))?,
        weight,
        drain_timeout_secs: request.drain_timeout_secs,
        dns: request.dns.unwrap_or_default().try_into().map_err(|e: ResolverError| invalid(&e))?,
        owner: optional(request.owner).map(Owner::new).transpose().map_err(|e| invalid(&e))?,
        interface: optional(request.interface)
            .map(|name| InterfaceName::new(&name))
            .transpose()
            .map_err(|e| invalid(&e))?,
        host_ports: request.host_ports.into_iter().map(host_port).collect::<Result<_, _>>()?,
        mac: optional(request.mac).map(|mac| mac.parse::<Mac>()).transpose().map_err(|e| invalid(&e))?,
    })
}

/// One that is asked for at the unspecified address is asked for on all.
fn host_port(mut port: v1::Port) -> Result<PortConfig, Status> {
    let unspecified = |address: &String| {
        address.is_empty() || address.parse().is_ok_and(|address: IpAddr| address.is_unspecified())
    };
    if let Some(At::Address(address)) = &port.at
        && unspecified(address)
    {
        port.at = None;
    }
    port.try_into().map_err(|e: mesh_api::Invalid| Status::invalid_argument(e.to_string()))
}

/// Runs to its end even when the caller goes away: half an `init` would be neither here nor there.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::spawn(mesh_trace::carried(work)).await.map_err(|e| Status::internal(e.to_string()))?;
    done.map_err(|e| failed(&e))
}

/// An error with its causes on one line.
fn failed(error: &Error) -> Status {
    Status::failed_precondition(one_line(error.as_ref()))
}

pub(crate) fn attach_status(error: &AttachError) -> Status {
    let text = one_line(error);
    match error {
        AttachError::Lookup(_) => Status::not_found(text),
        AttachError::NoNetwork
        | AttachError::NetworkTwice(_)
        | AttachError::NeedsOneNetwork(_)
        | AttachError::GroupMac(_)
        | AttachError::PortTwice(_)
        | AttachError::PortReserved { .. }
        | AttachError::Ingress(_)
        | AttachError::PortInterface(_)
        | AttachError::PortAddress { .. }
        | AttachError::PortFamily { .. }
        | AttachError::NoSubnet { .. }
        | AttachError::TwoOfAFamily(..)
        | AttachError::Resolver(_)
        | AttachError::AddressOfSubnet { .. }
        | AttachError::AddressOutside { .. } => Status::invalid_argument(text),
        AttachError::AddressTaken { .. }
        | AttachError::NameTaken { .. }
        | AttachError::AlreadyAttached { .. }
        | AttachError::Other { .. }
        | AttachError::AddressHeld { .. }
        | AttachError::PortPublished { .. }
        | AttachError::PortOfTask { .. }
        | AttachError::Owned { .. } => Status::already_exists(text),
        AttachError::Join(error) => tasks::connect_status(error),
        AttachError::Busy(_) => Status::aborted(text),
        AttachError::Lease { source: SessionError::NoManager(_), .. } => Status::unavailable(text),
        AttachError::Agent(AgentError::Features(_)) => Status::unimplemented(text),
        _ => Status::failed_precondition(text),
    }
}
