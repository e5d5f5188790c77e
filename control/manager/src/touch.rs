//! Whether this manager is in touch with a majority of the managers.
//!
//! One that is not may know less than was decided since: it holds no sessions, so that agents follow another one.

use std::time::Duration;

use mesh_raft::RaftNode;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is asked, and how long an answer may take.
const PERIOD: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);
/// Without an answer for so long the sessions end: longer than an election.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a new session waits for the first answer.
const FIRST: Duration = Duration::from_secs(3);

/// What sessions live by.
#[derive(Debug)]
pub(crate) struct Touch {
    sessions: watch::Sender<Option<CancellationToken>>,
}

impl Touch {
    pub fn new() -> Self {
        Self { sessions: watch::channel(None).0 }
    }

    /// What ends a session that begins now; none if this manager should hold none.
    pub async fn session(&self) -> Option<CancellationToken> {
        let mut sessions = self.sessions.subscribe();
        let found = timeout(FIRST, sessions.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Asks, until `stop`; then all sessions have ended.
    pub async fn follow(&self, raft: RaftNode, stop: CancellationToken) {
        let mut heard = Instant::now();
        while !stop.is_cancelled() {
            let asked = stop.run_until_cancelled(raft.linearizable_within(ANSWER)).await;
            let holds = self.sessions.borrow().is_some();
            match asked {
                Some(Ok(_)) => {
                    heard = Instant::now();
                    if !holds {
                        self.sessions.send_replace(Some(stop.child_token()));
                    }
                }
                Some(Err(error)) if holds && heard.elapsed() > PATIENCE => {
                    warn!(%error, "no majority of managers: sessions end");
                    if let Some(sessions) = self.sessions.send_replace(None) {
                        sessions.cancel();
                    }
                }
                Some(Err(error)) if !holds => info!(%error, "no majority of managers yet"),
                _ => {}
            }
            stop.run_until_cancelled(sleep(PERIOD)).await;
        }
    }
}
