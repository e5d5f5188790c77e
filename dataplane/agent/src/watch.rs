//! What the programs tell while somebody watches: one watcher for all who ask, on only while there are any.

mod clients;
mod wish;

use std::time::{Duration, SystemTime};

use mesh_lb::{EntryPoint, Sight, Watcher, What};
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use self::{
    clients::{Left, WATCHERS},
    wish::Wish,
};
use crate::{Agent, FilterError, FlowFilter, NamedFlow, one_line};

pub(crate) use self::clients::Watching;

/// How often events are fetched, and how many then at most.
const FETCH: Duration = Duration::from_millis(10);
const FETCHED: usize = 8192;
/// How often the lease is renewed and names are looked up anew.
const RENEW: Duration = Duration::from_secs(1);

/// What somebody watches for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchSpec {
    /// Flows that begin.
    pub new: bool,
    /// Flows that end.
    pub closed: bool,
    /// Packets that are dropped.
    pub drops: bool,
    /// Which of them.
    pub filter: FlowFilter,
    /// Packets themselves, instead of all that.
    pub capture: Option<CaptureSpec>,
}

/// Whose packets somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptureSpec {
    /// A task of this node, or a service with such tasks.
    pub of: String,
    /// A port of either side.
    pub port: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Bytes of each packet.
    pub snaplen: u32,
}

/// Why nothing is watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The filter makes no sense.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Neither a task nor a service.
    #[error("no task or service is called {0}; `meshctl task ls` and `meshctl service ls` list them")]
    Unknown(String),
    /// No task of it is here.
    #[error("{of} has no task on this node; capture on {}", if .nodes.is_empty() { "a node that has one".to_owned() } else { .nodes.join(", ") })]
    Elsewhere {
        /// The task or service.
        of: String,
        /// Nodes that have one.
        nodes: Vec<String>,
    },
    /// Too many watch already.
    #[error("{WATCHERS} watch on this node already; end one of them first")]
    Busy,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What it asked for is watched from now on.
    Begun,
    /// Something happened.
    Event(Box<NamedEvent>),
    /// So many events were not told: there were too many, or nobody read fast enough.
    Lost(u64),
    /// The data path cannot be watched, and why; the last that is told.
    Failed(String),
}

/// Something that happened, and what it is called that it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEvent {
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: What,
    /// The program that told it.
    pub program: Option<EntryPoint>,
    /// The flow; of a packet, its sender and destination.
    pub flow: NamedFlow,
    /// The task of this node that is concerned.
    pub here: Option<String>,
    /// The packet's EtherType; 0 of flows.
    pub ethertype: u16,
    /// Type of an ICMP message.
    pub icmp_type: Option<u8>,
    /// Bytes of the packet.
    pub len: u32,
    /// The first of them.
    pub bytes: Vec<u8>,
}

impl NamedEvent {
    /// The name of the reason for a drop, or for which a flow was forgotten.
    pub fn reason(&self) -> Option<&'static str> {
        match self.what {
            What::Dropped(reason) => Some(reason.as_str()),
            What::Forgotten(_, why) => Some(why.as_str()),
            What::New | What::Closed(_) | What::Packet(_) => None,
        }
    }

    /// Where a packet is.
    pub fn sight(&self) -> Option<Sight> {
        if let What::Packet(sight) = self.what { Some(sight) } else { None }
    }
}

/// Somebody who watches; it ends with this.
pub struct Watch {
    agent: Agent,
    ticket: u64,
    told: mpsc::Receiver<Told>,
}

impl Watch {
    /// What is told next; none when the daemon stops.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.agent.inner.watching.leave(self.ticket);
    }
}

impl Agent {
    /// Watches for what is asked, until the answer is dropped.
    pub async fn watch(&self, spec: &WatchSpec) -> Result<Watch, WatchError> {
        let names = self.flow_names().await;
        let wish = Wish::of(spec, &names)?;
        let (ticket, told, first) = self.inner.watching.enter(wish).ok_or(WatchError::Busy)?;
        if first {
            let (agent, stop) = (self.clone(), self.inner.stop.clone());
            tokio::spawn(async move {
                let fetched = stop.run_until_cancelled(agent.fetch_events()).await;
                agent.inner.reconciler.lock().await.data_path().tell_ended(false);
                match fetched {
                    Some(Ok(())) => debug!("nobody watches any more"),
                    Some(Err(error)) => {
                        let error = one_line(&error);
                        warn!(error, "the data path cannot be watched");
                        agent.inner.watching.end(Some(&error));
                    }
                    None => agent.inner.watching.end(None),
                }
            });
        }
        Ok(Watch { agent: self.clone(), ticket, told })
    }

    /// Fetches events and hands them on, until nobody watches any more.
    async fn fetch_events(&self) -> Result<(), mesh_lb::Error> {
        let watching = &self.inner.watching;
        let mut watcher = self.inner.reconciler.lock().await.data_path_seen().watcher()?;
        // What was told to somebody before, who did not wait for it.
        let left = std::iter::from_fn(|| watcher.next_event()).take(FETCHED).count();
        debug!(left, "somebody watches");
        let mut fetch = interval(FETCH);
        fetch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut names = self.flow_names().await;
        let mut missed = missed(&watcher);
        let mut renewed: Option<Instant> = None;
        loop {
            let changed = tokio::select! {
                _ = fetch.tick() => false,
                () = watching.changed() => true,
            };
            if changed || renewed.is_none_or(|at| at.elapsed() >= RENEW) {
                let union = match watching.wanted() {
                    Some(union) => union,
                    None => match watching.leave_to_others(watcher) {
                        Left::Ended => return Ok(()),
                        Left::Needed(still) => {
                            (watcher, renewed) = (*still, None);
                            continue;
                        }
                    },
                };
                watcher.watch(&union)?;
                renewed = Some(Instant::now());
                names = self.flow_names().await;
                let (ended, more) = {
                    let mut reconciler = self.inner.reconciler.lock().await;
                    reconciler.data_path().tell_ended(union.closed);
                    reconciler.data_path().ended()
                };
                let now = self::missed(&watcher);
                watching.renewed(&names, now.saturating_sub(missed) + more);
                missed = now;
                let offset = clock_offset();
                ended.iter().for_each(|event| watching.tell(event, &names, offset));
            }
            let offset = clock_offset();
            for event in std::iter::from_fn(|| watcher.next_event()).take(FETCHED) {
                watching.tell(&event, &names, offset);
            }
        }
    }
}

/// How many events were not told since the maps were made.
fn missed(watcher: &Watcher) -> u64 {
    watcher.totals().map_or(0, |totals| totals.limited + totals.lost)
}

/// From the clock that events have to the time since 1970.
fn clock_offset() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    since.saturating_sub(monotonic)
}
