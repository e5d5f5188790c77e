//! What is looked at from time to time, since no event tells of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use mesh_types::{Listener, PublishMode};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::{
    Agent, AgentError, Attachment, LocalTask,
    agent::lock,
    host::{NFT_TABLE, egress_pool, egress_pool6},
    listeners::{Listening, listening, owners, shadows},
};

/// How often flows are looked at for their age.
const AGE: Duration = Duration::from_secs(1);
/// How often the node's sockets and firewall are looked at, and at most how often when published ports change.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Agent {
    /// Forgets flows that have seen nothing for their time, until the agent stops.
    pub(crate) async fn age_flows(self) {
        let mut ticks = tokio::time::interval(AGE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.inner.reconciler.lock().await.age_flows() {
                warn!(%error, "age flows");
            }
        }
    }

    /// How many established flows each of the tasks has.
    pub(crate) async fn flows_of(&self, tasks: &[LocalTask]) -> Result<Vec<u64>, AgentError> {
        let ids: BTreeSet<_> = tasks.iter().flat_map(|t| t.attachments.iter().map(|a| a.local_id)).collect();
        let counts = self.inner.reconciler.lock().await.flows_of(&ids)?;
        let of = |a: &Attachment| counts.get(&a.local_id).copied().unwrap_or(0);
        Ok(tasks.iter().map(|t| t.attachments.iter().map(of).sum()).collect())
    }

    /// Looks for what the node's own processes and firewall have against published ports and tasks, until the agent stops.
    pub(crate) async fn look_around(self) {
        loop {
            let (ports, pools) = (self.published(), self.pools());
            self.look_for_listeners(&ports).await;
            self.look_at_firewall(pools.clone()).await;
            let until = tokio::time::Instant::now() + LOOK;
            while tokio::time::Instant::now() < until {
                tokio::time::sleep(LOOK_AGAIN).await;
                if self.published() != ports || self.pools() != pools {
                    break;
                }
            }
        }
    }

    /// The pools of addresses by which tasks of this node get out.
    fn pools(&self) -> Vec<IpNet> {
        let state = self.lock();
        let attachments = || state.tasks.iter().flat_map(|t| &t.attachments);
        let v4 = attachments().any(|a| a.egress4.is_some()).then(egress_pool);
        let v6 = attachments().any(|a| a.egress6.is_some()).then(egress_pool6);
        v4.into_iter().chain(v6).collect()
    }

    /// The ports that are open on this node.
    fn published(&self) -> Vec<mesh_types::PortConfig> {
        let state = self.lock();
        let runs = |service| state.tasks.iter().any(|t| t.service == Some(service));
        let services = state.view.services.values();
        let ports = services.flat_map(|s| s.ports.iter().map(move |p| (s.id, *p)));
        ports
            .filter(|(service, p)| p.mode == PublishMode::Ingress || runs(*service))
            .map(|(_, p)| p)
            .chain(state.tasks.iter().flat_map(|t| t.attachments.iter().flat_map(|a| a.host_ports.clone())))
            .collect()
    }

    async fn look_for_listeners(&self, ports: &[mesh_types::PortConfig]) {
        let addresses = self.inner.reconciler.lock().await.host().addresses.clone();
        let ports = ports.to_vec();
        let look = move || -> std::io::Result<Vec<Listener>> {
            if ports.is_empty() {
                return Ok(Vec::new());
            }
            let shadowed = |socket: &Listening| ports.iter().any(|port| shadows(port, socket, &addresses));
            let sockets: Vec<_> = listening()?.into_iter().filter(shadowed).collect();
            let inodes: BTreeSet<_> = sockets.iter().map(|s| s.inode).collect();
            let owners = if inodes.is_empty() { BTreeMap::new() } else { owners(&inodes) };
            let mut found: Vec<_> = sockets
                .iter()
                .map(|socket| Listener {
                    port: socket.port,
                    protocol: socket.protocol,
                    address: socket.address,
                    process: owners.get(&socket.inode).cloned(),
                })
                // The data path itself takes what is meant for the daemon: nothing is shadowed.
                .filter(|l| l.process.as_ref().is_none_or(|p| p.pid != std::process::id()))
                .collect();
            found.sort();
            found.dedup();
            Ok(found)
        };
        // A thread of this process is in the node's namespace, as the daemon is.
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(found)) => {
                if *lock(&self.inner.listeners) != found {
                    for listener in &found {
                        warn!(%listener, "shadowed by a published port");
                    }
                    lock(&self.inner.listeners).clone_from(&found);
                    self.inner.session.report_listeners(found);
                }
            }
            Ok(Err(error)) => warn!(%error, "look for listening processes"),
            Err(error) => warn!(%error, "look for listening processes"),
        }
    }

    async fn look_at_firewall(&self, pools: Vec<IpNet>) {
        let look = move || -> Vec<String> {
            mesh_firewall::forwarding_closed(&pools, NFT_TABLE).iter().map(ToString::to_string).collect()
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(closed) => {
                let before = std::mem::replace(&mut *lock(&self.inner.closed), closed.clone());
                for line in closed.iter().filter(|line| !before.contains(line)) {
                    warn!("{line}");
                }
                if closed.is_empty() && !before.is_empty() {
                    info!("the host's firewall lets forwarded packets pass now");
                }
            }
            Err(error) => warn!(%error, "look at the host's firewall"),
        }
    }
}
