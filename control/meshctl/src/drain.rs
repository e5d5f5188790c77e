//! Draining a task of this node, and waiting until that is done.

use std::time::{Duration, Instant};

use mesh_api::v1::{DrainState, DrainTaskRequest, GetTaskRequest, LocalTask};
use tonic::Code;

use crate::{
    daemon::{Daemon, answer},
    elsewhere,
    failure::Failure,
};

/// How often the daemon is asked.
const POLL: Duration = Duration::from_millis(100);
/// How much longer than the drain's own time a daemon that does not answer is waited for: one that is being restarted
/// goes on draining.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has the task drained; its own timeout, else its service's, counts unless another one is given, in seconds.
pub async fn begin(
    daemon: &Daemon,
    reference: &str,
    timeout_secs: Option<u32>,
) -> Result<LocalTask, Failure> {
    let request = DrainTaskRequest { reference: reference.to_owned(), timeout_secs };
    match answer(daemon.local().drain_task(request)).await {
        Err(failure) => Err(elsewhere::told(daemon, reference, failure).await),
        drained => drained,
    }
}

/// The task when it has drained; one that has ended meanwhile counts as drained.
pub async fn finished(daemon: &Daemon, mut task: LocalTask) -> Result<LocalTask, Failure> {
    let mut heard = Instant::now();
    while task.drain() == DrainState::Draining {
        tokio::time::sleep(POLL).await;
        let request = GetTaskRequest { reference: task.task_id.clone(), ..GetTaskRequest::default() };
        match answer(daemon.local().get_task(request)).await {
            Ok(now) => {
                task = now;
                heard = Instant::now();
            }
            Err(Failure::Refused { code: Code::NotFound, .. }) => task.set_drain(DrainState::Drained),
            Err(error) => {
                let left = Duration::from_secs(task.drain_left_secs.into());
                if heard.elapsed() > left + PATIENCE {
                    return Err(error);
                }
            }
        }
    }
    Ok(task)
}

/// Says on stderr what did not end in time.
pub fn note(task: &LocalTask) {
    if task.drain() == DrainState::Drained && task.flows_cut > 0 {
        let connections = if task.flows_cut == 1 { "connection was" } else { "connections were" };
        let (name, cut) = (&task.name, task.flows_cut);
        anstream::eprintln!(
            "meshctl: task {name}: {cut} {connections} still open when its drain timeout ended"
        );
    }
}
