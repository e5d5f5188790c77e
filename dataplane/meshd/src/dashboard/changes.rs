//! What is changed by click: the same calls that `meshctl` makes.

use mesh_api::v1::{self, control_server::Control as _, task_order::What};
use mesh_dashboard::{Change, Refusal};
use mesh_manager::Control;
use mesh_types::{Endpoint, PortConfig};
use tonic::{Request, Status};

/// Makes a change; answers with what was done.
pub async fn make(control: &Control, endpoints: &[Endpoint], change: Change) -> Result<String, Refusal> {
    match change {
        Change::Publish { service, port } => {
            let port: PortConfig = port.parse().map_err(|error| Refusal(format!("{error}")))?;
            let request = v1::PublishRequest { service, ports: vec![port.into()], ..Default::default() };
            let service = control.publish(Request::new(request)).await.map_err(refusal)?.into_inner();
            let port = service.ports.last().cloned().and_then(|port| PortConfig::try_from(port).ok());
            Ok(format!("Published {} of {}.", port.map(|p| p.to_string()).unwrap_or_default(), service.name))
        }
        Change::Unpublish { service, port } => {
            let ports = vec![port.clone()];
            let request = v1::UnpublishRequest { service, ports, ..Default::default() };
            let service = control.unpublish(Request::new(request)).await.map_err(refusal)?.into_inner();
            Ok(format!("Closed {port} of {}.", service.name))
        }
        Change::Weight { task, weight } => {
            let name = order(control, endpoints, &task, What::Weight(weight)).await?;
            Ok(format!("Task {name} has weight {weight} now."))
        }
        Change::Drain { task } => {
            let name = order(control, endpoints, &task, What::Drain(true)).await?;
            Ok(format!("Task {name} drains."))
        }
        Change::Availability { node, availability } => {
            let wire = match availability.as_str() {
                "active" => v1::Availability::Active,
                "pause" => v1::Availability::Pause,
                "drain" => v1::Availability::Drain,
                other => return Err(Refusal(format!("{other:?} is none of active, pause, drain"))),
            };
            let request = v1::UpdateNodeRequest { node, availability: wire.into(), ..Default::default() };
            let node = control.update_node(Request::new(request)).await.map_err(refusal)?.into_inner();
            Ok(format!("Node {}: {availability}.", node.name))
        }
    }
}

/// Has a task's node do it; answers with the task's name.
async fn order(control: &Control, endpoints: &[Endpoint], task: &str, what: What) -> Result<String, Refusal> {
    let found = endpoints.iter().find(|endpoint| endpoint.task.to_string() == task);
    let found = found.ok_or_else(|| Refusal("this task has ended".to_owned()))?;
    let order = v1::TaskOrder {
        node_id: found.node.to_string(),
        task_id: task.to_owned(),
        what: Some(what),
        ..Default::default()
    };
    let report = control.order_task(Request::new(order)).await.map_err(refusal)?.into_inner();
    match report.failure.is_empty() {
        true => Ok(found.name.to_string()),
        false => Err(Refusal(report.failure)),
    }
}

fn refusal(status: Status) -> Refusal {
    Refusal(status.message().to_owned())
}
