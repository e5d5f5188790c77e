//! The stream from a manager: connects to any, follows it, and goes on to another when it ends.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_api::{
    parse_id, transport,
    v1::{self, dispatcher_client::DispatcherClient},
};
use mesh_ca::IdentityCell;
use mesh_gossip::KeyRing;
use mesh_types::{ClusterView, Listener, NetworkId, NodeId, ViewChange};
use rand::{Rng, seq::SliceRandom};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::{
    agent::moved,
    leases::{Answer, Held, NetworkChange, Renewal},
    planner::Family,
};

/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// How long a lease or a leave may take, a new leader's election included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a manager may take to begin a session before it counts as stuck.
const ANSWER: Duration = Duration::from_secs(3);
/// After this silence the next manager is asked too.
const HEDGE: Duration = Duration::from_millis(300);
/// The least time between two reports that only tell how far this node has come.
const STEADY: Duration = Duration::from_secs(1);
/// How long calls wait for the next manager when one has gone.
const MOVE: Duration = Duration::from_secs(3);

/// What a manager says to this node.
#[derive(Debug, Clone)]
pub struct Told {
    /// The decided state.
    pub view: Arc<ClusterView>,
    /// The addresses leased to this node.
    pub leases: BTreeMap<NetworkId, Held>,
    /// Where managers are.
    pub managers: Vec<SocketAddr>,
    /// Processes of all nodes that published ports shadow.
    pub listeners: BTreeMap<NodeId, Vec<Listener>>,
}

/// What this node sees of itself, for the managers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Report {
    data_path: Option<IpAddr>,
    listeners: Vec<Listener>,
    advertise: Option<IpAddr>,
    /// What gossip is sealed with, and the version of the state that first said so.
    gossip_keys: Option<(KeyRing, u64)>,
    /// The version of the state that the data path and the names follow.
    applied: u64,
}

impl Report {
    /// Whether it says no more than the other, but for how far this node has come.
    fn says_like(&self, other: &Self) -> bool {
        *self == Self { applied: self.applied, ..other.clone() }
    }
}

/// How the session stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Follows this manager.
    Connected(SocketAddr),
    /// Follows none, for this reason.
    Disconnected(String),
    /// The managers do not know this node any more.
    Removed(String),
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(manager) => write!(f, "connected to {manager}"),
            Self::Disconnected(why) | Self::Removed(why) => write!(f, "not connected: {why}"),
        }
    }
}

/// Why a call to a manager failed.
#[derive(Debug, Error)]
pub enum SessionError {
    /// No manager is reachable; nothing changed.
    #[error("no manager is reachable ({0}); tasks that run keep running, changes have to wait")]
    NoManager(String),
    /// The manager refused; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// It is not known whether the call had its effect.
    #[error("the manager did not answer: {0}")]
    Failed(String),
}

/// A handle on the session; the work runs in a task until the token is cancelled.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Arc<IdentityCell>,
    managers: Mutex<Vec<SocketAddr>>,
    /// The same by gossip.
    heard: Mutex<Vec<SocketAddr>>,
    /// Why the last report was refused.
    refusal: Mutex<Option<String>>,
    channel: Mutex<Option<Channel>>,
    /// When the last session ended.
    lost: Mutex<Option<Instant>>,
    /// Asks for another manager.
    elsewhere: Notify,
    state: watch::Sender<SessionState>,
    report: watch::Sender<Report>,
    /// Tests of connectivity that the managers want.
    tests: watch::Sender<Vec<v1::TestOrder>>,
}

impl Session {
    /// Starts following the managers; what they say arrives at `told`, the newest last.
    pub fn start(
        identity: Arc<IdentityCell>,
        managers: Vec<SocketAddr>,
        told: mpsc::Sender<Told>,
        stop: CancellationToken,
    ) -> Self {
        let (state, _) = watch::channel(SessionState::Disconnected("not tried yet".into()));
        let report = watch::channel(Report::default()).0;
        let tests = watch::channel(Vec::new()).0;
        let (managers, channel, lost) = (Mutex::new(managers), Mutex::new(None), Mutex::new(None));
        let elsewhere = Notify::new();
        let (heard, refusal) = (Mutex::default(), Mutex::default());
        let shared =
            Shared { identity, managers, heard, refusal, channel, lost, elsewhere, state, report, tests };
        let session = Self { shared: Arc::new(shared) };
        let run = session.clone();
        tokio::spawn(async move { stop.run_until_cancelled(run.follow_for_ever(told)).await });
        session
    }

    /// How it stands.
    pub fn state(&self) -> SessionState {
        self.shared.state.borrow().clone()
    }

    /// The managers it tries.
    pub fn managers(&self) -> Vec<SocketAddr> {
        lock(&self.shared.managers).clone()
    }

    /// Tells the managers where this node's VXLAN packets come from and go to, now and at the beginning of each session.
    pub fn report_data_path(&self, address: IpAddr) {
        self.shared.report.send_if_modified(|report| report.data_path.replace(address) != Some(address));
    }

    /// Tells the managers where other nodes reach this one, likewise. A manager that is this node is looked for there.
    pub fn report_advertise(&self, old: IpAddr, now: IpAddr) {
        let mut managers = lock(&self.shared.managers);
        *managers = moved(std::mem::take(&mut managers), old, now);
        drop(managers);
        self.shared.report.send_if_modified(|report| report.advertise.replace(now) != Some(now));
    }

    /// Where managers are as gossip has it, for when they are not where they were.
    pub fn heard(&self, managers: Vec<SocketAddr>) {
        *lock(&self.shared.heard) = managers;
    }

    /// Why the managers refuse what this node tells of itself.
    pub fn refusal(&self) -> Option<String> {
        lock(&self.shared.refusal).clone()
    }

    /// Tells the managers that gossip goes by these keys, likewise: other keys than before came with this version.
    pub fn report_gossip_keys(&self, keys: KeyRing, version: u64) {
        self.shared.report.send_if_modified(|report| {
            let same = report.gossip_keys.as_ref().is_some_and(|(before, _)| *before == keys);
            if !same {
                report.gossip_keys = Some((keys, version));
            }
            !same
        });
    }

    /// Tells the managers which version of the state this node follows, likewise.
    pub fn report_applied(&self, version: u64) {
        self.shared
            .report
            .send_if_modified(|report| std::mem::replace(&mut report.applied, version) != version);
    }

    /// Tells the managers which processes of this node published ports shadow, likewise.
    pub fn report_listeners(&self, listeners: Vec<Listener>) {
        self.shared.report.send_if_modified(|report| {
            let before = std::mem::replace(&mut report.listeners, listeners);
            before != report.listeners
        });
    }

    /// Asks for `count` more addresses of that family of a network, or for just `address`.
    pub async fn lease(
        &self,
        network: NetworkId,
        count: u32,
        family: Family,
        address: Option<IpAddr>,
    ) -> Result<Vec<IpAddr>, SessionError> {
        let request = v1::LeaseRequest {
            network_id: network.to_string(),
            count,
            address: address.map(|a| a.to_string()).unwrap_or_default(),
            family: match family {
                Family::V4 => v1::IpFamily::V4.into(),
                Family::V6 => v1::IpFamily::V6.into(),
            },
        };
        let mut client = self.client().await?;
        let answer = call(client.lease(request)).await?.into_inner();
        let parsed: Result<Vec<IpAddr>, _> = answer.addresses.iter().map(|a| a.parse()).collect();
        parsed.map_err(|e| SessionError::Failed(format!("it leased no address: {e}")))
    }

    /// Says what this node does with its leases.
    pub async fn renew_leases(&self, renewal: &Renewal) -> Result<Answer, SessionError> {
        let texts = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect();
        let change = |(network, change): (&NetworkId, &NetworkChange)| v1::NetworkLeaseChange {
            network_id: network.to_string(),
            used: texts(&change.used),
            unused: texts(&change.unused),
            returned: texts(&change.returned),
        };
        let request = v1::RenewLeasesRequest {
            after: renewal.after,
            changes: renewal.changes.iter().map(change).collect(),
            full: renewal.full,
        };
        let mut client = self.client().await?;
        let answer = call(client.renew_leases(request)).await?.into_inner();
        renewal_answer(answer).map_err(SessionError::Failed)
    }

    /// The tests of connectivity that the managers want, as they change. They stay while no manager is followed.
    pub fn tests(&self) -> watch::Receiver<Vec<v1::TestOrder>> {
        self.shared.tests.subscribe()
    }

    /// Tells the managers of a test.
    pub async fn report_test(&self, report: v1::TestReport) -> Result<(), SessionError> {
        let mut client = self.client().await?;
        call(client.report_test(report)).await.map(drop)
    }

    /// Tells the managers that this node leaves the cluster.
    pub async fn leave(&self) -> Result<(), SessionError> {
        let mut client = self.client().await?;
        call(client.leave(v1::LeaveRequest {})).await.map(drop)
    }

    /// Goes to another manager if there is one: this one cannot reach a majority.
    pub fn try_another(&self) {
        self.shared.elsewhere.notify_waiters();
    }

    /// A client of the manager that is followed; while it changes, of the next one.
    async fn client(&self) -> Result<DispatcherClient<Channel>, SessionError> {
        if lock(&self.shared.channel).is_none()
            && lock(&self.shared.lost).is_some_and(|lost| lost.elapsed() < MOVE)
        {
            let mut states = self.shared.state.subscribe();
            let connected = states.wait_for(|state| matches!(state, SessionState::Connected(_)));
            let _ = tokio::time::timeout(MOVE, connected).await;
        }
        match (lock(&self.shared.channel).clone(), self.state()) {
            (Some(channel), _) => Ok(DispatcherClient::new(channel)),
            (None, SessionState::Disconnected(why) | SessionState::Removed(why)) => {
                Err(SessionError::NoManager(why))
            }
            (None, SessionState::Connected(_)) => Err(SessionError::NoManager("connecting".into())),
        }
    }

    async fn follow_for_ever(self, told: mpsc::Sender<Told>) {
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
            let tests = state.tests.clone();
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

async fn call<T>(
    rpc: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<tonic::Response<T>, SessionError> {
    match tokio::time::timeout(CALL_TIMEOUT, rpc).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) => Err(match status.code() {
            tonic::Code::Unavailable => SessionError::NoManager(status.message().to_owned()),
            tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DeadlineExceeded => {
                SessionError::Failed(status.message().to_owned())
            }
            _ => SessionError::Refused(status.message().to_owned()),
        }),
        Err(_) => Err(SessionError::Failed(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

fn held(lease: v1::NetworkLease) -> Result<(NetworkId, Held), String> {
    let network = parse_id("lease.network_id", &lease.network_id).map_err(|e| e.to_string())?;
    let addresses: Result<Vec<IpAddr>, _> = lease.addresses.iter().map(|a| a.parse()).collect();
    let addresses = addresses.map_err(|e| format!("lease.addresses: {e}"))?;
    Ok((network, Held { addresses, scarce: lease.scarce }))
}

fn renewal_answer(answer: v1::RenewLeasesResponse) -> Result<Answer, String> {
    let lost: BTreeMap<_, _> = answer.lost.into_iter().map(held).collect::<Result<_, _>>()?;
    let lost = lost.into_iter().flat_map(|(id, held)| held.addresses.into_iter().map(move |a| (id, a)));
    Ok(Answer {
        renewal: answer.renewal,
        done: answer.done,
        grace: Duration::from_secs(answer.grace_secs.into()),
        version: answer.version,
        held: answer.held.into_iter().map(held).collect::<Result<_, _>>()?,
        lost: lost.collect(),
    })
}

/// What a message says, after the one before.
fn heard(last: Option<Told>, state: v1::NodeState) -> Result<Told, String> {
    let leases = state.leases.into_iter().map(held).collect::<Result<_, _>>()?;
    let managers: Result<Vec<SocketAddr>, _> = state.managers.iter().map(|m| m.parse()).collect();
    let managers = managers.map_err(|e| format!("managers: {e}"))?;
    let mut listeners = BTreeMap::new();
    for of_node in state.listeners {
        let node = parse_id("listeners.node_id", &of_node.node_id).map_err(|e| e.to_string())?;
        let all: Result<Vec<Listener>, _> = of_node.listeners.into_iter().map(Listener::try_from).collect();
        listeners.insert(node, all.map_err(|e| e.to_string())?);
    }
    match (state.view, state.change, last) {
        (Some(view), _, _) => {
            let view = Arc::new(ClusterView::try_from(view).map_err(|e| e.to_string())?);
            Ok(Told { view, leases, managers, listeners })
        }
        (None, Some(change), Some(last)) => {
            let change = ViewChange::try_from(change).map_err(|e| e.to_string())?;
            let mut view = last.view;
            if !Arc::make_mut(&mut view).change(change) {
                return Err("it tells of a change of another state than it told before".to_owned());
            }
            let leases = if state.same_leases { last.leases } else { leases };
            let listeners = if state.same_listeners { last.listeners } else { listeners };
            Ok(Told { view, leases, managers, listeners })
        }
        (None, Some(_), None) => Err("it tells of a change before it has told the state".to_owned()),
        (None, None, _) => Err("the state has no view".to_owned()),
    }
}

/// An error with its sources on one line, without repetitions and the transport's own name for them.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = match error.to_string() {
            // What tokio calls a time that is over.
            more if more == "deadline has elapsed" => "no answer in time".to_owned(),
            more => more,
        };
        if !text.contains(&more) && more != "transport error" {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
