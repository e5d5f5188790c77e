//! What changes in the decided state, as a stream for people and tools.
//!
//! Each manager derives events from the states that it sees one after the other (`diff`) and remembers the last ones.
//! Changes that it learns of together, as after it was away, are one step: what came and went in between is not told. What
//! it hears of the health of tasks by gossip it tells too (`health`).

mod diff;
mod health;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt, stream};
use mesh_api::v1;
use mesh_store::State;
use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::health::health_changes;
use crate::shared::EndpointView;

pub(crate) use diff::{Action, Change, diff};

/// How many past events are remembered, and how far a reader may fall behind.
const REMEMBERED: usize = 1024;

/// How often the health of tasks is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The answer to `Control.Events`.
pub(crate) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

/// See the module.
pub(crate) struct Events {
    past: Mutex<VecDeque<v1::Event>>,
    feed: broadcast::Sender<v1::Event>,
    stop: CancellationToken,
}

impl Events {
    /// With no past; streams end when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self { past: Mutex::default(), feed: broadcast::channel(REMEMBERED).0, stop }
    }

    /// Tells of all changes of `states` from now on, until there are no more.
    pub fn follow(self: Arc<Self>, mut states: watch::Receiver<Arc<State>>) -> impl Future<Output = ()> {
        let mut known = states.borrow_and_update().clone();
        async move {
            while let Some(Ok(())) = self.stop.run_until_cancelled(states.changed()).await {
                let state = states.borrow_and_update().clone();
                if state.view_version() != known.view_version() {
                    self.tell(diff(&known, &state), millis(SystemTime::now()));
                }
                known = state;
            }
        }
    }

    /// Tells of all changes of the health of tasks from now on, until the manager stops.
    pub async fn follow_health(
        self: Arc<Self>,
        endpoints: Arc<dyn EndpointView>,
        states: watch::Receiver<Arc<State>>,
    ) {
        let mut known = endpoints.checked();
        while self.stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let now = endpoints.checked();
            if !Arc::ptr_eq(&known, &now) {
                let state = states.borrow().clone();
                self.tell(health_changes(&known, &now, &state), millis(SystemTime::now()));
                known = now;
            }
        }
    }

    fn tell(&self, changes: Vec<Change>, time_millis: u64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let event = message(change, time_millis);
            if past.len() == REMEMBERED {
                past.pop_front();
            }
            past.push_back(event.clone());
            // Nobody listens: it is remembered all the same.
            let _ = self.feed.send(event);
        }
    }

    /// What is remembered since then, in milliseconds since 1970-01-01 UTC, and all that comes.
    pub fn stream(&self, since_millis: Option<u64>) -> EventStream {
        let (past, feed) = {
            // Under the lock, so that nothing is told twice or missed between past and future.
            let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            let since = |event: &&v1::Event| since_millis.is_some_and(|since| event.time_millis >= since);
            (past.iter().filter(since).cloned().collect::<Vec<_>>(), self.feed.subscribe())
        };
        let coming = stream::unfold(Some(feed), async |feed| {
            let mut feed = feed?;
            match feed.recv().await {
                Ok(event) => Some((Ok(event), Some(feed))),
                Err(broadcast::error::RecvError::Closed) => None,
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    let text =
                        format!("{lost} events came faster than they were read; begin anew with --since");
                    Some((Err(Status::data_loss(text)), None))
                }
            }
        });
        let end = stream::once(async { Err(Status::unavailable("this manager stops")) });
        let coming = coming.take_until(self.stop.clone().cancelled_owned()).chain(end);
        Box::pin(stream::iter(past).map(Ok).chain(coming))
    }
}

fn message(change: Change, time_millis: u64) -> v1::Event {
    let Change { kind, action, id, name, version, attributes } = change;
    let action = match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Remove => "remove",
    };
    let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value));
    v1::Event {
        time_millis,
        version,
        kind: kind.to_string(),
        action: action.to_owned(),
        id,
        name,
        attributes: attributes.collect(),
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
