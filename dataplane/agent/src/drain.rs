//! Taking a task out of its service without cutting what it is just doing.
//!
//! A draining task is announced as such at once: it leaves every table and keeps its established flows. When none is left,
//! or its time is over, it is drained: nobody's backend any more, so what is still there is cut.

use std::time::Duration;

use mesh_types::{Availability, DEFAULT_DRAIN_SECS, Lookup, LookupError, MAX_WEIGHT, Owner};
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tracing::{info, warn};

use crate::{Agent, AgentError, Drain, LocalTask, NsRef};

/// How often the flows of draining tasks are counted.
const POLL: Duration = Duration::from_millis(200);
/// How long a task drains at least, unless its timeout is shorter: until the others have heard, they send it new flows.
const LEAST: Duration = Duration::from_secs(1);

/// A task was not changed.
#[derive(Debug, Error)]
pub enum TaskError {
    /// No such task on this node.
    #[error("no such task on this node: {0}")]
    Unknown(String),
    /// Nothing on this node is that owner's.
    #[error("{0} has no task on this node")]
    NoneOf(Owner),
    /// More than one has that prefix.
    #[error(transparent)]
    Ambiguous(LookupError),
    /// Not of 1 to 100.
    #[error("weight {0} is not between 1 and {MAX_WEIGHT}")]
    Weight(u16),
    /// It is changed, but not yet everywhere, or not kept.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl LocalTask {
    /// How long it may still drain; `None` unless it drains.
    pub fn drain_left(&self) -> Option<Duration> {
        match self.drain {
            Drain::Going { until, .. } => Some(Duration::from_millis(until.saturating_sub(now()))),
            Drain::None | Drain::Done { .. } => None,
        }
    }
}

impl Agent {
    /// The task that `reference` means: its name, id, id prefix, namespace path or pid.
    pub fn task(&self, reference: &str) -> Result<LocalTask, TaskError> {
        let state = self.lock();
        let by_namespace = |t: &&LocalTask| match &t.namespace {
            NsRef::Path(path) => path.as_os_str() == reference,
            NsRef::Pid(pid) => pid.to_string() == reference,
        };
        if let Some(task) = state.tasks.iter().find(by_namespace) {
            return Ok(task.clone());
        }
        match LocalTask::find(state.tasks.iter(), reference) {
            Ok(task) => Ok(task.clone()),
            Err(LookupError::Unknown { .. }) => Err(TaskError::Unknown(reference.to_owned())),
            Err(ambiguous) => Err(TaskError::Ambiguous(ambiguous)),
        }
    }

    /// Sets the task's share of its service's new flows.
    pub async fn set_weight(&self, reference: &str, weight: u16) -> Result<LocalTask, TaskError> {
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(TaskError::Weight(weight));
        }
        self.change(reference, |task| task.weight = weight).await
    }

    /// Begins to drain the task; returns when the others are being told. For one that drains already only the timeout
    /// changes, and for one that is drained nothing does. Without a timeout the task's own counts, then its service's.
    pub async fn drain(&self, reference: &str, timeout: Option<Duration>) -> Result<LocalTask, TaskError> {
        let view = self.view();
        let task = self.change(reference, |task| begin(task, &view, timeout, false)).await?;
        self.inner.drains.notify_one();
        Ok(task)
    }

    /// How many established flows the task has.
    pub async fn task_flows(&self, reference: &str) -> Result<u64, TaskError> {
        let task = self.task(reference)?;
        Ok(self.flows_of(&[task]).await?.first().copied().unwrap_or(0))
    }

    pub(crate) async fn change(
        &self,
        reference: &str,
        change: impl FnOnce(&mut LocalTask),
    ) -> Result<LocalTask, TaskError> {
        let id = self.task(reference)?.id;
        let changed = {
            let mut state = self.lock();
            let task = state.tasks_mut().iter_mut().find(|t| t.id == id);
            let task = task.ok_or_else(|| TaskError::Unknown(reference.to_owned()))?;
            change(task);
            task.clone()
        };
        self.save_tasks()?;
        self.announce().await;
        self.reconcile().await?;
        Ok(changed)
    }

    /// Drains this node's tasks when the managers say that it gives them up, and takes them back when they say otherwise.
    pub(crate) fn follow_availability(&self) {
        let mut state = self.lock();
        let view = state.view.clone();
        let Some(node) = view.nodes.get(&self.inner.node) else { return };
        let given_up = node.availability == Availability::Drain;
        let by_node =
            |d: &Drain| matches!(d, Drain::Going { by_node: true, .. } | Drain::Done { by_node: true, .. });
        let concerned = |t: &LocalTask| if given_up { t.drain == Drain::None } else { by_node(&t.drain) };
        if !state.tasks.iter().any(concerned) {
            return;
        }
        for task in state.tasks_mut().iter_mut().filter(|t| concerned(t)) {
            match given_up {
                true => begin(task, &view, None, true),
                false => task.drain = Drain::None,
            }
        }
        drop(state);
        info!(drain = given_up, "the node's availability changed");
        if let Err(error) = self.save_tasks() {
            warn!(%error, "keep the tasks");
        }
        self.inner.drains.notify_one();
    }

    /// Ends drains when nothing is left to wait for, until the agent stops.
    pub(crate) async fn watch_drains(self) {
        loop {
            let going: Vec<_> = self.tasks().into_iter().filter(|t| t.drain_left().is_some()).collect();
            if going.is_empty() {
                self.inner.drains.notified().await;
                continue;
            }
            tokio::time::sleep(POLL).await;
            match self.flows_of(&going).await {
                Ok(flows) => self.end_drains(&going, &flows).await,
                Err(error) => warn!(%error, "count the flows of draining tasks"),
            }
        }
    }

    async fn end_drains(&self, going: &[LocalTask], flows: &[u64]) {
        let mut ended = Vec::new();
        {
            let mut state = self.lock();
            for (task, &flows) in going.iter().zip(flows) {
                let Drain::Going { least, .. } = task.drain else { continue };
                let quiet = flows == 0 && now() >= least;
                let over = task.drain_left().is_some_and(|left| left.is_zero());
                if !quiet && !over {
                    continue;
                }
                // Its time may have been changed meanwhile.
                let Some(task) =
                    state.tasks_mut().iter_mut().find(|t| t.id == task.id && t.drain == task.drain)
                else {
                    continue;
                };
                if let Drain::Going { by_node, .. } = task.drain {
                    task.drain = Drain::Done { cut: flows, by_node };
                    ended.push((task.name.clone(), flows));
                }
            }
        }
        if ended.is_empty() {
            return;
        }
        for (task, cut) in ended {
            info!(%task, cut, "drained");
        }
        if let Err(error) = self.save_tasks() {
            warn!(%error, "keep the tasks");
        }
        // A failure is tried again, and shown, by the agent's loop.
        if let Err(error) = self.reconcile().await {
            warn!(%error, "end a drain");
        }
    }
}

fn begin(task: &mut LocalTask, view: &mesh_types::ClusterView, timeout: Option<Duration>, by_node: bool) {
    let of_service = task.service.and_then(|s| view.services.get(&s)).map(|s| s.drain_timeout_secs);
    let seconds = task.drain_timeout_secs.or(of_service).unwrap_or(DEFAULT_DRAIN_SECS);
    let usual = Duration::from_secs(seconds.into());
    let end = |timeout: Duration| now().saturating_add(timeout.as_millis().try_into().unwrap_or(u64::MAX));
    task.drain = match task.drain {
        Drain::None => {
            let timeout = timeout.unwrap_or(usual);
            Drain::Going { until: end(timeout), least: end(timeout.min(LEAST)), by_node }
        }
        Drain::Going { until, least, by_node: was } => {
            Drain::Going { until: timeout.map_or(until, end), least, by_node: was && by_node }
        }
        Drain::Done { cut, by_node: was } => Drain::Done { cut, by_node: was && by_node },
    };
}

/// Milliseconds since boot, time asleep included.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
