//! Carries out what [`crate::Leases`] decides: renews this node's term, says what its tasks use, and ends tasks whose
//! addresses are not this node's any more.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use mesh_netlink::Netlink;
use mesh_types::NetworkId;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tracing::{debug, info, warn};

use crate::{Agent, AgentError, SessionError, SessionState, agent::lock, leases::boot_time};

/// How often leases are looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// How long changes are collected: attaches come in bunches.
const COLLECT: Duration = Duration::from_millis(50);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(2);

/// What the work on leases shares.
#[derive(Default)]
pub(crate) struct Renewing {
    /// Whoever speaks with the managers about leases, one at a time: what one gives back must not be what another asks for.
    turn: Mutex<()>,
    /// Says that there is something to tell them.
    news: Notify,
    /// Addresses of tasks that are other nodes', to be ended.
    lost: std::sync::Mutex<Vec<(NetworkId, IpAddr)>>,
}

/// The right to speak with the managers about leases.
pub(crate) type Turn<'a> = MutexGuard<'a, ()>;

impl Renewing {
    /// Has the managers told soon.
    pub fn soon(&self) {
        self.news.notify_one();
    }

    /// Waits for the right to speak.
    pub async fn turn(&self) -> Turn<'_> {
        self.turn.lock().await
    }
}

impl Agent {
    /// Renews the node's term and keeps the managers up to date, until the agent stops.
    pub(crate) async fn keep_leases(self) {
        let mut not_before = Instant::now();
        let mut before = Vec::new();
        loop {
            let news = self.inner.renewing.news.notified();
            if tokio::time::timeout(LOOK, news).await.is_ok() {
                tokio::time::sleep(COLLECT).await;
            }
            self.end_unconfirmed().await;
            let unsure = self.lock().leases.unsure();
            // Most are confirmed before they are looked at twice.
            let for_long: Vec<_> = unsure.iter().filter(|a| before.contains(*a)).copied().collect();
            self.limit(&for_long).await;
            before = unsure;
            let connected = matches!(self.inner.session.state(), SessionState::Connected(_));
            if !connected || Instant::now() < not_before {
                continue;
            }
            let turn = self.inner.renewing.turn().await;
            if let Err(error) = self.renew(&turn).await {
                debug!(%error, "renew leases");
                // It may be that this manager is cut off from the others.
                self.inner.session.try_another();
                not_before = Instant::now() + RETRY;
            }
        }
    }

    /// Tells the managers what there is to tell, and begins the term anew where it is time.
    pub(crate) async fn renew(&self, _turn: &Turn<'_>) -> Result<(), SessionError> {
        let asked = boot_time();
        let Some(renewal) = self.lock().leases.begin(asked) else { return Ok(()) };
        // What it says must hold after a crash too.
        self.save_leases().map_err(|e| SessionError::Failed(e.to_string()))?;
        let answer = self.inner.session.renew_leases(&renewal).await;
        let (answer, outcome) = match answer {
            Ok(answer) => (Some(answer), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let lost = self.lock().leases.end(asked, answer, boot_time());
        if let Err(error) = self.save_leases() {
            warn!(%error, "keep leases");
        }
        if !lost.is_empty() {
            lock(&self.inner.renewing.lost).extend(lost);
            self.inner.renewing.soon();
        }
        outcome
    }

    /// Keeps the leases on disk.
    pub(crate) fn save_leases(&self) -> Result<(), AgentError> {
        Ok(self.inner.files.save_leases(|| self.lock().leases.kept())?)
    }

    /// Ends tasks whose addresses the managers never heard of, once this node's term is over: others may get them.
    pub(crate) async fn end_unconfirmed(&self) {
        let expired = self.lock().leases.expired(boot_time());
        let why = "no manager confirmed its address in time, and another node may be given it";
        self.end_tasks_with(&expired, why).await;
        let lost = std::mem::take(&mut *lock(&self.inner.renewing.lost));
        self.end_tasks_with(&lost, "its address is that of another node's task").await;
    }

    /// Has the kernel take addresses away at the end of this node's term, unless the managers hear of them before: the daemon
    /// may be gone by then.
    async fn limit(&self, unsure: &[(NetworkId, IpAddr)]) {
        let (wanted, left) = {
            let state = self.lock();
            let limit = unsure.iter().filter(|(n, a)| !state.leases.is_limited(*n, *a)).map(|at| (*at, true));
            let free = state.leases.limited_in_vain().into_iter().map(|at| (at, false));
            (limit.chain(free).collect::<Vec<_>>(), state.leases.left(boot_time()))
        };
        if wanted.is_empty() {
            return;
        }
        wanted.iter().filter(|(_, limit)| *limit).for_each(|((network, address), _)| {
            self.lock().leases.set_limited(*network, *address, true);
        });
        if let Err(error) = self.save_leases() {
            warn!(%error, "keep leases");
        }
        for ((network, address), limit) in wanted {
            match self.set_lifetime(network, address, limit.then_some(left)).await {
                Ok(()) if limit => {
                    info!(%address, ?left, "no manager knows of a task's address; it has it for so long");
                }
                Ok(()) => self.lock().leases.set_limited(network, address, false),
                Err(error) => warn!(%address, error, "limit the lifetime of a task's address"),
            }
        }
    }

    async fn set_lifetime(
        &self,
        network: NetworkId,
        address: IpAddr,
        lifetime: Option<Duration>,
    ) -> Result<(), String> {
        let (tasks, view) = (self.tasks(), self.view());
        let subnet = view.networks.get(&network).and_then(|n| n.subnet_of(address));
        let places = tasks.iter().flat_map(|t| t.attachments.iter().map(move |a| (t, a)));
        let place = places.into_iter().find(|(_, a)| a.network == network && a.addresses.contains(&address));
        let (Some((task, at)), Some(subnet)) = (place, subnet) else { return Ok(()) };
        let with_prefix = IpNet::new(address, subnet.net().prefix_len()).map_err(|e| e.to_string())?;
        let ns = task.namespace.open().map_err(|e| e.to_string())?;
        let set = Netlink::set_lifetime_in(&ns, &at.task_link, with_prefix, lifetime).await;
        set.map_err(|e| crate::one_line(&e))
    }

    async fn end_tasks_with(&self, addresses: &[(NetworkId, IpAddr)], why: &'static str) {
        if addresses.is_empty() {
            return;
        }
        let concerned: BTreeSet<_> = {
            let mut state = self.lock();
            state.let_go_of(addresses);
            let has = |network: NetworkId, all: &[IpAddr]| {
                addresses.iter().any(|(n, address)| *n == network && all.contains(address))
            };
            let tasks = state.tasks.iter();
            tasks
                .filter(|t| t.attachments.iter().any(|a| has(a.network, &a.addresses)))
                .map(|t| t.id)
                .collect()
        };
        for id in concerned {
            warn!(task = %id, why, "the task is detached");
            if let Some(Err(error)) = self.detach_id(id, None).await {
                warn!(task = %id, %error, "detach");
            }
        }
    }

    /// Gives the managers now what is to be given back, so that another node can have it when the caller goes on.
    pub(crate) async fn return_now(&self) {
        if !matches!(self.inner.session.state(), SessionState::Connected(_)) {
            return;
        }
        let turn = self.inner.renewing.turn().await;
        if let Err(error) = self.renew(&turn).await {
            info!(%error, "addresses are given back later");
        }
    }
}
