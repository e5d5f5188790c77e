//! `meshctl status`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, StatusRequest, StatusResponse};
use mesh_types::{Listener, format_seconds};
use serde::Serialize;

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    log_level,
    output::{Page, Table, list, short, state},
    report::{GossipReport, ListenerReport, listener_lines, member_state},
};

/// Show how this node is: cluster, members, data path, drops
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl status
  meshctl --format json status
  meshctl status --format '{{range .Warnings}}{{println .}}{{end}}'     what needs an eye, a line each

What drops mean and where to look is in troubleshooting.md of the documentation; `meshctl doctor` looks for causes.")]
pub struct Args {}

#[derive(Debug, Serialize)]
struct Report {
    version: String,
    /// `inactive` outside any cluster; `locked` on a manager that waits for its unlock key; else `active`.
    state: String,
    cluster_id: String,
    node_id: String,
    node_name: String,
    role: &'static str,
    advertise_addr: String,
    data_path_addr: String,
    managers: Vec<String>,
    manager_session: String,
    view_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_version: Option<u64>,
    members: Vec<Member>,
    tasks: u32,
    data_path: DataPath,
    /// What the node may do with its leases on its own.
    leases: Leases,
    warnings: Vec<String>,
    /// Processes of this node that published ports shadow.
    listeners: Vec<ListenerReport>,
    /// How far the node knows by gossip what the others know; null outside any cluster.
    gossip: Option<GossipReport>,
    /// What the daemon logs.
    log: Option<log_level::Report>,
    /// Spans of its calls; null where none are exported.
    traces: Option<Traces>,
}

#[derive(Debug, Serialize)]
struct Traces {
    endpoint: String,
    exported: u64,
    dropped: u64,
    /// Why the collector took none last; empty: it does.
    trouble: String,
}

#[derive(Debug, Default, Serialize)]
struct Leases {
    /// How long it may give addresses to tasks without a word from a manager.
    left_secs: u64,
    /// Addresses of tasks that no manager knows of yet.
    unconfirmed: u32,
}

#[derive(Debug, Serialize)]
struct Member {
    node_id: String,
    name: Option<String>,
    state: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct DataPath {
    path: String,
    uplink: String,
    uplink_mtu: u32,
    task_mtu: u32,
    hooks: Vec<Hook>,
    /// Packets by reason; reasons that never occurred may be left out or 0.
    drops: BTreeMap<String, u64>,
    /// Packets by path.
    packets: BTreeMap<String, u64>,
    missing_features: Vec<String>,
    uplinks: Vec<Uplink>,
    /// How full the tables of flows are.
    flows: Vec<FlowTable>,
}

#[derive(Debug, Serialize)]
struct Uplink {
    interface: String,
    /// `xdp+tcx`, `tcx` or `clsact`.
    hook: String,
    /// Why it is not XDP.
    reason: String,
    mtu: u32,
}

#[derive(Debug, Serialize)]
struct FlowTable {
    name: String,
    used: u64,
    capacity: u64,
}

#[derive(Debug, Serialize)]
struct Hook {
    interface: String,
    program: String,
    kind: String,
}

/// Asks the daemon.
pub async fn run(_args: &Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let status = answer(daemon.local().status(StatusRequest {})).await.context("cannot get the status")?;
    let names = if status.state == "inactive" { BTreeMap::new() } else { node_names(&daemon).await };
    context.show(&Report::new(status, &names), Report::page)
}

/// Names by id, as far as the daemon has a view.
async fn node_names(daemon: &Daemon) -> BTreeMap<String, String> {
    let answered = answer(daemon.local().get_view(v1::GetViewRequest {})).await;
    let view = answered.ok().and_then(|response| response.view).unwrap_or_default();
    view.nodes.into_iter().map(|node| (node.id, node.name)).collect()
}

impl Report {
    fn new(status: StatusResponse, names: &BTreeMap<String, String>) -> Self {
        let role = status.role().try_into().map_or("", mesh_types::Role::as_str);
        let member = |member: &v1::Member| Member {
            node_id: member.node_id.clone(),
            name: names.get(&member.node_id).cloned(),
            state: member_state(member.state()),
        };
        let mut members: Vec<_> = status.members.iter().map(member).collect();
        members.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
        let hook =
            |hook: v1::Hook| Hook { interface: hook.interface, program: hook.program, kind: hook.kind };
        let uplink = |uplink: v1::Uplink| Uplink {
            interface: uplink.interface,
            hook: uplink.hook,
            reason: uplink.reason,
            mtu: uplink.mtu,
        };
        let flows =
            |table: v1::FlowTable| FlowTable { name: table.name, used: table.used, capacity: table.capacity };
        let listeners = status.listeners.iter().filter_map(|one| Listener::try_from(one.clone()).ok());
        let listeners = listeners
            .map(|one| ListenerReport::on_node(&status.node_name, status.node_id.clone(), &one))
            .collect();
        let data_path = status.data_path.map(|data_path| DataPath {
            path: data_path.path,
            uplink: data_path.uplink,
            uplink_mtu: data_path.uplink_mtu,
            task_mtu: data_path.task_mtu,
            hooks: data_path.hooks.into_iter().map(hook).collect(),
            drops: data_path.drops,
            packets: data_path.packets,
            missing_features: data_path.features,
            uplinks: data_path.uplinks.into_iter().map(uplink).collect(),
            flows: data_path.flows.into_iter().map(flows).collect(),
        });
        let leases = status.leases.unwrap_or_default();
        Self {
            version: status.version,
            state: status.state,
            cluster_id: status.cluster_id,
            node_id: status.node_id,
            node_name: status.node_name,
            role,
            advertise_addr: status.advertise_addr,
            data_path_addr: status.data_path_addr,
            managers: status.managers,
            manager_session: status.manager_session,
            view_version: status.view_version,
            decided_version: Some(status.decided_version).filter(|&version| version > 0),
            members,
            tasks: status.tasks,
            data_path: data_path.unwrap_or_default(),
            leases: Leases { left_secs: leases.left_secs, unconfirmed: leases.unconfirmed },
            warnings: status.warnings,
            listeners,
            gossip: status.gossip.map(|gossip| GossipReport::new(gossip, names)),
            log: status.log.map(Into::into),
            traces: status.traces.map(|traces| Traces {
                endpoint: traces.endpoint,
                exported: traces.exported,
                dropped: traces.dropped,
                trouble: traces.trouble,
            }),
        }
    }

    /// How far this node is behind what its manager knows to be decided.
    fn view_text(&self) -> String {
        match self.decided_version {
            Some(decided) if decided > self.view_version => {
                format!("version {} of {decided}", self.view_version)
            }
            _ => format!("version {}", self.view_version),
        }
    }

    fn page(&self) -> String {
        let mut page = Page::new();
        page.field("Daemon", format!("meshd {}", self.version)).field("State", state(&self.state));
        if let Some(log) = &self.log {
            page.field("Log", log.level());
        }
        if let Some(traces) = &self.traces {
            page.field("Traces", traces.text());
        }
        if self.state == "inactive" {
            page.field("Cluster", "none; make one with `meshctl init`, or join one with `meshctl join`");
        } else {
            page.field("Cluster", &self.cluster_id)
                .field("Node", format!("{} ({}), {}", self.node_name, self.node_id, self.role))
                .field("Address", &self.advertise_addr)
                .field("Data path address", &self.data_path_addr)
                .field("Managers", list(&self.managers))
                .field("Session", &self.manager_session)
                .field("View", self.view_text())
                .field("Members", self.member_counts());
            if let Some(gossip) = &self.gossip {
                gossip.fields(&mut page);
            }
            page.field("Tasks", self.tasks).field("Leases", self.leases.text());
            self.data_path.fields(&mut page);
            let mut members = Table::new(&["NODE ID", "NAME", "STATE"]);
            for member in self.members.iter().filter(|member| member.state != "alive") {
                let name = member.name.as_deref().unwrap_or("-");
                members.row([short(&member.node_id).into(), name.into(), state(member.state)]);
            }
            page.section("Members that are not alive", members);
            self.data_path.sections(&mut page);
        }
        let warnings = [self.warnings.join("\n"), listener_lines(&self.listeners)];
        page.lines("Warnings", warnings.join("\n").trim_matches('\n'));
        page.render()
    }

    /// `3: 2 alive, 1 down`.
    fn member_counts(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &self.members {
            *counts.entry(member.state).or_default() += 1;
        }
        let counts = list(counts.iter().map(|(state, count)| format!("{count} {state}")));
        format!("{}: {counts}", self.members.len()).trim_end_matches(": ").to_owned()
    }
}

impl Traces {
    fn text(&self) -> String {
        let Self { endpoint, exported, dropped, trouble } = self;
        let trouble = if trouble.is_empty() { String::new() } else { format!("; not taken now: {trouble}") };
        format!("to {endpoint}: {exported} spans exported, {dropped} dropped{trouble}")
    }
}

impl Leases {
    fn text(&self) -> String {
        let left = format_seconds(u32::try_from(self.left_secs).unwrap_or(u32::MAX));
        match self.unconfirmed {
            0 => format!("held without a manager for {left}"),
            n => format!("held without a manager for {left}; {n} addresses in use are not confirmed"),
        }
    }
}

impl DataPath {
    fn fields(&self, page: &mut Page) {
        page.field("Data path", if self.path.is_empty() { "not running" } else { &self.path });
        if !self.uplink.is_empty() {
            let mtu = format!("{}, MTU {}; tasks have {}", self.uplink, self.uplink_mtu, self.task_mtu);
            page.field("Uplink", mtu);
        }
    }

    fn sections(&self, page: &mut Page) {
        let mut hooks = Table::new(&["INTERFACE", "PROGRAM", "KIND"]);
        for hook in &self.hooks {
            hooks.row([&hook.interface, &hook.program, &hook.kind]);
        }
        let packets = counters("PATH", &self.packets);
        let drops = counters("REASON", &self.drops);
        let mut uplinks = Table::new(&["INTERFACE", "HOOK", "MTU", "WHY NOT XDP"]);
        for uplink in &self.uplinks {
            let reason = if uplink.reason.is_empty() { "-" } else { &uplink.reason };
            uplinks.row([&uplink.interface, &uplink.hook, &uplink.mtu.to_string(), reason]);
        }
        let mut flows = Table::new(&["TABLE", "FLOWS", "ROOM FOR", "FULL"]);
        for table in &self.flows {
            let percent = table.used.saturating_mul(100).checked_div(table.capacity).unwrap_or_default();
            let numbers = [table.used, table.capacity].map(|n| n.to_string());
            let [used, capacity] = numbers;
            flows.row([table.name.clone(), used, capacity, format!("{percent} %")]);
        }
        page.section("Uplinks", uplinks)
            .section("Flows", flows)
            .section("Hooks", hooks)
            .section("Packets", packets)
            .section("Drops", drops)
            .lines("Missing kernel features", &self.missing_features.join("\n"));
    }
}

/// Those that are not 0, the largest first.
fn counters(heading: &str, counters: &BTreeMap<String, u64>) -> Table {
    let mut counted: Vec<_> = counters.iter().filter(|&(_, &count)| count > 0).collect();
    counted.sort_by_key(|&(name, &count)| (std::cmp::Reverse(count), name));
    let mut table = Table::new(&[heading, "PACKETS"]);
    for (name, count) in counted {
        table.row([name.clone(), count.to_string()]);
    }
    table
}
