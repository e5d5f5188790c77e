//! The loop that follows what changes: the managers, gossip, and the node's own links, addresses and routes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mesh_gossip::KeyRing;
use mesh_netlink::Netlink;
use mesh_types::{ClusterView, GOSSIP_PORT, MANAGER_PORT, NodeId, Role, VXLAN_PORT};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    Agent, AgentError,
    agent::lock,
    host::{Host, Known},
    leases::boot_time,
    session::{Told, one_line},
    uplinks::task_mtu,
};

/// After a failed turn, and for what no event tells.
const RETRY: Duration = Duration::from_secs(2);
/// How long changes of links, addresses and routes are collected before they are looked at: they come in bunches.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a data path address may be missing before another one of its interface takes its place: what renews
/// addresses often removes them for a moment.
const GRACE: Duration = Duration::from_millis(500);

impl Agent {
    /// Follows managers, gossip and the node's links until the agent stops.
    pub(crate) async fn run(self, mut told: mpsc::Receiver<Told>) {
        let stop = self.inner.stop.clone();
        let mut gossip = self.inner.gossip.watch();
        let (changed, mut links) = mpsc::channel(1);
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(follow_links(self.inner.netlink.clone(), changed)),
        );
        let mut retry: Option<Instant> = self.lock().remember_until;
        let mut host = Ok(());
        loop {
            let sleep = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(told) = told.recv() => if self.take_view(told).await {
                    // The ways to new nodes have to be asked for.
                    host = self.refresh_host().await;
                },
                Ok(()) = gossip.changed() => self.hear_managers(),
                Some(()) = links.recv() => host = self.refresh_host().await,
                // What failed is tried again.
                () = sleep => if host.is_err() || self.lock().advertise_lost.is_some() {
                    host = self.refresh_host().await;
                },
            }
            let reconciled = self.reconcile().await;
            retry = match host.as_ref().and(reconciled.as_ref()) {
                Ok(()) => {
                    if lock(&self.inner.unhealthy).take().is_some() {
                        info!("reconciled again");
                    }
                    let state = self.lock();
                    let lost =
                        state.advertise_lost.map(|since| (since + GRACE).max(Instant::now() + GRACE / 2));
                    [state.remember_until, lost].into_iter().flatten().min()
                }
                Err(error) => {
                    let error = one_line(error);
                    let told = Some(format!("the data path is behind: {error}"));
                    if std::mem::replace(&mut *lock(&self.inner.unhealthy), told.clone()) != told {
                        warn!(error, "reconcile");
                    }
                    let lost = self.lock().data_path_lost.is_some();
                    Some(Instant::now() + if lost { GRACE } else { RETRY })
                }
            };
        }
    }

    /// Takes what a manager says. Tells whether other nodes came or moved.
    async fn take_view(&self, told: Told) -> bool {
        let Told { view, leases, managers, listeners } = told;
        *lock(&self.inner.all_listeners) = listeners;
        let (moved, leased) = {
            let mut state = self.lock();
            if view.version < state.view.version {
                debug!(version = view.version, "an older state is ignored");
                return false;
            }
            let before = state.leases.kept();
            state.leases.replace(view.version, &leases, boot_time());
            let leased = state.leases.kept() != before;
            let before = state.view.nodes.values().map(|n| n.data_path_addr);
            let moved = !before.eq(view.nodes.values().map(|n| n.data_path_addr));
            state.view = view.clone();
            (moved, leased)
        };
        if let Err(error) = self.inner.files.save_view(&view, managers) {
            warn!(%error, "keep the cluster's state");
        }
        if leased && let Err(error) = self.save_leases() {
            warn!(%error, "keep leases");
        }
        self.apply_view_to_gossip().await;
        self.follow_availability();
        self.inner.services.notify_one();
        moved
    }

    pub(crate) async fn apply_view_to_gossip(&self) {
        let view = self.view();
        match KeyRing::new(view.gossip_keys.clone()) {
            Ok(keys) => {
                self.inner.gossip.set_keys(keys.clone()).await;
                self.inner.session.report_gossip_keys(keys, view.version);
            }
            Err(error) => warn!(%error, "gossip keys from the managers"),
        }
        self.inner.gossip.set_peers(gossip_peers(self.inner.node, &view)).await;
        self.apply_data_paths_to_gossip().await;
    }

    /// Lets gossip ask the others' data paths, which answer this node's data path address alone.
    async fn apply_data_paths_to_gossip(&self) {
        let Some(own) = self.lock().data_path.as_ref().map(|d| d.address) else { return };
        let view = self.view();
        let others = view.nodes.values().filter(|n| n.id != self.inner.node);
        let reached = others.filter(|n| n.data_path_addr.is_ipv4() == own.is_ipv4());
        let paths = reached.map(|n| (n.id, (n.data_path_addr, VXLAN_PORT).into()));
        self.inner.gossip.set_data_paths(own, paths.collect()).await;
    }

    /// Reads the node's links again; the data path address and the tasks' MTU follow them.
    async fn refresh_host(&self) -> Result<(), AgentError> {
        let (last, lost, advertise, advertise_lost) = {
            let state = self.lock();
            (state.data_path.clone(), state.data_path_lost, state.advertise.clone(), state.advertise_lost)
        };
        let view = self.view();
        let others = view.nodes.values().filter(|n| n.id != self.inner.node);
        let peers: Vec<_> = others.map(|n| n.data_path_addr).collect();
        let late = |lost: Option<Instant>| lost.is_some_and(|since| since.elapsed() >= GRACE);
        let known = Known {
            last: last.as_ref(),
            may_change: late(lost),
            advertise: advertise.as_ref(),
            advertise_may_change: late(advertise_lost),
            peers: &peers,
        };
        let ensured = Host::ensure(&self.inner.netlink, &self.inner.options.host, known).await;
        let host = match ensured {
            Ok(host) => host,
            Err(error) => {
                if error.is_lost_address() {
                    self.lock().data_path_lost.get_or_insert_with(Instant::now);
                }
                return Err(error);
            }
        };
        self.keep_data_path(&host);
        self.keep_advertise(&host).await;
        self.apply_data_paths_to_gossip().await;
        let mtu = host.settings.inner_mtu;
        let before = self.inner.reconciler.lock().await.set_host(host);
        if before.settings.inner_mtu != mtu {
            info!(mtu, before = before.settings.inner_mtu, "task MTU follows the uplink");
            self.set_task_mtu(mtu).await;
        }
        Ok(())
    }

    /// Notes where VXLAN packets come from and go to now, for the managers and the next start.
    pub(crate) fn keep_data_path(&self, host: &Host) {
        let now = &host.data_path;
        let before = {
            let mut state = self.lock();
            state.data_path_lost = None;
            state.data_path.replace(now.clone())
        };
        if before.as_ref() == Some(now) {
            return;
        }
        info!(address = %now.address, interface = now.interface, "data path address");
        if let Err(error) = self.inner.files.save_data_path(now) {
            warn!(%error, "keep the data path address");
        }
        self.inner.session.report_data_path(now.address);
    }

    /// Notes where other nodes reach this one now, and tells them and the managers.
    pub(crate) async fn keep_advertise(&self, host: &Host) {
        let Some(now) = &host.advertise else {
            self.lock().advertise_lost.get_or_insert_with(Instant::now);
            return;
        };
        let before = {
            let mut state = self.lock();
            state.advertise_lost = None;
            state.advertise.replace(now.clone())
        };
        let old = before.as_ref().map_or(self.inner.options.advertise_addr, |before| before.address);
        self.inner.session.report_advertise(old, now.address);
        if before.as_ref() == Some(now) {
            return;
        }
        info!(address = %now.address, interface = now.interface, "advertised address");
        if let Err(error) = self.inner.files.save_advertise(now) {
            warn!(%error, "keep the advertised address");
        }
        if old != now.address {
            self.inner.gossip.set_advertise((now.address, GOSSIP_PORT).into()).await;
        }
    }

    /// Tells the session where managers are that have moved, as they say by gossip.
    fn hear_managers(&self) {
        let (view, tables) = (self.view(), self.inner.gossip.watch().borrow().clone());
        let managers = view.nodes.values().filter(|n| n.role == Role::Manager);
        let heard = managers.filter_map(|manager| {
            let heard = tables.members.get(&manager.id)?.addr.ip();
            (heard != manager.advertise_addr).then_some((heard, MANAGER_PORT).into())
        });
        self.inner.session.heard(heard.collect());
    }

    async fn set_task_mtu(&self, node_mtu: u32) {
        let (view, tasks) = (self.view(), self.tasks());
        for task in &tasks {
            for attachment in &task.attachments {
                let Some(network) = view.networks.get(&attachment.network) else { continue };
                let mtu = task_mtu(node_mtu, network);
                let outside = self.inner.netlink.set_mtu(&attachment.link, mtu).await;
                let inside = match task.namespace.open() {
                    Ok(ns) => Netlink::set_mtu_in(&ns, &attachment.task_link, mtu).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = outside.and(inside) {
                    warn!(task = %task.name, %error, "set the MTU");
                }
            }
        }
    }
}

/// Tells, at most one word ahead, that links, addresses or routes changed.
async fn follow_links(netlink: Netlink, changed: mpsc::Sender<()>) {
    loop {
        let events = (netlink.watch_links(), netlink.watch_addresses(), netlink.watch_routes());
        let (Ok(mut links), Ok(mut addresses), Ok(mut routes)) = events else {
            warn!("links cannot be followed; trying again");
            tokio::time::sleep(RETRY).await;
            continue;
        };
        loop {
            let more = tokio::select! {
                event = links.next() => event.map(drop),
                event = addresses.next() => event.map(drop),
                event = routes.next() => event,
            };
            tokio::time::sleep(SETTLE).await;
            // A full channel means that a word is on its way already. The end of the events may have swallowed some.
            if let Err(mpsc::error::TrySendError::Closed(())) = changed.try_send(()) {
                return;
            }
            if more.is_none() {
                tokio::time::sleep(RETRY).await;
                break;
            }
        }
    }
}

/// The nodes that gossip of `node` talks to.
pub(crate) fn gossip_peers(node: NodeId, view: &ClusterView) -> Vec<(NodeId, SocketAddr)> {
    let others = view.nodes.values().filter(|n| n.id != node);
    others.map(|n| (n.id, (n.advertise_addr, GOSSIP_PORT).into())).collect()
}
