//! The verbs of the Local service for one task of this node.

use std::{net::IpAddr, time::Duration};

use mesh_agent::{
    Agent, ConnectError, ConnectSpec, DetachError, Detached, Drain, ExplainError, Explained, Hold, HoldSpec,
    LocalTask, Release, TaskError, TaskInterface, one_line,
};
use mesh_api::{v1, weight};
use mesh_types::{LookupError, Name, NodeId, Owner};
use tonic::Status;

use crate::local::attach_status;

/// The task that `reference` means, with its flows and endpoints.
pub async fn get(agent: &Agent, node: NodeId, reference: &str) -> Result<v1::LocalTask, Status> {
    let task = agent.task(reference).map_err(|e| status(&e))?;
    let flows = agent.task_flows(&task.id.to_string()).await.map_err(|e| status(&e))?;
    let endpoints = task.endpoints(node).map(|endpoint| (&endpoint).into()).collect();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let last_check = agent.last_check(task.id).map(|check| v1::LastCheck {
        age_millis: millis(check.at.elapsed()),
        took_millis: millis(check.took),
        failure: check.failure.map(String::from).unwrap_or_default(),
    });
    let interfaces = agent.interfaces(&task).await.iter().map(interface).collect();
    Ok(v1::LocalTask { flows: Some(flows), endpoints, last_check, interfaces, ..message(&task) })
}

/// The task that is asked for: by its reference, or by its owner.
pub fn reference(agent: &Agent, request: v1::GetTaskRequest) -> Result<String, Status> {
    match named(request.reference, request.owner)? {
        Named::Reference(reference) => Ok(reference),
        Named::Owner(owner) => agent.task_of(&owner).map(|t| t.id.to_string()).map_err(|e| status(&e)),
    }
}

enum Named {
    Reference(String),
    Owner(Owner),
}

fn named(reference: String, owner: String) -> Result<Named, Status> {
    match (reference.is_empty(), owner.is_empty()) {
        (false, true) => Ok(Named::Reference(reference)),
        (true, false) => {
            Owner::new(owner).map(Named::Owner).map_err(|e| Status::invalid_argument(e.to_string()))
        }
        _ => Err(Status::invalid_argument("name a task either by a reference or by its owner")),
    }
}

/// Ends it, or takes it from its owner's networks.
pub async fn detach(agent: Agent, request: v1::DetachRequest) -> Result<v1::DetachResponse, Status> {
    let named = named(request.reference, request.owner)?;
    let detached = tokio::spawn(async move {
        match named {
            Named::Reference(reference) => {
                agent.detach(&reference).await.map(|task| Some(Detached { task, ended: true }))
            }
            Named::Owner(owner) => agent.detach_owner(&owner).await,
        }
    });
    let detached = detached.await.map_err(|e| Status::internal(e.to_string()))?;
    let detached = detached.map_err(|error| match error {
        DetachError::Unknown(_) => Status::not_found(error.to_string()),
        DetachError::Ambiguous(_) => Status::invalid_argument(error.to_string()),
        DetachError::Busy(_) => Status::aborted(error.to_string()),
        DetachError::Leftovers { .. } => Status::internal(error.to_string()),
    })?;
    Ok(detached.map_or_else(v1::DetachResponse::default, |detached| v1::DetachResponse {
        task_id: detached.task.id.to_string(),
        name: detached.task.name.to_string(),
        ended: detached.ended,
    }))
}

/// Changes its weight.
pub async fn update(agent: Agent, request: v1::UpdateTaskRequest) -> Result<v1::LocalTask, Status> {
    let weight = weight("weight", request.weight)?;
    changed(async move { agent.set_weight(&request.reference, weight).await }).await
}

/// Gives it other names where the owner joined it.
pub async fn set_aliases(agent: Agent, request: v1::SetAliasesRequest) -> Result<v1::LocalTask, Status> {
    let invalid = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
    let owner = Owner::new(request.owner).map_err(|e| invalid(&e))?;
    let aliases = request.aliases.into_iter().map(Name::new).collect::<Result<Vec<_>, _>>();
    let aliases = aliases.map_err(|e| invalid(&e))?;
    changed(async move { agent.set_aliases(&owner, aliases).await }).await
}

/// Begins to drain it.
pub async fn drain(agent: Agent, request: v1::DrainTaskRequest) -> Result<v1::LocalTask, Status> {
    let timeout = request.timeout_secs.map(|seconds| Duration::from_secs(seconds.into()));
    changed(async move { agent.drain(&request.reference, timeout).await }).await
}

/// Joins it to one more network; answers its id.
pub async fn connect(agent: Agent, request: v1::ConnectNetworkRequest) -> Result<String, Status> {
    let invalid = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
    let address =
        |text: &String| text.parse().map_err(|_| invalid(&format!("{text:?} is not an IP address")));
    let aliases = request.aliases.into_iter().map(Name::new).collect::<Result<_, _>>();
    let spec = ConnectSpec {
        task: request.task,
        network: request.network,
        addresses: request.addresses.iter().map(address).collect::<Result<_, _>>()?,
        aliases: aliases.map_err(|e| invalid(&e))?,
    };
    connected(async move { agent.connect(spec).await }).await
}

/// Takes it from a network; answers its id.
pub async fn disconnect(agent: Agent, request: v1::DisconnectNetworkRequest) -> Result<String, Status> {
    connected(async move { agent.disconnect(&request.task, &request.network).await }).await
}

/// In a task of its own: a caller that goes away leaves no half-made change.
async fn connected(
    change: impl Future<Output = Result<LocalTask, ConnectError>> + Send + 'static,
) -> Result<String, Status> {
    let task =
        tokio::spawn(mesh_trace::carried(change)).await.map_err(|e| Status::internal(e.to_string()))?;
    task.map(|task| task.id.to_string()).map_err(|error| connect_status(&error))
}

/// Why a task was not joined to a network or taken from it.
pub(crate) fn connect_status(error: &ConnectError) -> Status {
    match error {
        ConnectError::Task(error) => status(error),
        ConnectError::Attach(error) => attach_status(error),
        ConnectError::Lookup(LookupError::Unknown { .. }) => Status::not_found(one_line(error)),
        ConnectError::Lookup(_) => Status::invalid_argument(one_line(error)),
        ConnectError::On { .. } => Status::already_exists(one_line(error)),
        ConnectError::NotOn { .. } => Status::not_found(one_line(error)),
        ConnectError::Last { .. } => Status::failed_precondition(one_line(error)),
        ConnectError::Busy(_) => Status::aborted(one_line(error)),
        ConnectError::Leftovers { .. } => Status::internal(one_line(error)),
    }
}

/// In a task of its own: a caller that goes away leaves no half-made change.
async fn changed(
    change: impl Future<Output = Result<LocalTask, TaskError>> + Send + 'static,
) -> Result<v1::LocalTask, Status> {
    let task =
        tokio::spawn(mesh_trace::carried(change)).await.map_err(|e| Status::internal(e.to_string()))?;
    task.map(|task| message(&task)).map_err(|e| status(&e))
}

/// What a task would be answered, and why.
pub async fn explain_name(
    agent: &Agent,
    request: &v1::ExplainNameRequest,
) -> Result<v1::ExplainNameResponse, Status> {
    let qtype = Some(request.r#type.as_str()).filter(|text| !text.is_empty());
    let explained = agent.explain_name(&request.task, &request.name, qtype).await;
    let (task, lookups) = explained.map_err(|error| match error {
        ExplainError::Task(error) => status(&error),
        ExplainError::NoServer(_) => Status::failed_precondition(error.to_string()),
        ExplainError::Name(_) | ExplainError::Type(_) => Status::invalid_argument(error.to_string()),
    })?;
    let lookup = |explained: Explained| v1::Lookup {
        name: explained.name,
        r#type: explained.qtype,
        code: explained.code,
        records: explained.records,
        network: explained.network.unwrap_or_default(),
        why: explained.why,
        origins: explained.origins,
        upstream: explained.upstream.unwrap_or_default(),
    };
    Ok(v1::ExplainNameResponse {
        task: task.name.to_string(),
        lookups: lookups.into_iter().map(lookup).collect(),
    })
}

/// The node's ports that lead to it: those of one owner, or all.
pub fn host_ports(task: &LocalTask, owner: Option<&Owner>) -> Vec<v1::Port> {
    let ports = match owner {
        Some(_) => {
            let places = task.attachments.iter().filter(|a| a.owner.as_ref() == owner);
            places.flat_map(|a| a.host_ports.clone()).collect()
        }
        None => task.ports(),
    };
    ports.into_iter().map(Into::into).collect()
}

/// An address that is kept.
pub fn reserved(hold: &Hold) -> v1::ReservedAddress {
    v1::ReservedAddress {
        network_id: hold.network.to_string(),
        address: hold.address.to_string(),
        owner: hold.owner.to_string(),
        used: hold.used,
    }
}

/// Keeps an address.
pub async fn reserve(agent: Agent, request: v1::ReserveRequest) -> Result<v1::ReserveResponse, Status> {
    let address = match request.address.as_str() {
        "" => None,
        text => Some(address(text)?),
    };
    let owner = Owner::new(request.owner).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let spec = HoldSpec { network: request.network, address, ipv6: request.ipv6, owner };
    let held = tokio::spawn(async move { agent.hold_address(spec).await }).await;
    let held = held.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| attach_status(&e))?;
    Ok(v1::ReserveResponse {
        network_id: held.network.to_string(),
        address: held.address.to_string(),
        gateway: held.gateway.to_string(),
    })
}

/// Keeps addresses no more.
pub async fn release(agent: Agent, request: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, Status> {
    let v1::ReleaseRequest { owner, network, address: text } = request;
    let which = match (owner.is_empty(), network.is_empty() && text.is_empty()) {
        (false, true) => Release::Of(Owner::new(owner).map_err(|e| Status::invalid_argument(e.to_string()))?),
        (true, false) => Release::Address { network, address: address(&text)? },
        _ => return Err(Status::invalid_argument("name either an owner, or a network and an address")),
    };
    let released = tokio::spawn(async move { agent.release_addresses(&which).await }).await;
    let released = released.map_err(|e| Status::internal(e.to_string()))?;
    let released = released.map_err(|e| Status::internal(one_line(&e)))?;
    Ok(v1::ReleaseResponse { released: u32::try_from(released).unwrap_or(u32::MAX) })
}

fn address(text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is not an IP address")))
}

/// One of its interfaces.
pub fn interface(interface: &TaskInterface) -> v1::TaskInterface {
    let text = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect();
    v1::TaskInterface {
        network_id: interface.network.to_string(),
        network: interface.network_name.to_string(),
        interface: interface.name.clone(),
        host_interface: interface.host_name.clone(),
        mac: interface.mac.to_string(),
        addresses: interface.addresses.iter().map(ToString::to_string).collect(),
        gateways: text(&interface.gateways),
        default_routes: text(&interface.default_routes),
        mtu: interface.mtu,
        owner: interface.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The task as a list has it.
pub fn message(task: &LocalTask) -> v1::LocalTask {
    let (drain, flows_cut) = match task.drain {
        Drain::None => (v1::DrainState::Unspecified, 0),
        Drain::Going { .. } => (v1::DrainState::Draining, 0),
        Drain::Done { cut, .. } => (v1::DrainState::Drained, cut),
    };
    // Rounded up: 0 is when it is over.
    let left = task.drain_left().map_or(0, |left| left.as_millis().div_ceil(1000));
    v1::LocalTask {
        task_id: task.id.to_string(),
        namespace: task.namespace.to_string(),
        pid: task.namespace.pid().unwrap_or_default(),
        name: task.name.to_string(),
        weight: task.weight.into(),
        drain: drain.into(),
        drain_left_secs: u32::try_from(left).unwrap_or(u32::MAX),
        flows_cut,
        flows: None,
        endpoints: Vec::new(),
        dns: Some((&task.dns).into()),
        last_check: None,
        owners: task.owners().into_iter().map(ToString::to_string).collect(),
        interfaces: Vec::new(),
        host_ports: host_ports(task, None),
    }
}

fn status(error: &TaskError) -> Status {
    let text = one_line(error);
    match error {
        TaskError::Unknown(_) | TaskError::NoneOf(_) => Status::not_found(text),
        TaskError::Ambiguous(_) | TaskError::Weight(_) => Status::invalid_argument(text),
        TaskError::Agent(_) => Status::internal(text),
    }
}
