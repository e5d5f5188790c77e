//! Load that goes on whatever becomes of it: requests at a fixed rate, each on a connection of its own, and wrk.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};

use crate::{
    http::get,
    netns::{NetNs, open},
    node::Node,
    process::{Lifetime, Process, lines_of},
};

/// A request that was not answered.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it was begun.
    pub began: Instant,
    /// Whom it was sent to, and what went wrong.
    pub why: String,
}

/// What became of a [`Load`].
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How many requests were sent.
    pub requests: usize,
    /// Those that failed, in the order of their ends.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Fails when a request did.
    pub fn none_failed(&self) -> Result<()> {
        let some: Vec<&str> = self.failures.iter().take(5).map(|f| f.why.as_str()).collect();
        ensure!(some.is_empty(), "{} of {} requests failed: {some:#?}", self.failures.len(), self.requests);
        Ok(())
    }

    /// How long after `event` the last request that failed was begun; zero when all such were on their way already.
    pub fn failing_after(&self, event: Instant) -> Duration {
        let after = self.failures.iter().map(|f| f.began.saturating_duration_since(event));
        after.max().unwrap_or_default()
    }
}

/// Requests at a fixed rate, each with a connection of its own, to each server in turn. They are begun on time, whether
/// those before them have been answered or not. Ended on drop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins, from the network namespace at `from`; a request may take `at_most`.
    pub fn start(from: &Path, servers: Vec<SocketAddr>, per_second: u32, at_most: Duration) -> Result<Self> {
        ensure!(!servers.is_empty() && per_second > 0, "no load");
        let namespace = open(from)?;
        let (stop, outcome) = (Arc::default(), Arc::default());
        let mut load = Self { stop, outcome, thread: None };
        let (stop, outcome) = (load.stop.clone(), load.outcome.clone());
        load.thread = Some(std::thread::spawn(move || {
            // Threads that it starts are in the namespace too.
            let entered = setns(&namespace, CloneFlags::CLONE_NEWNET);
            let start = Instant::now();
            let mut requests = Vec::new();
            for (server, number) in servers.iter().copied().cycle().zip(0u32..) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let due = start + Duration::from_secs(1) * number / per_second;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let outcome = Arc::clone(&outcome);
                requests.retain(|thread: &JoinHandle<()>| !thread.is_finished());
                requests.push(std::thread::spawn(move || {
                    let began = Instant::now();
                    let answer = match entered {
                        Ok(()) => get(server, at_most).map(drop),
                        Err(error) => Err(error).context("setns"),
                    };
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    outcome.requests += 1;
                    if let Err(error) = answer {
                        outcome.failures.push(Failure { began, why: format!("{error:#}") });
                    }
                }));
            }
            for request in requests {
                let _ = request.join();
            }
        }));
        Ok(load)
    }

    /// Ends it and waits for the last answers.
    pub fn end(mut self) -> Outcome {
        self.finish();
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.finish();
    }
}

/// wrk: as many requests as there is room for, on connections that are kept. Ended on drop.
#[derive(Debug)]
pub struct Wrk {
    process: Process,
    log: PathBuf,
}

impl Wrk {
    /// Begins, from the network namespace at `from`; what it prints is kept in the folder of `node`.
    pub fn start(node: &Node, name: &str, from: &Path, url: &str, connections: u32) -> Result<Self> {
        let mut command = NetNs::command_at(from, "wrk")?;
        command.args(["--threads", "1", "--duration", "600", "--timeout", "10"]);
        command.args(["--connections", &connections.to_string(), url]);
        let log = node.folder().join(format!("{name}.wrk"));
        let process = Process::start(command, Lifetime::Owner, &log, &node.records())?;
        Ok(Self { process, log })
    }

    /// Ends it; how many requests were answered. Fails when one was not, or not well.
    pub fn end(mut self) -> Result<u64> {
        self.process.signal(Signal::SIGINT)?;
        let status = self.process.wait(Duration::from_secs(15))?;
        let text = lines_of(&self.log, 40);
        ensure!(status.success(), "wrk ended with {status}: {text}");
        let errors = text.contains("Socket errors") || text.contains("Non-2xx");
        ensure!(!errors, "wrk saw errors: {text}");
        let count = text.lines().find_map(|l| l.trim().split_once(" requests in ")?.0.parse().ok());
        count.with_context(|| format!("wrk counts no requests: {text}"))
    }
}
