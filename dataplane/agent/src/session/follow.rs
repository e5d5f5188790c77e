//! Finding a manager, following it, and telling it of this node.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_api::{
    transport,
    v1::{self, dispatcher_client::DispatcherClient},
};
use mesh_ca::IdentityCell;
use rand::{Rng, seq::SliceRandom};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use super::{
    Session, SessionState,
    call::{SessionError, call, one_line},
    lock,
    told::{Told, heard},
};

/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// How long a manager may take to begin a session before it counts as stuck.
const ANSWER: Duration = Duration::from_secs(3);
/// After this silence the next manager is asked too.
const HEDGE: Duration = Duration::from_millis(300);
/// The least time between two reports that only tell how far this node has come.
const STEADY: Duration = Duration::from_secs(1);

impl Session {
    pub(super) async fn follow_for_ever(self, told: mpsc::Sender<Told>) {
        let mut backoff = MIN_BACKOFF;
        let mut last = None;
        while !told.is_closed() {
            let begun = Instant::now();
            match self.find(last).await {
                Ok(opened) => {
                    last = Some(opened.manager);
                    let ended = self.follow(opened, &told).await;
                    self.disconnected(ended);
                }
                Err(state) => self.disconnected(state),
            }
            // From a manager that has served for a while it goes to the next at once.
            if begun.elapsed() > MAX_BACKOFF && last.is_some() {
                backoff = MIN_BACKOFF;
            } else {
                let jitter = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(backoff.mul_f64(jitter)).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
        }
    }

    fn disconnected(&self, new: SessionState) {
        // Whoever wants to know says so again.
        self.shared.traffic.send_if_modified(|known| std::mem::take(known) != 0);
        if lock(&self.shared.channel).take().is_some() {
            *lock(&self.shared.lost) = Some(Instant::now());
        }
        self.shared.state.send_if_modified(|state| {
            let changed = *state != new;
            if changed {
                info!(state = %new, "manager session");
                *state = new;
            }
            changed
        });
    }

    /// The first manager that answers: they are tried in any order, `last` at the end, each a moment after the other.
    async fn find(&self, last: Option<SocketAddr>) -> Result<Opened, SessionState> {
        let mut managers = self.managers();
        let heard = lock(&self.shared.heard).clone();
        managers.extend(heard.into_iter().filter(|heard| !self.managers().contains(heard)));
        managers.shuffle(&mut rand::rng());
        managers.sort_by_key(|manager| Some(*manager) == last);
        let mut waiting = managers.into_iter();
        let mut attempts = JoinSet::new();
        let mut why = SessionState::Disconnected("no manager's address is known".into());
        loop {
            if let Some(manager) = waiting.next() {
                let identity = self.shared.identity.clone();
                attempts.spawn(open(identity, manager));
            }
            let ended = match waiting.len() {
                0 => attempts.join_next().await,
                _ => match tokio::time::timeout(HEDGE, attempts.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                },
            };
            match ended {
                Some(Ok(Ok(opened))) => return Ok(opened),
                Some(Ok(Err(SessionState::Disconnected(_)))) if matches!(why, SessionState::Removed(_)) => {}
                Some(Ok(Err(state))) => why = state,
                Some(Err(error)) => why = SessionState::Disconnected(error.to_string()),
                None if waiting.len() == 0 => return Err(why),
                None => {}
            }
        }
    }

    async fn follow(&self, opened: Opened, told: &mpsc::Sender<Told>) -> SessionState {
        let Opened { manager, channel, first, stream } = opened;
        let client = DispatcherClient::new(channel.clone());
        let elsewhere = async {
            loop {
                self.shared.elsewhere.notified().await;
                if self.managers().len() > 1 {
                    return;
                }
            }
        };
        tokio::select! {
            ended = self.listen(manager, channel, first, stream, told) => match ended {
                Ok(()) => SessionState::Disconnected(format!("{manager} ended the session")),
                Err(Ended::Refused(status)) => refused(manager, &status),
                Err(Ended::Unreadable(why)) => SessionState::Disconnected(format!("{manager}: {why}")),
            },
            () = elsewhere => SessionState::Disconnected(format!("{manager} reaches no majority of managers")),
            never = self.tell(client) => match never {},
        }
    }

    /// Takes what the manager says until it ends the session.
    async fn listen(
        &self,
        manager: SocketAddr,
        channel: Channel,
        first: v1::NodeState,
        mut stream: tonic::Streaming<v1::NodeState>,
        told: &mpsc::Sender<Told>,
    ) -> Result<(), Ended> {
        let mut next = Some(first);
        let mut last = None;
        while let Some(state) = next {
            let (tests, orders, traffic) = (state.tests.clone(), state.orders.clone(), state.traffic_secs);
            let state = match heard(last.take(), state) {
                Ok(state) => state,
                Err(error) => {
                    warn!(%manager, %error, "unreadable state from manager");
                    return Err(Ended::Unreadable(error));
                }
            };
            debug!(%manager, version = state.view.version, "state from manager");
            *lock(&self.shared.managers) = state.managers.clone();
            *lock(&self.shared.channel) = Some(channel.clone());
            if self.shared.state.send_replace(SessionState::Connected(manager))
                != SessionState::Connected(manager)
            {
                info!(%manager, "manager session open");
            }
            last = Some(state.clone());
            if told.send(state).await.is_err() {
                return Ok(());
            }
            self.shared.tests.send_if_modified(|known| {
                let changed = *known != tests;
                *known = tests;
                changed
            });
            self.shared.orders.send_if_modified(|known| {
                let changed = *known != orders;
                *known = orders;
                changed
            });
            self.shared.traffic.send_if_modified(|known| std::mem::replace(known, traffic) != traffic);
            next = stream.message().await.map_err(Ended::Refused)?;
        }
        Ok(())
    }

    /// Tells the manager what this node sees of itself, at once and whenever that changes.
    async fn tell(&self, mut client: DispatcherClient<Channel>) -> std::convert::Infallible {
        let mut reports = self.shared.report.subscribe();
        loop {
            let report = reports.borrow_and_update().clone();
            let message = v1::NodeReport {
                data_path_addr: report.data_path.map(|a| a.to_string()).unwrap_or_default(),
                listeners: report.listeners.iter().map(Into::into).collect(),
                advertise_addr: report.advertise.map(|a| a.to_string()).unwrap_or_default(),
                gossip_keys_version: report.gossip_keys.as_ref().map_or(0, |(_, version)| *version),
                applied_version: report.applied,
                oldest_format: (*self.shared.formats.start()).into(),
                newest_format: (*self.shared.formats.end()).into(),
            };
            let told = call(client.report(message)).await;
            *lock(&self.shared.refusal) = match &told {
                Err(SessionError::Refused(why)) => Some(why.clone()),
                _ => None,
            };
            if let Err(error) = told {
                warn!(%error, "report to the manager");
                tokio::time::sleep(MAX_BACKOFF).await;
                continue;
            }
            let told_at = tokio::time::Instant::now();
            if reports.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            // Of many changes one after the other each node would tell each manager: of them the last is enough.
            let more = reports.wait_for(|now| !now.says_like(&report));
            let _ = tokio::time::timeout_at(told_at + STEADY, more).await;
        }
    }
}

/// A session that a manager has begun.
struct Opened {
    manager: SocketAddr,
    channel: Channel,
    first: v1::NodeState,
    stream: tonic::Streaming<v1::NodeState>,
}

/// Has a manager begin a session; it must say something, since a stopped one may still accept.
async fn open(identity: Arc<IdentityCell>, manager: SocketAddr) -> Result<Opened, SessionState> {
    let lost = |why: String| SessionState::Disconnected(format!("{manager}: {why}"));
    let tls = mesh_ca::client_config(identity).map_err(|e| lost(e.to_string()))?;
    let name = mesh_ca::server_name(mesh_types::Role::Manager);
    let channel = transport::connect_watchful(manager, name, tls).await.map_err(|e| lost(one_line(&e)))?;
    let mut client = DispatcherClient::new(channel.clone());
    let begun = async {
        let mut stream = client.session(v1::SessionRequest { changes: true }).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((first, stream))
    };
    match tokio::time::timeout(ANSWER, begun).await {
        Ok(Ok((Some(first), stream))) => Ok(Opened { manager, channel, first, stream }),
        Ok(Ok((None, _))) => Err(lost("it ended the session".to_owned())),
        Ok(Err(status)) => Err(refused(manager, &status)),
        Err(_) => Err(lost("no answer in time".to_owned())),
    }
}

fn refused(manager: SocketAddr, status: &tonic::Status) -> SessionState {
    let why = format!("{manager}: {}", status.message());
    match status.code() {
        tonic::Code::PermissionDenied => SessionState::Removed(why),
        _ => SessionState::Disconnected(why),
    }
}

/// Why a session ended before its time.
enum Ended {
    Refused(tonic::Status),
    Unreadable(String),
}
