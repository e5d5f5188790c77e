//! Tasks that are asked for on a node that is not theirs.

use tonic::Code;

use crate::{daemon::Daemon, failure::Failure, report::Cluster};

/// The same failure, or with the node's name where `task` runs on another one.
pub async fn told(daemon: &Daemon, task: &str, failure: Failure) -> Failure {
    match &failure {
        Failure::Refused { code: Code::NotFound, message } if message.contains("no such task") => {}
        _ => return failure,
    }
    // Whatever keeps the list away: the first failure says more.
    let Ok(cluster) = Cluster::fetch(daemon).await else { return failure };
    match mesh_types::Lookup::find(&cluster.tasks(), task) {
        Ok(task) if task.namespace.is_none() => {
            let message = format!("task {} runs on node {}; run this there", task.name, task.node);
            Failure::Refused { code: Code::NotFound, message }
        }
        _ => failure,
    }
}
