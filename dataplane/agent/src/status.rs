//! How a node stands, for people.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh_gossip::{EntryReport, MemberState, Rates, Report, Stats};
use mesh_lb::{HookKind, describe_hook};
use mesh_types::{Listener, NodeId, format_seconds};

use crate::{
    Agent, AgentError, DataPathAddress, SessionState,
    agent::lock,
    host::{HOST_LINK, Host, HostOptions, VXLAN_LINK},
    leases::boot_time,
    uplinks::{IPV6_MIN_MTU, Uplink, overhead},
};

/// The part of a map that may be in use before an operator is told.
const PRESSURE: f64 = 0.9;

/// See the module.
#[derive(Debug, Clone)]
pub struct Status {
    /// The manager session.
    pub session: SessionState,
    /// Managers known.
    pub managers: Vec<SocketAddr>,
    /// Version of the decided state that the data path and the names follow.
    pub view_version: u64,
    /// Members by gossip.
    pub members: BTreeMap<NodeId, MemberState>,
    /// Tasks of this node.
    pub tasks: usize,
    /// `fast`, or `general` and why.
    pub path: String,
    /// Where VXLAN packets come from and go to.
    pub data_path_addr: DataPathAddress,
    /// The interfaces by which packets come in, the one of the data path address first.
    pub uplinks: Vec<UplinkStatus>,
    /// Largest packet of a task in bytes.
    pub task_mtu: u32,
    /// What is attached: interface, program, and by what.
    pub hooks: Vec<(String, String, HookKind)>,
    /// Counters of the data path.
    pub data_path: mesh_lb::Stats,
    /// Kernel features that are missing, one line each.
    pub missing: Vec<String>,
    /// Processes of this node that published ports shadow.
    pub listeners: Vec<Listener>,
    /// How long it may give addresses to tasks without a word from a manager.
    pub lease_left: Duration,
    /// Addresses of tasks that no manager knows of yet.
    pub unconfirmed: usize,
    /// How far it knows by gossip what the others know; none while it stops.
    pub gossip: Option<GossipStatus>,
    /// What needs an operator's eye.
    pub warnings: Vec<String>,
}

/// How far a node knows by gossip what the others know.
#[derive(Debug, Clone)]
pub struct GossipStatus {
    /// Its tables and members.
    pub report: Report,
    /// What passed in about the last ten seconds.
    pub rates: Rates,
    /// Since its daemon's start.
    pub counters: Stats,
}

/// An interface by which packets come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkStatus {
    /// Its name.
    pub interface: String,
    /// What is attached to it: `xdp+tcx`, `tcx`, `clsact`; empty while nothing is.
    pub hook: String,
    /// Why not XDP; empty where it is.
    pub reason: String,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl Agent {
    /// How far the node knows by gossip what the others know; none while it stops.
    pub async fn gossip_status(&self) -> Option<GossipStatus> {
        let gossip = &self.inner.gossip;
        let report = gossip.report().await?;
        Some(GossipStatus { report, rates: gossip.rates(), counters: gossip.stats() })
    }

    /// All entries that the node knows by gossip; none while it stops.
    pub async fn gossip_entries(&self) -> Option<Vec<EntryReport>> {
        self.inner.gossip.entries().await
    }

    /// How the node stands.
    pub async fn status(&self) -> Result<Status, AgentError> {
        let gossip = self.gossip_status().await;
        let reconciler = self.inner.reconciler.lock().await;
        let (tasks, gone, lease_left, unconfirmed) = {
            let state = self.lock();
            let gone = !state.view.nodes.contains_key(&self.inner.node);
            let (left, unsure) = (state.leases.left(boot_time()), state.leases.unsure());
            (state.tasks.len(), gone, left, unsure.len())
        };
        let mut warnings = Vec::new();
        warnings.extend(lock(&self.inner.unhealthy).clone());
        let session = self.inner.session.state();
        if gone || matches!(session, SessionState::Removed(_)) {
            warnings
                .push("the managers removed this node; run `meshctl leave --force`, then join again".into());
        }
        if let Some(why) = self.inner.session.refusal() {
            warnings.push(format!("the managers do not follow what this node says of itself: {why}"));
        }
        if let (true, known) = self.no_advertise_addr() {
            warnings.push(format!(
                "no interface has {known}, where other nodes look for this one; give it back, or another one to the interface"
            ));
        }
        if unconfirmed > 0 && !matches!(session, SessionState::Connected(_)) {
            let left = format_seconds(u32::try_from(lease_left.as_secs()).unwrap_or(u32::MAX));
            warnings.push(format!(
                "no manager knows of {unconfirmed} addresses of tasks; without a session within {left} these tasks are detached"
            ));
        }
        warnings.extend(reconciler.findings());
        let (host, options) = (reconciler.host(), &self.inner.options.host);
        warnings.extend(doubts(host, options));
        warnings.extend(lock(&self.inner.closed).clone());
        let data_path = reconciler.stats()?;
        warnings.extend(pressure(&data_path));
        Ok(Status {
            session,
            managers: self.inner.session.managers(),
            view_version: reconciler.applied(),
            members: self.members(),
            tasks,
            path: match options.why_general() {
                None => "fast".into(),
                Some(why) => format!("general ({why})"),
            },
            data_path_addr: host.data_path.clone(),
            uplinks: uplinks(host, &data_path),
            task_mtu: host.settings.inner_mtu,
            hooks: hooks(&data_path),
            data_path,
            missing: reconciler.missing().to_vec(),
            listeners: lock(&self.inner.listeners).clone(),
            lease_left,
            unconfirmed,
            gossip,
            warnings,
        })
    }
}

/// What of the node's links is not as somebody may think.
fn doubts(host: &Host, options: &HostOptions) -> Vec<String> {
    let mut doubts = Vec::new();
    for name in options.uplinks.iter().flatten() {
        if !host.uplinks.iter().any(|u| u.name == *name) {
            doubts.push(format!(
                "uplink {name} of the configuration is not there, or carries no Ethernet frames"
            ));
        }
    }
    let least = IPV6_MIN_MTU + overhead(host.settings.vtep);
    if host.settings.inner_mtu < IPV6_MIN_MTU {
        doubts.push(format!(
            "packets of up to {} bytes cross the underlay whole, but IPv6 needs {IPV6_MIN_MTU}: raise the uplink's MTU \
             to {least} at least",
            host.settings.inner_mtu
        ));
    }
    doubts
}

fn uplinks(host: &Host, data_path: &mesh_lb::Stats) -> Vec<UplinkStatus> {
    let status = |uplink: &Uplink| {
        let at = data_path.uplinks.iter().find(|at| at.interface == uplink.name);
        let hook = |at: &mesh_lb::Uplink| match at.xdp {
            Ok(()) => format!("xdp+{}", at.tc),
            Err(_) => at.tc.to_string(),
        };
        let reason = at.and_then(|at| at.xdp.as_ref().err()).map(ToString::to_string);
        UplinkStatus {
            interface: uplink.name.clone(),
            hook: at.map(hook).unwrap_or_default(),
            reason: reason.unwrap_or_default(),
            mtu: uplink.mtu,
        }
    };
    host.uplinks.iter().map(status).collect()
}

/// Tables of established flows that are so full that flows will stay among the new ones, which make room for others.
fn pressure(data_path: &mesh_lb::Stats) -> Vec<String> {
    let full = data_path.maps.iter().filter(|(_, used)| used.pressure() >= PRESSURE);
    full.map(|(name, used)| {
        format!(
            "{name} holds {} of {} entries; raise its limit in the configuration ([limits])",
            used.used, used.capacity
        )
    })
    .collect()
}

/// Names the interfaces of the node-wide hooks, which the data path knows by their program alone.
fn hooks(data_path: &mesh_lb::Stats) -> Vec<(String, String, HookKind)> {
    let named = data_path.links.iter().map(|(hook, &kind)| {
        let (interface, program) = describe_hook(hook);
        let interface = interface.unwrap_or_else(|| match program.as_str() {
            "vxlan" => VXLAN_LINK.to_owned(),
            _ => HOST_LINK.0.to_owned(),
        });
        (interface, program, kind)
    });
    let mut all: Vec<_> = named.collect();
    all.sort();
    all
}
