//! What this node counts, for who scrapes it; whether it is alive, and whether it is ready.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_agent::{Agent, Snapshot, count_program_runs};
use mesh_metrics::{
    Facts, Limits, Manager, Member as MemberFacts, Metrics, Process,
    http::{Answer, Bounds, Question, TurnedAway, serve},
    text::Format,
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tracing::{debug, error, info, warn};

use crate::{
    config::MetricsConfig,
    daemon::{Daemon, Member},
    lock::LOCKED,
};

/// How soon an address is tried again that could not be had.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the node may be busy with `init`, `join` or `leave` before that is the answer.
const BUSY: Duration = Duration::from_secs(1);
/// Longest time for which a scrape may have the runs of programs counted.
const LONGEST_COUNT: u32 = 10;
/// What a browser finds.
const INDEX: &str = "meshd\n\n/metrics   for Prometheus; /metrics?programs=1s counts the runs of programs for a second first\n\
    /healthz   the daemon answers\n/readyz    the data path follows what was decided, or why not\n";

/// Serves it for as long as the process runs, where the configuration of the moment says. An address that cannot be had is
/// no reason to be without a data path.
pub async fn follow(daemon: Arc<Daemon>, mut config: watch::Receiver<MetricsConfig>) {
    let started = SystemTime::now();
    let mut said = String::new();
    loop {
        let now = config.borrow_and_update().clone();
        let stopped = match now.listen() {
            None => None,
            Some(address) => tokio::select! {
                stopped = serve_at(&daemon, address, &now, started) => Some(stopped),
                changed = config.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            },
        };
        match stopped {
            None => {
                said.clear();
                if config.changed().await.is_err() {
                    return;
                }
            }
            Some(Err(why)) => {
                let now = format!("{address:?}: {why}", address = now.listen);
                if now != said {
                    error!(listen = now, "serve metrics; tried again until it works or [metrics] says otherwise");
                    said = now;
                }
                // A change is seen at once.
                if let Ok(Err(_)) = timeout(AGAIN, config.changed()).await {
                    return;
                }
            }
        }
    }
}

/// Returns only with an error.
async fn serve_at(
    daemon: &Arc<Daemon>,
    address: SocketAddr,
    config: &MetricsConfig,
    started: SystemTime,
) -> std::io::Result<Infallible> {
    let listener = TcpListener::bind(address).await?;
    info!(%address, "serving metrics");
    if !address.ip().is_loopback() {
        warn!(%address, "metrics, with names of networks, services and tasks, are open to whoever reaches this address");
    }
    let turned_away = TurnedAway::default();
    let desk = Arc::new(Desk {
        daemon: daemon.clone(),
        metrics: Mutex::new(Metrics::new(config.limits())),
        turned_away: turned_away.clone(),
        started,
        counting: tokio::sync::Mutex::new(()),
    });
    let answer = move |question| {
        let desk = desk.clone();
        async move { desk.answer(question).await }
    };
    Ok(serve(listener, Bounds::default(), turned_away, answer).await)
}

impl MetricsConfig {
    fn limits(&self) -> Limits {
        let size = |most: u32| usize::try_from(most).unwrap_or(usize::MAX);
        Limits { endpoints: size(self.endpoints), services: size(self.services) }
    }
}

/// Who answers.
struct Desk {
    daemon: Arc<Daemon>,
    metrics: Mutex<Metrics>,
    turned_away: TurnedAway,
    started: SystemTime,
    /// One scrape at a time has the runs of programs counted.
    counting: tokio::sync::Mutex<()>,
}

/// What is known of a member, without holding anything of it.
struct Seen {
    agent: Agent,
    role: String,
    manager: Option<Manager>,
    fault: Option<String>,
    locked: bool,
}

impl Desk {
    async fn answer(&self, question: Question) -> Answer {
        match question.path.as_str() {
            "/" => Answer::words(200, INDEX),
            "/healthz" => Answer::words(200, "ok"),
            "/readyz" => match self.unready().await {
                reasons if reasons.is_empty() => Answer::words(200, "ready"),
                reasons => Answer::words(503, &reasons.join("\n")),
            },
            "/metrics" => self.metrics(&question).await,
            _ => Answer::words(404, "there are /metrics, /healthz and /readyz"),
        }
    }

    /// Why the node is not ready; nothing if it is.
    async fn unready(&self) -> Vec<String> {
        match self.look().await {
            Err(why) => vec![why],
            Ok(seen) => match seen.agent.snapshot().await {
                Ok(snapshot) => unready(&seen, &snapshot),
                Err(error) => vec![format!("the data path does not answer: {error}")],
            },
        }
    }

    async fn metrics(&self, question: &Question) -> Answer {
        let format = Format::accepted(&question.accept);
        if let Some(wanted) = question.parameter("programs")
            && let Err(refused) = self.count_programs(wanted).await
        {
            return refused;
        }
        let seen = self.look().await.ok();
        let snapshot = match &seen {
            None => None,
            Some(seen) => match seen.agent.snapshot().await {
                Ok(snapshot) => Some(snapshot),
                Err(error) => {
                    warn!(%error, "read what the data path counted");
                    None
                }
            },
        };
        let member = seen.as_ref().zip(snapshot.as_ref());
        let facts = Facts {
            version: env!("CARGO_PKG_VERSION"),
            process: Process::look(self.started),
            turned_away: self.turned_away.count(),
            ready: member.is_some_and(|(seen, snapshot)| unready(seen, snapshot).is_empty()),
            member: member.map(|(seen, snapshot)| MemberFacts {
                snapshot,
                role: &seen.role,
                manager: seen.manager.clone(),
            }),
        };
        let text = self.metrics.lock().unwrap_or_else(PoisonError::into_inner).text(format, &facts);
        Answer { status: 200, content_type: format.content_type(), body: text.into() }
    }

    /// Has the kernel count runs of programs for so long.
    async fn count_programs(&self, wanted: &str) -> Result<(), Answer> {
        let seconds = wanted.strip_suffix('s').and_then(|number| number.parse().ok());
        let seconds = seconds.filter(|seconds| (1..=LONGEST_COUNT).contains(seconds)).ok_or_else(|| {
            Answer::words(400, &format!("programs: give seconds from 1s to {LONGEST_COUNT}s, such as programs=1s"))
        })?;
        let Ok(_turn) = self.counting.try_lock() else {
            return Err(Answer::words(503, "another client has the runs of programs counted just now; try again"));
        };
        let counting = count_program_runs().map_err(|error| {
            Answer::words(503, &format!("the kernel does not count the runs of programs: {error}"))
        })?;
        debug!(seconds, "the kernel counts the runs of programs");
        tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
        drop(counting);
        Ok(())
    }

    /// The member, or why there is none.
    async fn look(&self) -> Result<Seen, String> {
        let member = timeout(BUSY, self.daemon.member.read()).await;
        let member = member.map_err(|_| "an init, join or leave is under way".to_owned())?;
        let member = member.as_ref().ok_or("this node is in no cluster; run `meshctl init` or `meshctl join`")?;
        Ok(Seen {
            agent: member.agent.clone(),
            role: member.membership.role.to_string(),
            manager: manager(member),
            fault: member.manager_fault.clone(),
            locked: self.daemon.keys.is_locked(),
        })
    }
}

/// A node is ready when its data path is what was decided, as far as it knows. It needs no manager for that: without one its
/// tasks run on, and new ones come as long as it has addresses.
fn unready(seen: &Seen, snapshot: &Snapshot) -> Vec<String> {
    let mut reasons = Vec::new();
    if snapshot.applied == 0 {
        reasons.push("the data path is not programmed yet".to_owned());
    }
    if let Some(fault) = &snapshot.fault {
        reasons.push(format!("the last change of the data path failed: {fault}"));
    }
    if seen.locked {
        reasons.push(LOCKED.to_owned());
    } else if let Some(fault) = &seen.fault {
        reasons.push(format!("its manager does not run: {fault}"));
    } else if let Some(Manager { failed: true, .. }) = seen.manager {
        reasons.push("its manager has stopped by itself; the log says why".to_owned());
    }
    reasons
}

fn manager(member: &Member) -> Option<Manager> {
    let manager = member.manager.as_ref()?;
    let (progress, standings) = manager.progress();
    Some(Manager {
        leads: progress.leads,
        has_leader: progress.has_leader,
        votes: manager.votes(),
        failed: manager.failure().is_some(),
        term: progress.term,
        last: progress.last,
        committed: progress.committed,
        applied: progress.applied,
        snapshot: progress.snapshot,
        managers: standings.unwrap_or_default().into_iter().map(|m| (m.voter, m.reachable)).collect(),
    })
}
