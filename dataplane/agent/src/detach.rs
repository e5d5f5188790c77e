//! Detaching tasks. Those that end while others are just being ended gather, and are ended together: one plan, one file, one
//! removal of links. The kernel has each removal wait for all readers of its tables, for many links no longer than for one.

use std::sync::{Mutex, atomic::Ordering};

use mesh_types::{Owner, TaskId};
use tokio::{sync::oneshot, task::JoinSet};
use tracing::{debug, info, warn};

use crate::{
    Agent, DetachError, LocalTask, TaskError, addresses::Taken, agent::lock, ending::Ending, fault::point,
    resolver, state::Reservation,
};

/// The tasks that are to be ended.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    gathered: Mutex<Vec<Departure>>,
    turn: tokio::sync::Mutex<()>,
}

/// A task that nobody is told of any more, but that is still in the kernel.
#[derive(Debug)]
struct Departure {
    task: LocalTask,
    /// Of what it holds until its links are gone.
    ticket: u64,
    /// What could not be removed.
    done: oneshot::Sender<Vec<String>>,
}

impl Agent {
    /// Detaches the task that `reference` means: its name, id, id prefix, namespace path or pid.
    pub async fn detach(&self, reference: &str) -> Result<LocalTask, DetachError> {
        let id = match self.task(reference) {
            Ok(task) => task.id,
            Err(TaskError::Ambiguous(ambiguous)) => return Err(ambiguous.into()),
            Err(_) => {
                let named =
                    |t: &LocalTask| t.name.as_str() == reference || t.namespace.to_string() == reference;
                let absent = self.forget_absent(named).await;
                return absent.ok_or_else(|| DetachError::Unknown(reference.to_owned()));
            }
        };
        self.detach_id(id, None).await.ok_or_else(|| DetachError::Unknown(reference.to_owned()))?
    }

    /// Detaches a task; `None` when it is not there (any more), or others than `only` hold it on a network or are about to.
    pub(crate) async fn detach_id(
        &self,
        id: TaskId,
        only: Option<&Owner>,
    ) -> Option<Result<LocalTask, DetachError>> {
        let ticket = self.inner.tickets.fetch_add(1, Ordering::Relaxed);
        let task = {
            let mut state = self.lock();
            let place = state.tasks.iter().position(|t| t.id == id)?;
            if let Some(owner) = only {
                let found = &state.tasks[place];
                let theirs = found.attachments.iter().all(|a| a.owner.as_ref() == Some(owner));
                let still = state.reserved.values().all(|r| r.namespace != found.namespace_id);
                if !theirs || !still {
                    return None;
                }
            }
            let task = state.tasks_mut().remove(place);
            // Until the links are gone, so that no new task has their routes.
            let held = Reservation {
                namespace: task.namespace_id,
                name: task.name.clone(),
                networks: Vec::new(),
                ids: task.attachments.iter().map(|a| a.local_id).collect(),
                owners: task.owners().into_iter().cloned().collect(),
                host_ports: Vec::new(),
            };
            state.reserved.insert(ticket, held);
            task
        };
        // To its end, even if the caller gives up.
        let ending = tokio::spawn(self.clone().depart(task.clone(), ticket));
        let problems = match ending.await {
            Ok(problems) => problems,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => vec!["the daemon ends; its next start goes on".to_owned()],
        };
        info!(task = %task.name, id = %task.id, "detached");
        Some(match problems.is_empty() {
            true => Ok(task),
            false => Err(DetachError::Leftovers { task: task.name, problems: problems.join("; ") }),
        })
    }

    /// Ends a task that is no more in the state, together with those that wait for it too; tells what could not be removed.
    async fn depart(self, task: LocalTask, ticket: u64) -> Vec<String> {
        // The others first: nobody should send any more when the link goes.
        self.withdraw(task.id).await;
        point("withdrawn");
        let (done, mut problems) = oneshot::channel();
        lock(&self.inner.departures.gathered).push(Departure { task, ticket, done });
        let turn = self.inner.departures.turn.lock().await;
        // Whoever had the turn before may have ended this one too.
        if let Ok(problems) = problems.try_recv() {
            return problems;
        }
        let gathered = std::mem::take(&mut *lock(&self.inner.departures.gathered));
        let tasks: Vec<_> = gathered.iter().map(|departure| &departure.task).collect();
        let left = self.end(&tasks).await;
        drop(turn);
        if !tasks.is_empty() {
            // A manager may have to be asked; the next ones need not wait for that.
            self.release(&tasks).await;
            self.tell(gathered, left);
        }
        // A panic is told by the one that it came to.
        problems.await.unwrap_or_else(|_| vec!["it was not looked after to the end".to_owned()])
    }

    async fn end(&self, tasks: &[&LocalTask]) -> Vec<Vec<String>> {
        if tasks.is_empty() {
            return Vec::new();
        }
        let mut problems = self.take_down(tasks).await;
        if let Err(error) = self.save_tasks() {
            problems.iter_mut().for_each(|all| all.push(error.to_string()));
        }
        point("forgotten");
        debug!(count = tasks.len(), "tasks ended");
        problems
    }

    async fn release(&self, tasks: &[&LocalTask]) {
        let had = tasks.iter().flat_map(|task| &task.attachments).map(|a| Taken {
            network: a.network,
            addresses: a.addresses.clone(),
            fixed: a.fixed.clone(),
        });
        self.give_back(had.collect()).await;
    }

    fn tell(&self, gathered: Vec<Departure>, left: Vec<Vec<String>>) {
        for (departure, left) in gathered.into_iter().zip(left) {
            self.lock().reserved.remove(&departure.ticket);
            // Nobody waits when the daemon ends.
            let _ = departure.done.send(left);
        }
    }

    /// Removes everything of these tasks from this node; goes on past errors and tells them, task by task.
    pub(crate) async fn take_down(&self, tasks: &[&LocalTask]) -> Vec<Vec<String>> {
        {
            let mut state = self.lock();
            let going = |t: &LocalTask| tasks.iter().any(|task| task.id == t.id);
            if state.tasks.iter().any(going) {
                state.tasks_mut().retain(|t| !going(t));
            }
        }
        let mut problems = vec![Vec::new(); tasks.len()];
        if let Err(error) = self.reconcile().await {
            problems.iter_mut().for_each(|all| all.push(error.to_string()));
        }
        point("unplanned");
        for task in tasks {
            self.stop_dns(task.id).await;
        }
        let mut steps = JoinSet::new();
        for (at, task) in tasks.iter().enumerate() {
            let task = LocalTask::clone(task);
            steps.spawn(async move { (at, resolver::step_back(&task).await) });
        }
        while let Some(stepped) = steps.join_next().await {
            match stepped {
                Ok((at, stepped)) => problems[at].extend(stepped.err().map(|e| e.to_string())),
                Err(error) => warn!(%error, "the resolver of a task that ends"),
            }
        }
        let mut attachments = Vec::new();
        for (at, task) in tasks.iter().enumerate() {
            attachments.extend(task.attachments.iter().map(|attachment| (at, attachment)));
        }
        let links: Vec<_> = attachments.iter().map(|(_, a)| a.link.as_str()).collect();
        // With the programs on them: what a namespace that lives on sends must not pass by them for as long as many take.
        let removed = self.inner.netlink.remove_links(&links).await;
        point("unlinked");
        let unhooked = self.detach_programs(&links).await;
        point("unhooked");
        for (((at, attachment), unhooked), removed) in attachments.into_iter().zip(unhooked).zip(removed) {
            problems[at].extend(unhooked.err().map(|e| e.to_string()));
            problems[at].extend(removed.err().map(|e| e.to_string()));
            problems[at].extend(self.close_way_out(attachment).await.err().map(|e| e.to_string()));
        }
        problems
    }

    /// Detaches the task when it ends by itself.
    pub(crate) fn watch_end(&self, id: TaskId, ending: Ending) {
        let agent = self.clone();
        let stop = self.inner.stop.clone();
        tokio::spawn(async move {
            if stop.run_until_cancelled(ending.wait()).await.is_none() {
                return;
            }
            if let Some(Err(error)) = agent.detach_id(id, None).await {
                warn!(task = %id, %error, "detach after a task's end");
            }
        });
    }
}
