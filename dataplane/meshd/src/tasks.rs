//! The verbs of the Local service for one task of this node.

use std::time::Duration;

use mesh_agent::{Agent, Drain, LocalTask, TaskError, one_line};
use mesh_api::{v1, weight};
use mesh_types::NodeId;
use tonic::Status;

/// The task that `reference` means, with its flows and endpoints.
pub async fn get(agent: &Agent, node: NodeId, reference: &str) -> Result<v1::LocalTask, Status> {
    let task = agent.task(reference).map_err(|e| status(&e))?;
    let flows = agent.task_flows(&task.id.to_string()).await.map_err(|e| status(&e))?;
    let endpoints = task.endpoints(node).map(|endpoint| (&endpoint).into()).collect();
    Ok(v1::LocalTask { flows: Some(flows), endpoints, ..message(&task) })
}

/// Changes its weight.
pub async fn update(agent: Agent, request: v1::UpdateTaskRequest) -> Result<v1::LocalTask, Status> {
    let weight = weight("weight", request.weight)?;
    changed(async move { agent.set_weight(&request.reference, weight).await }).await
}

/// Begins to drain it.
pub async fn drain(agent: Agent, request: v1::DrainTaskRequest) -> Result<v1::LocalTask, Status> {
    let timeout = request.timeout_secs.map(|seconds| Duration::from_secs(seconds.into()));
    changed(async move { agent.drain(&request.reference, timeout).await }).await
}

/// In a task of its own: a caller that goes away leaves no half-made change.
async fn changed(
    change: impl Future<Output = Result<LocalTask, TaskError>> + Send + 'static,
) -> Result<v1::LocalTask, Status> {
    let task = tokio::spawn(change).await.map_err(|e| Status::internal(e.to_string()))?;
    task.map(|task| message(&task)).map_err(|e| status(&e))
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
    }
}

fn status(error: &TaskError) -> Status {
    let text = one_line(error);
    match error {
        TaskError::Unknown(_) => Status::not_found(text),
        TaskError::Ambiguous(_) | TaskError::Weight(_) => Status::invalid_argument(text),
        TaskError::Agent(_) => Status::internal(text),
    }
}
