//! Who watches, and what each of them is told.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use mesh_lb::{Event, FlowEntry, FlowState, WatchFor, Watcher, What};
use tokio::sync::{Notify, mpsc};

use super::{NamedEvent, Told, wish::Wish};
use crate::{agent::lock, flows::FlowNames};

/// Watchers at a time.
pub const WATCHERS: usize = 8;
/// Events that wait for one watcher; of packets each has up to 2 KiB.
const WAITING: usize = 2048;

/// All who watch.
#[derive(Default)]
pub struct Watching {
    state: Mutex<Clients>,
    changed: Notify,
}

#[derive(Default)]
struct Clients {
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Whether somebody fetches events.
    fetched: bool,
}

struct Client {
    wish: Wish,
    told: mpsc::Sender<Told>,
    begun: bool,
    lost: u64,
}

/// What becomes of fetching.
pub enum Left {
    /// Nobody wants it any more; the next who watches begins anew.
    Ended,
    /// Somebody has come meanwhile.
    Needed(Box<Watcher>),
}

impl Watching {
    /// One more: a ticket, what it will be told, and whether somebody has to begin to fetch events. None when there are too
    /// many.
    pub fn enter(&self, wish: Wish) -> Option<(u64, mpsc::Receiver<Told>, bool)> {
        let (sender, told) = mpsc::channel(WAITING);
        let mut state = lock(&self.state);
        if state.clients.len() >= WATCHERS {
            return None;
        }
        let ticket = state.next;
        state.next += 1;
        state.clients.insert(ticket, Client { wish, told: sender, begun: false, lost: 0 });
        let first = !std::mem::replace(&mut state.fetched, true);
        self.changed.notify_one();
        Some((ticket, told, first))
    }

    /// One less.
    pub fn leave(&self, ticket: u64) {
        lock(&self.state).clients.remove(&ticket);
        self.changed.notify_one();
    }

    /// Until somebody comes or goes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What serves all who watch; none when nobody does.
    pub fn wanted(&self) -> Option<WatchFor> {
        lock(&self.state).clients.values().map(|client| client.wish.kernel).reduce(WatchFor::union)
    }

    /// Ends the watch unless somebody is there.
    pub fn leave_to_others(&self, watcher: Watcher) -> Left {
        let mut state = lock(&self.state);
        if !state.clients.is_empty() {
            return Left::Needed(Box::new(watcher));
        }
        // Before the next one can begin, whom the end of this one would stop.
        drop(watcher);
        state.fetched = false;
        Left::Ended
    }

    /// Nobody is told anything any more, and why if it is a failure.
    pub fn end(&self, error: Option<&str>) {
        let mut state = lock(&self.state);
        for client in std::mem::take(&mut state.clients).into_values() {
            if let Some(error) = error {
                // Whoever has no room for it sees the end all the same.
                let _ = client.told.try_send(Told::Failed(error.to_owned()));
            }
        }
        state.fetched = false;
    }

    /// What all want is watched, and so many events were not told lately.
    pub fn renewed(&self, names: &FlowNames, missed: u64) {
        for client in lock(&self.state).clients.values_mut() {
            client.wish.renew(names);
            if !client.begun {
                client.begun = client.told.try_send(Told::Begun).is_ok();
            } else {
                client.lost += missed;
            }
            if client.lost > 0 && client.told.try_send(Told::Lost(client.lost)).is_ok() {
                client.lost = 0;
            }
        }
    }

    /// Tells all who want it. `offset`: from the event's clock to the time since 1970.
    pub fn tell(&self, event: &Event, names: &FlowNames, offset: Duration) {
        let entry = entry_of(event);
        for client in lock(&self.state).clients.values_mut() {
            if !client.wish.admits(event, &entry, names) {
                continue;
            }
            let here = event.endpoint.and_then(|id| names.local(id)).map(|e| e.name.to_string());
            let named = NamedEvent {
                at: SystemTime::UNIX_EPOCH + offset + event.time,
                what: event.what,
                program: event.program,
                flow: names.named(entry.clone()),
                here,
                ethertype: event.ethertype,
                icmp_type: event.icmp_type,
                len: event.len,
                bytes: client.wish.cut(&event.bytes).to_vec(),
            };
            if client.told.try_send(Told::Event(Box::new(named))).is_err() {
                client.lost += 1;
            }
        }
    }
}

/// What an event is about, as flows are told of.
fn entry_of(event: &Event) -> FlowEntry {
    let state = match event.what {
        What::Closed(state) | What::Forgotten(state, _) => state,
        What::New | What::Dropped(_) | What::Packet(_) => FlowState::New,
    };
    FlowEntry {
        vni: event.vni,
        protocol: event.protocol,
        client: event.source,
        client_task: event
            .endpoint
            .filter(|_| event.vni.is_none() && !matches!(event.what, What::Dropped(_) | What::Packet(_))),
        front: event.destination,
        task: event.task,
        entrance: None,
        state,
        idle: Duration::ZERO,
    }
}
