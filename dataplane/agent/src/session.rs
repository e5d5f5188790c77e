//! The stream from a manager: connects to any, follows it, and goes on to another when it ends.

mod call;
mod follow;
mod told;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_api::v1::{self, dispatcher_client::DispatcherClient};
use mesh_ca::IdentityCell;
use mesh_gossip::KeyRing;
use mesh_types::{Listener, NetworkId};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::call::call;
pub use self::{
    call::{SessionError, one_line},
    told::Told,
};
use crate::{
    agent::moved,
    leases::{Answer, NetworkChange, Renewal},
    planner::Family,
};

/// How long calls wait for the next manager when one has gone.
const MOVE: Duration = Duration::from_secs(3);

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

/// A handle on the session; the work runs in a task until the token is cancelled.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Arc<IdentityCell>,
    /// What this daemon reads of the managers' state.
    formats: RangeInclusive<u8>,
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
    /// What the managers want done with tasks of this node.
    orders: watch::Sender<Vec<v1::TaskOrder>>,
    /// How often they want to know of its traffic, in seconds; 0: not.
    traffic: watch::Sender<u32>,
}

impl Session {
    /// Starts following the managers; what they say arrives at `told`, the newest last.
    pub fn start(
        identity: Arc<IdentityCell>,
        managers: Vec<SocketAddr>,
        formats: RangeInclusive<u8>,
        told: mpsc::Sender<Told>,
        stop: CancellationToken,
    ) -> Self {
        let (state, _) = watch::channel(SessionState::Disconnected("not tried yet".into()));
        let report = watch::channel(Report::default()).0;
        let tests = watch::channel(Vec::new()).0;
        let (orders, traffic) = (watch::channel(Vec::new()).0, watch::channel(0).0);
        let (managers, channel, lost) = (Mutex::new(managers), Mutex::new(None), Mutex::new(None));
        let elsewhere = Notify::new();
        let (heard, refusal) = (Mutex::default(), Mutex::default());
        let shared = Shared {
            identity,
            formats,
            managers,
            heard,
            refusal,
            channel,
            lost,
            elsewhere,
            state,
            report,
            tests,
            orders,
            traffic,
        };
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
        let answer = call(client.lease(mesh_trace::pass_on(request))).await?.into_inner();
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
        let answer = call(client.renew_leases(mesh_trace::pass_on(request))).await?.into_inner();
        told::renewal_answer(answer).map_err(SessionError::Failed)
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

    /// What the managers want done with tasks of this node, as it changes.
    pub fn orders(&self) -> watch::Receiver<Vec<v1::TaskOrder>> {
        self.shared.orders.subscribe()
    }

    /// How often the managers want to know of this node's traffic, in seconds, as it changes; 0: not.
    pub fn traffic(&self) -> watch::Receiver<u32> {
        self.shared.traffic.subscribe()
    }

    /// Tells the managers of this node's traffic.
    pub async fn report_traffic(&self, report: v1::TrafficReport) -> Result<(), SessionError> {
        let mut client = self.client().await?;
        call(client.report_traffic(report)).await.map(drop)
    }

    /// Tells the managers what came of an order.
    pub async fn report_order(&self, report: v1::OrderReport) -> Result<(), SessionError> {
        let mut client = self.client().await?;
        call(client.report_order(report)).await.map(drop)
    }

    /// Tells the managers that this node leaves the cluster.
    pub async fn leave(&self) -> Result<(), SessionError> {
        let mut client = self.client().await?;
        call(client.leave(mesh_trace::pass_on(v1::LeaveRequest {}))).await.map(drop)
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
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
