//! Asks name servers for what is not ours: the node's own in the daemon's namespace, or those that a task named.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use mesh_netlink::NetNs;
use tokio::sync::OnceCell;

use crate::resolv_conf::{NodeResolver, ResolvConf};

mod ask;
mod cache;
mod lookup;
mod slots;
mod wire;

use ask::Place;
use cache::Cache;
pub use lookup::Outside;
use slots::{Room, Share};
use wire::{Answer, Asked, Key};

/// What the answers of the node's name servers may take up, in bytes.
const NODES_CACHE: usize = 8 << 20;
/// The same for the name servers of one task.
const TASKS_CACHE: usize = 1 << 20;

/// The node's name servers, and the room that the questions of all tasks have.
///
/// What is told to a client is what the name server answered, record for record; only EDNS is between two neighbours.
/// Answers are kept as long as their TTLs say, which go down meanwhile; a failure for a second. Of equal questions one goes
/// out, so that even a name server that asks us what we ask it causes no storm.
#[derive(Debug)]
pub struct Forwarder {
    node: Arc<Upstream>,
    room: Arc<Room>,
}

/// A task's way to name servers.
#[derive(Debug)]
pub struct TaskForwarder {
    upstream: Arc<Upstream>,
    share: Share,
}

/// Name servers that are asked from one place, and what they answered.
#[derive(Debug)]
struct Upstream {
    servers: Servers,
    place: Place,
    /// How long one server is waited for before the next one is asked too.
    gap: Duration,
    known: Mutex<Known>,
}

#[derive(Debug)]
enum Servers {
    File(ResolvConf),
    Fixed(Arc<[SocketAddr]>),
}

#[derive(Debug)]
struct Known {
    /// The servers that all of this is about.
    servers: Arc<[SocketAddr]>,
    cache: Cache,
    /// Questions under way.
    flights: HashMap<Key, Weak<Flight>>,
    /// Servers that did not answer, and until when they are asked after the others.
    silent: HashMap<SocketAddr, Instant>,
}

/// One question under way, for all who wait for its answer.
type Flight = OnceCell<Option<Told>>;

/// An answer, and where it is from.
#[derive(Debug, Clone)]
struct Told {
    answer: Arc<Answer>,
    /// The server; none when it was kept.
    by: Option<SocketAddr>,
    /// In seconds.
    age: u32,
}

impl Forwarder {
    /// Takes the servers from a file such as `/etc/resolv.conf`, read again when it changes. 127.0.0.11 is left out.
    pub fn from_file(path: &Path) -> Self {
        Self::new(Servers::File(ResolvConf::new(path)))
    }

    /// Takes these servers.
    pub fn to_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::new(Servers::Fixed(servers.into_iter().collect()))
    }

    fn new(servers: Servers) -> Self {
        Self { node: Upstream::new(servers, Place::Here, NODES_CACHE), room: Arc::default() }
    }

    /// For a task that asks the node's name servers.
    pub fn for_task(&self) -> TaskForwarder {
        TaskForwarder { upstream: Arc::clone(&self.node), share: Share::new(&self.room) }
    }

    /// For a task that has name servers of its own. They are asked from its namespace, which lives as long as this value.
    pub fn for_task_asking(&self, ns: NetNs, servers: &[IpAddr]) -> TaskForwarder {
        let servers = servers.iter().map(|address| SocketAddr::new(*address, 53)).collect();
        let upstream = Upstream::new(Servers::Fixed(servers), Place::Inside(Arc::new(ns)), TASKS_CACHE);
        TaskForwarder { upstream, share: Share::new(&self.room) }
    }

    /// What the node's own resolver is told besides its servers.
    pub fn node_resolver(&self) -> Arc<NodeResolver> {
        match &self.node.servers {
            Servers::File(file) => file.read(),
            Servers::Fixed(_) => Arc::default(),
        }
    }
}

impl TaskForwarder {
    /// The response to `query`, at most `limit` bytes long, if it is known already.
    pub(crate) fn cached(&self, query: &[u8], limit: usize) -> Option<Vec<u8>> {
        let asked = Asked::read(query)?;
        let told = self.upstream.known_answer(&asked.key())?;
        Some(asked.response(&told.answer, told.age, limit))
    }

    /// The response to `query`, at most `limit` bytes long; `None` when no server gave one, or when the task has as many
    /// questions under way as it may.
    pub(crate) async fn forward(&self, query: &[u8], limit: usize) -> Option<Vec<u8>> {
        let asked = Asked::read(query)?;
        let told = self.ask(&asked).await?;
        Some(asked.response(&told.answer, told.age, limit))
    }

    async fn ask(&self, asked: &Asked) -> Option<Told> {
        let key = asked.key();
        if let Some(told) = self.upstream.known_answer(&key) {
            return Some(told);
        }
        let _slot = self.share.take()?;
        let flight = self.upstream.flight(&key);
        // One of those who wait asks; if it is cut off, another one does.
        let told = flight.get_or_init(|| self.upstream.ask_and_keep(asked, &key)).await;
        told.clone()
    }

    /// The servers that are asked, in this order.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.upstream.servers().to_vec()
    }
}

impl Upstream {
    fn new(servers: Servers, place: Place, cache: usize) -> Arc<Self> {
        let known = Known {
            servers: Arc::default(),
            cache: Cache::new(cache),
            flights: HashMap::new(),
            silent: HashMap::new(),
        };
        Arc::new(Self { servers, place, gap: ask::GAP, known: Mutex::new(known) })
    }

    fn servers(&self) -> Arc<[SocketAddr]> {
        match &self.servers {
            Servers::File(file) => Arc::clone(&file.read().servers),
            Servers::Fixed(servers) => Arc::clone(servers),
        }
    }

    /// What is known of the servers as they are now: others may know other names.
    fn known(&self) -> MutexGuard<'_, Known> {
        let servers = self.servers();
        let mut known = self.lock();
        if known.servers != servers {
            known.servers = servers;
            known.cache.clear();
            known.flights.clear();
            known.silent.clear();
        }
        known
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_answer(&self, key: &Key) -> Option<Told> {
        let (answer, age) = self.known().cache.get(key, Instant::now())?;
        Some(Told { answer, by: None, age })
    }

    /// The question under way, or a new one.
    fn flight(&self, key: &Key) -> Arc<Flight> {
        let mut known = self.known();
        if let Some(flight) = known.flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        // Those that nobody waited for to the end.
        if known.flights.len() > 256 {
            known.flights.retain(|_, flight| flight.strong_count() > 0);
        }
        let flight = Arc::new(Flight::new());
        known.flights.insert(key.clone(), Arc::downgrade(&flight));
        flight
    }

    async fn ask_and_keep(&self, asked: &Asked, key: &Key) -> Option<Told> {
        let servers = Arc::clone(&self.known().servers);
        let told = self.ask_servers(asked, &servers).await;
        let mut known = self.lock();
        // Only of the servers that are asked now, and while nobody could have changed them in between.
        if Arc::ptr_eq(&known.servers, &servers) {
            known.flights.remove(key);
            if let Some(told) = told.as_ref().filter(|_| asked.may_be_kept()) {
                known.cache.keep(key.clone(), &told.answer, Instant::now());
            }
        }
        told
    }
}

#[cfg(test)]
mod tests;
