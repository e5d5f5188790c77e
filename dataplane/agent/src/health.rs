//! Health checks of this node's tasks, as their services ask for them, each task's on its own.
//!
//! `checkup` decides when to check and what to make of the outcome, `probe` and `command` do it. A change is told to the
//! others first, then the data path and the names here follow; so a sick task gets no new flows from anywhere.

mod checkup;
mod command;
mod probe;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_gossip::{EndpointTable, Tables};
use mesh_types::{ClusterView, Endpoint, Health, HealthCheck, HealthNote, Probe, Service, TaskId};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use self::{checkup::Checkup, probe::try_once};
use crate::{Agent, LocalTask, agent::lock};

/// How many outcomes wait to be told at most; then the checks wait too.
const OUTCOMES: usize = 256;
/// Why a command is not run.
const COMMANDS_OFF: &str =
    "not checked: this node runs no commands for checks (health_commands in its meshd.toml)";

/// The last check of a task.
#[derive(Debug, Clone)]
pub struct LastCheck {
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// Why it failed; none if it passed.
    pub failure: Option<HealthNote>,
}

/// What the checks share with the rest of the agent.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    wake: Notify,
    /// Whether services may have commands run here.
    commands: AtomicBool,
    last: Mutex<BTreeMap<TaskId, LastCheck>>,
    heard: Mutex<Option<(Arc<Tables>, Arc<Checked>)>>,
}

type Checked = BTreeMap<TaskId, Arc<Endpoint>>;

impl Checks {
    /// Nothing is checked yet.
    pub fn new(commands: bool) -> Self {
        Self { commands: commands.into(), ..Self::default() }
    }

    /// Whether services may have commands run here from now on.
    pub fn allow_commands(&self, allowed: bool) {
        self.commands.store(allowed, Ordering::Relaxed);
        self.follow();
    }

    fn commands(&self) -> bool {
        self.commands.load(Ordering::Relaxed)
    }

    /// Tasks or services may have changed.
    pub fn follow(&self) {
        self.wake.notify_one();
    }
}

impl Agent {
    /// The last check of a task; none if it was not checked since the daemon started.
    pub fn last_check(&self, task: TaskId) -> Option<LastCheck> {
        lock(&self.inner.checks.last).get(&task).cloned()
    }

    /// The tasks of all nodes that are checked, as gossip tells of them, each with one of its endpoints; the same value
    /// until gossip tells something new.
    pub fn checked_tasks(&self) -> Arc<BTreeMap<TaskId, Arc<Endpoint>>> {
        let tables = self.inner.gossip.watch().borrow().clone();
        let mut heard = lock(&self.inner.checks.heard);
        if let Some((of, checked)) = heard.as_ref()
            && Arc::ptr_eq(of, &tables)
        {
            return checked.clone();
        }
        let all = tables.endpoints.values().flat_map(EndpointTable::values);
        let checked = all.filter(|e| e.health != Health::None).map(|e| (e.task, e.clone()));
        let checked = Arc::new(checked.collect());
        *heard = Some((tables, Arc::clone(&checked)));
        checked
    }

    /// The health of a new task of `service`: it takes flows at once only if nobody checks it.
    pub(crate) fn first_health(&self, service: Option<&Service>) -> (Health, Option<HealthNote>) {
        match wanted(service, self.inner.checks.commands()) {
            Wanted::Check(_) => (Health::Starting, None),
            Wanted::Nothing(note) => (Health::None, note),
        }
    }

    /// Checks the tasks until the agent stops; all that was just being done ends with this.
    pub(crate) async fn check_health(self) {
        let (sender, mut outcomes) = mpsc::channel(OUTCOMES);
        let mut checkers = Checkers::default();
        loop {
            let changes = checkers.follow(&self, &sender);
            if !changes.is_empty() {
                self.change_health(changes).await;
            }
            tokio::select! {
                () = self.inner.checks.wake.notified() => {}
                Some(first) = outcomes.recv() => {
                    let mut changes = vec![first];
                    changes.extend(std::iter::from_fn(|| outcomes.try_recv().ok()));
                    changes.retain(|change| checkers.is_current(change));
                    self.change_health(changes.into_iter().map(|change| change.found)).await;
                }
            }
        }
    }

    async fn change_health(&self, found: impl IntoIterator<Item = Found>) {
        {
            let mut state = self.lock();
            for Found { task, health, note } in found {
                let Some(task) = state.tasks_mut().iter_mut().find(|t| t.id == task) else { continue };
                let why = note.as_ref().map(HealthNote::as_str);
                match health {
                    Health::Unhealthy => warn!(task = %task.name, why, "unhealthy"),
                    _ => info!(task = %task.name, %health, why, "health"),
                }
                (task.health, task.health_note) = (health, note);
            }
        }
        self.announce().await;
        // A failure is tried again, and shown, by the agent's loop.
        if let Err(error) = self.reconcile().await {
            warn!(%error, "follow the health of tasks");
        }
        if let Err(error) = self.save_tasks() {
            warn!(%error, "keep the tasks");
        }
    }

    /// Checks one task for as long as it is there.
    async fn keep_checking(
        self,
        task: LocalTask,
        check: HealthCheck,
        number: u64,
        outcomes: mpsc::Sender<Outcome>,
    ) {
        let id = task.id;
        let begun = Instant::now();
        let mut checkup = Checkup::new(check.clone(), task.health, Duration::ZERO, rand::random());
        let mut known = (task.health, task.health_note);
        loop {
            tokio::time::sleep_until(begun + checkup.due()).await;
            // As it is now: it may have joined and left networks.
            let Some(task) = self.lock().tasks.iter().find(|t| t.id == id).cloned() else { return };
            let start = Instant::now();
            let outcome = try_once(&task, &check).await;
            let at = Instant::now();
            let failure = outcome.err().map(|failure| HealthNote::of(&failure.to_string()));
            debug!(task = %task.name, failure = failure.as_ref().map(HealthNote::as_str), "checked");
            checkup.ended(failure.is_none(), at - begun, rand::random());
            let health = checkup.health();
            let last = LastCheck { at, took: at - start, failure: failure.clone() };
            lock(&self.inner.checks.last).insert(id, last);
            let now = (health, failure.filter(|_| health == Health::Unhealthy));
            if now != known {
                let found = Found { task: id, health, note: now.1.clone() };
                if outcomes.send(Outcome { number, found }).await.is_err() {
                    return;
                }
                known = now;
            }
        }
    }
}

/// What a service asks for, as far as this node does it.
enum Wanted {
    Check(HealthCheck),
    /// Why not, if it asks for more.
    Nothing(Option<HealthNote>),
}

fn wanted(service: Option<&Service>, commands: bool) -> Wanted {
    match service.and_then(|service| service.health.as_ref()) {
        None => Wanted::Nothing(None),
        Some(check) if matches!(check.probe, Probe::Command(_)) && !commands => {
            Wanted::Nothing(Some(HealthNote::of(COMMANDS_OFF)))
        }
        Some(check) => Wanted::Check(check.clone()),
    }
}

/// What is known of a task.
struct Found {
    task: TaskId,
    health: Health,
    note: Option<HealthNote>,
}

struct Outcome {
    /// Of the checker that it comes from.
    number: u64,
    found: Found,
}

/// The checks under way.
#[derive(Default)]
struct Checkers {
    running: BTreeMap<TaskId, Checker>,
    /// Of the last one begun.
    number: u64,
    /// What they follow, and whether commands were run then.
    seen: Option<(Arc<ClusterView>, Arc<Vec<LocalTask>>, bool)>,
}

struct Checker {
    check: HealthCheck,
    number: u64,
    _running: AbortOnDropHandle<()>,
}

impl Checkers {
    /// Begins and ends checks as tasks and services ask for it now. Returns what changes with that at once.
    fn follow(&mut self, agent: &Agent, outcomes: &mpsc::Sender<Outcome>) -> Vec<Found> {
        let (view, tasks) = {
            let state = agent.lock();
            (state.view.clone(), state.tasks.clone())
        };
        let commands = agent.inner.checks.commands();
        let same = |(v, t, c): &(_, _, _)| Arc::ptr_eq(v, &view) && Arc::ptr_eq(t, &tasks) && *c == commands;
        if self.seen.as_ref().is_some_and(same) {
            return Vec::new();
        }
        let mut before = std::mem::take(&mut self.running);
        let mut changes = Vec::new();
        for task in tasks.iter() {
            let service = task.service.and_then(|id| view.services.get(&id));
            let check = match wanted(service, commands) {
                Wanted::Check(check) => check,
                Wanted::Nothing(note) => {
                    if (task.health, &task.health_note) != (Health::None, &note) {
                        changes.push(Found { task: task.id, health: Health::None, note });
                    }
                    continue;
                }
            };
            let same = before.remove(&task.id).filter(|checker| checker.check == check);
            let checker = same.unwrap_or_else(|| {
                self.number += 1;
                let number = self.number;
                let running =
                    agent.clone().keep_checking(task.clone(), check.clone(), number, outcomes.clone());
                Checker { check, number, _running: AbortOnDropHandle::new(tokio::spawn(running)) }
            });
            self.running.insert(task.id, checker);
        }
        // What is left of `before` ends here.
        lock(&agent.inner.checks.last).retain(|task, _| self.running.contains_key(task));
        self.seen = Some((view, tasks, commands));
        changes
    }

    /// An outcome of checks that have ended meanwhile says nothing any more.
    fn is_current(&self, outcome: &Outcome) -> bool {
        self.running.get(&outcome.found.task).is_some_and(|checker| checker.number == outcome.number)
    }
}
