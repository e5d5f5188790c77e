//! The stream from a manager: connects to any, follows it, and goes on to another when it ends.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_api::{
    parse_id, transport,
    v1::{self, dispatcher_client::DispatcherClient},
};
use mesh_ca::IdentityCell;
use mesh_types::{ClusterView, Listener, NetworkId, NodeId};
use rand::Rng;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::planner::Family;

/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// How long a lease or a leave may take, a new leader's election included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a manager says to this node.
#[derive(Debug, Clone)]
pub struct Told {
    /// The decided state.
    pub view: ClusterView,
    /// The addresses leased to this node.
    pub leases: BTreeMap<NetworkId, Vec<IpAddr>>,
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
    channel: Mutex<Option<Channel>>,
    state: watch::Sender<SessionState>,
    report: watch::Sender<Report>,
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
        let (managers, channel) = (Mutex::new(managers), Mutex::new(None));
        let shared = Shared { identity, managers, channel, state, report };
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
        let mut client = self.client()?;
        let answer = call(client.lease(request)).await?.into_inner();
        let parsed: Result<Vec<IpAddr>, _> = answer.addresses.iter().map(|a| a.parse()).collect();
        parsed.map_err(|e| SessionError::Failed(format!("it leased no address: {e}")))
    }

    /// Gives addresses of a network back.
    pub async fn return_lease(&self, network: NetworkId, addresses: &[IpAddr]) -> Result<(), SessionError> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let mut client = self.client()?;
        let request = v1::ReturnLeaseRequest { network_id: network.to_string(), addresses };
        call(client.return_lease(request)).await.map(drop)
    }

    /// Tells the managers that this node leaves the cluster.
    pub async fn leave(&self) -> Result<(), SessionError> {
        let mut client = self.client()?;
        call(client.leave(v1::LeaveRequest {})).await.map(drop)
    }

    fn client(&self) -> Result<DispatcherClient<Channel>, SessionError> {
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
        for turn in 0usize.. {
            let managers = self.managers();
            let Some(&manager) = managers.get(turn.checked_rem(managers.len()).unwrap_or(0)) else {
                self.disconnected(SessionState::Disconnected("no manager's address is known".into()));
                tokio::time::sleep(MAX_BACKOFF).await;
                continue;
            };
            let followed = self.follow(manager, &told).await;
            let was_connected = matches!(self.state(), SessionState::Connected(_));
            match followed {
                Ok(()) => {
                    self.disconnected(SessionState::Disconnected(format!("{manager} ended the session")))
                }
                Err(state) => self.disconnected(state),
            }
            if told.is_closed() {
                return;
            }
            backoff = if was_connected { MIN_BACKOFF } else { (backoff * 2).min(MAX_BACKOFF) };
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(backoff.mul_f64(jitter)).await;
        }
    }

    fn disconnected(&self, new: SessionState) {
        *lock(&self.shared.channel) = None;
        self.shared.state.send_if_modified(|state| {
            let changed = *state != new;
            if changed {
                info!(state = %new, "manager session");
                *state = new;
            }
            changed
        });
    }

    async fn follow(&self, manager: SocketAddr, told: &mpsc::Sender<Told>) -> Result<(), SessionState> {
        let lost = |why: String| SessionState::Disconnected(format!("{manager}: {why}"));
        let refused = |status: tonic::Status| match status.code() {
            tonic::Code::PermissionDenied => {
                SessionState::Removed(format!("{manager}: {}", status.message()))
            }
            _ => lost(status.message().to_owned()),
        };
        let tls = mesh_ca::client_config(self.shared.identity.clone()).map_err(|e| lost(e.to_string()))?;
        let connected =
            transport::connect(manager, mesh_ca::server_name(mesh_types::Role::Manager), tls).await;
        let channel = connected.map_err(|e| lost(one_line(&e)))?;
        let mut client = DispatcherClient::new(channel.clone());
        let stream = client.session(v1::SessionRequest {}).await;
        let stream = stream.map_err(refused)?.into_inner();
        let listening = async { self.listen(manager, channel.clone(), stream, told).await };
        tokio::select! {
            ended = listening => ended.map_err(|e| match e {
                Ended::Refused(status) => refused(status),
                Ended::Unreadable(why) => lost(why),
            }),
            never = self.tell(client.clone()) => match never {},
        }
    }

    /// Takes what the manager says until it ends the session.
    async fn listen(
        &self,
        manager: SocketAddr,
        channel: Channel,
        mut stream: tonic::Streaming<v1::NodeState>,
        told: &mpsc::Sender<Told>,
    ) -> Result<(), Ended> {
        while let Some(state) = stream.message().await.map_err(Ended::Refused)? {
            let state = match convert(state) {
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
            if told.send(state).await.is_err() {
                return Ok(());
            }
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
            };
            if let Err(error) = call(client.report(message)).await {
                warn!(%error, "report to the manager");
                tokio::time::sleep(MAX_BACKOFF).await;
                continue;
            }
            if reports.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
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

fn convert(state: v1::NodeState) -> Result<Told, String> {
    let view = state.view.ok_or("the state has no view")?;
    let view = ClusterView::try_from(view).map_err(|e| e.to_string())?;
    let mut leases = BTreeMap::new();
    for lease in state.leases {
        let network = parse_id("lease.network_id", &lease.network_id).map_err(|e| e.to_string())?;
        let addresses: Result<Vec<IpAddr>, _> = lease.addresses.iter().map(|a| a.parse()).collect();
        leases.insert(network, addresses.map_err(|e| format!("lease.addresses: {e}"))?);
    }
    let managers: Result<Vec<SocketAddr>, _> = state.managers.iter().map(|m| m.parse()).collect();
    let managers = managers.map_err(|e| format!("managers: {e}"))?;
    let mut listeners = BTreeMap::new();
    for of_node in state.listeners {
        let node = parse_id("listeners.node_id", &of_node.node_id).map_err(|e| e.to_string())?;
        let all: Result<Vec<Listener>, _> = of_node.listeners.into_iter().map(Listener::try_from).collect();
        listeners.insert(node, all.map_err(|e| e.to_string())?);
    }
    Ok(Told { view, leases, managers, listeners })
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
