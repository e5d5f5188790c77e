//! What passes at nodes, for as long as somebody looks.
//!
//! Nodes report it to the manager that they have a session with, and only while that one asks for it. A manager whose dashboard is
//! looked at asks its own nodes, and has the other managers ask theirs. Nothing of it is decided or kept.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use mesh_api::{
    parse_id, transport,
    v1::{self, control_client::ControlClient},
};
use mesh_types::{MANAGER_PORT, Node, NodeId, Role};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::BroadcastStream;
use tonic::Status;
use tracing::debug;

use crate::shared::Shared;

/// The answer to `Control.WatchTraffic`.
pub(crate) type TrafficStream = Pin<Box<dyn Stream<Item = Result<v1::TrafficReport, Status>> + Send>>;

/// How often nodes report, in seconds.
const EVERY: u32 = 2;
/// Reports that a slow reader may be behind.
const BEHIND: usize = 4096;
/// How often what nodes told is looked at for somebody who wants all of it.
const LOOK: Duration = Duration::from_millis(500);
/// Between attempts to have another manager ask its nodes.
const AGAIN: Duration = Duration::from_secs(3);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// A node that has not reported for so long does not any more.
const OLD: Duration = Duration::from_secs(10);

/// Who looks, and what nodes tell.
pub(crate) struct Watching {
    every: watch::Sender<u32>,
    feed: broadcast::Sender<v1::TrafficReport>,
    lookers: Mutex<usize>,
}

impl Default for Watching {
    fn default() -> Self {
        Self { every: watch::channel(0).0, feed: broadcast::channel(BEHIND).0, lookers: Mutex::default() }
    }
}

impl Watching {
    /// How often nodes are to report; 0: not at all.
    pub fn every(&self) -> watch::Receiver<u32> {
        self.every.subscribe()
    }

    /// What a node tells.
    pub fn report(&self, report: v1::TrafficReport) {
        // Whoever looked may just have gone.
        let _ = self.feed.send(report);
    }

    /// The reports to come; nodes are asked for them until this is dropped.
    pub fn stream(self: &Arc<Self>) -> TrafficStream {
        let feed = BroadcastStream::new(self.feed.subscribe());
        let looking = Looking::new(self.clone());
        // What a slow reader missed comes again, newer.
        let reports = feed.filter_map(async |report| report.ok().map(Ok));
        Box::pin(reports.map(move |report| {
            let _held = &looking;
            report
        }))
    }

    fn lookers(&self, change: impl FnOnce(usize) -> usize) {
        let mut lookers = self.lookers.lock().unwrap_or_else(PoisonError::into_inner);
        *lookers = change(*lookers);
        let every = if *lookers > 0 { EVERY } else { 0 };
        self.every.send_if_modified(|known| std::mem::replace(known, every) != every);
    }
}

struct Looking(Arc<Watching>);

impl Looking {
    fn new(watching: Arc<Watching>) -> Self {
        watching.lookers(|count| count + 1);
        Self(watching)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.lookers(|count| count.saturating_sub(1));
    }
}

/// The last reports of all nodes. Dropped, nobody is asked any more.
pub struct Traffic {
    told: Arc<Mutex<BTreeMap<NodeId, Told>>>,
    _following: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Told {
    at: Instant,
    before: Option<Arc<v1::TrafficReport>>,
    now: Arc<v1::TrafficReport>,
}

impl Traffic {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let told: Arc<Mutex<BTreeMap<NodeId, Told>>> = Arc::default();
        let mut following = JoinSet::new();
        following.spawn(collect(shared.watching.stream(), told.clone()));
        following.spawn(follow_others(shared, told.clone()));
        Self { told, _following: following }
    }

    /// Of each node that reports: what it said last, and what it said before, if that was of the same data path.
    pub fn reports(&self) -> Vec<(NodeId, Option<Arc<v1::TrafficReport>>, Arc<v1::TrafficReport>)> {
        let mut told = lock(&self.told);
        told.retain(|_, told| told.at.elapsed() < OLD);
        told.iter().map(|(node, told)| (*node, told.before.clone(), told.now.clone())).collect()
    }
}

impl Traffic {
    /// The reports to come of all managers' nodes.
    pub(crate) fn stream(self) -> TrafficStream {
        let told = (self, BTreeMap::new(), VecDeque::new());
        Box::pin(futures::stream::unfold(told, async |(traffic, mut seen, mut waiting)| {
            loop {
                if let Some(report) = waiting.pop_front() {
                    return Some((Ok(report), (traffic, seen, waiting)));
                }
                sleep(LOOK).await;
                for (node, _, now) in traffic.reports() {
                    if seen.insert(node, now.made_millis) != Some(now.made_millis) {
                        waiting.push_back(v1::TrafficReport::clone(&now));
                    }
                }
            }
        }))
    }
}

fn lock<T>(held: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn collect(mut reports: TrafficStream, told: Arc<Mutex<BTreeMap<NodeId, Told>>>) {
    while let Some(Ok(report)) = reports.next().await {
        let Ok(node) = parse_id("node_id", &report.node_id) else { continue };
        let mut told = lock(&told);
        let before = told.remove(&node).map(|known| known.now);
        let before = before.filter(|before| before.made_millis < report.made_millis);
        told.insert(node, Told { at: Instant::now(), before, now: Arc::new(report) });
    }
}

/// Has each other manager ask its nodes, for as long as it is one.
async fn follow_others(shared: Arc<Shared>, told: Arc<Mutex<BTreeMap<NodeId, Told>>>) {
    let mut followed: BTreeMap<NodeId, JoinSet<()>> = BTreeMap::new();
    loop {
        let state = shared.state();
        let own = shared.place.node;
        let others: BTreeMap<NodeId, Node> = state
            .nodes()
            .filter(|node| node.role == Role::Manager && node.id != own)
            .map(|node| (node.id, node.clone()))
            .collect();
        followed.retain(|node, work| others.contains_key(node) && !work.is_empty());
        for (node, manager) in others {
            let work = followed.entry(node).or_default();
            while work.try_join_next().is_some() {}
            if work.is_empty() {
                work.spawn(follow_one(shared.clone(), manager, told.clone()));
            }
        }
        sleep(AGAIN).await;
    }
}

async fn follow_one(shared: Arc<Shared>, manager: Node, told: Arc<Mutex<BTreeMap<NodeId, Told>>>) {
    let asked = async {
        let mut client = client_of(&shared, &manager).await?;
        client.watch_traffic(v1::WatchTrafficRequest::default()).await
    };
    match timeout(ANSWER, asked).await {
        Ok(Ok(stream)) => collect(Box::pin(stream.into_inner()), told).await,
        Ok(Err(error)) => debug!(manager = %manager.name, %error, "traffic of its nodes"),
        Err(_) => debug!(manager = %manager.name, "traffic of its nodes: no answer in time"),
    }
}

/// Another manager's Control service.
pub(crate) async fn client_of(
    shared: &Shared,
    manager: &Node,
) -> Result<ControlClient<tonic::transport::Channel>, Status> {
    let address = SocketAddr::new(manager.advertise_addr, MANAGER_PORT);
    let tls = mesh_ca::client_config(shared.identity.clone()).map_err(|e| Status::internal(e.to_string()))?;
    let channel = transport::connect_watchful(address, mesh_ca::server_name(Role::Manager), tls).await;
    channel.map(ControlClient::new).map_err(|e| Status::unavailable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: NodeId, millis: u64) -> v1::TrafficReport {
        v1::TrafficReport { node_id: node.to_string(), made_millis: millis, ..Default::default() }
    }

    #[tokio::test]
    async fn nodes_are_asked_while_somebody_looks() {
        let watching = Arc::new(Watching::default());
        let every = watching.every();
        let (first, second) = (watching.stream(), watching.stream());
        assert_eq!(*every.borrow(), EVERY);
        drop(first);
        assert_eq!(*every.borrow(), EVERY);
        drop(second);
        assert_eq!(*every.borrow(), 0);
    }

    #[tokio::test]
    async fn the_last_two_reports_of_a_data_path_are_kept() {
        let watching = Arc::new(Watching::default());
        let told: Arc<Mutex<BTreeMap<NodeId, Told>>> = Arc::default();
        let stream = watching.stream();
        let (one, two) = (NodeId::from_u128(1), NodeId::from_u128(2));
        for said in [report(one, 5), report(one, 7), report(two, 9), report(two, 3)] {
            watching.report(said);
        }
        watching.report(v1::TrafficReport { node_id: "nonsense".into(), ..Default::default() });
        let collected = tokio::time::timeout(Duration::from_millis(200), collect(stream, told.clone()));
        assert!(collected.await.is_err(), "it goes on");
        let traffic = Traffic { told, _following: JoinSet::new() };
        let kept: Vec<_> = traffic
            .reports()
            .into_iter()
            .map(|(node, before, now)| (node, before.map(|b| b.made_millis), now.made_millis))
            .collect();
        assert_eq!(kept, [(one, Some(5), 7), (two, None, 3)], "a node that started anew has no before");
    }
}
