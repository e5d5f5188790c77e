//! The one configuration, checked before anything happens.
//!
//! `file` reads it and finds every fault at once, `check` says which values make no sense, `change` what of a changed
//! file a running daemon can follow. `packaging/meshd.toml` explains every key; a test holds it against this type.

mod change;
mod check;
mod file;
mod flags;
mod keys;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use mesh_agent::{DataPathOptions, FlowTimeouts, Limits, Sizes, UplinkHook};
use serde::{Deserialize, Serialize};

pub use self::{change::Change, check::log as check_log, file::Findings, flags::Flags};

/// What is in force. Every key may be set in the file; a flag wins over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for identity, cluster state and kept tasks. Losing it means joining anew.
    pub state_dir: PathBuf,
    /// Folder for the socket; made anew at each start.
    pub run_dir: PathBuf,
    /// Folder for pinned maps and links. Another folder is another data path.
    pub bpf_dir: PathBuf,
    /// What to log: `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter such as `info,mesh_gossip=debug`.
    pub log: String,
    /// Where the log goes, and in which form.
    pub log_format: LogFormat,
    /// How packets travel between nodes.
    pub path: PathMode,
    /// Whether the outer UDP headers carry a checksum, for underlays that want one. The kernel's VXLAN device does it then:
    /// slower.
    pub outer_checksum: bool,
    /// Interfaces by which clients and other nodes come in, besides the one of the data path address. By default every
    /// Ethernet interface that is up and has an address, or by which packets to other nodes or a default route leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplinks: Option<Vec<String>>,
    /// Which programs handle packets of uplinks first.
    pub uplink_hook: HookMode,
    /// Lists the resolvers that names outside the mesh are forwarded to; followed when it changes.
    pub resolv_conf: PathBuf,
    /// Whether services may have commands run on this node to check their tasks. Who may change services then runs what
    /// they like here, as root.
    pub health_commands: bool,
    /// Seconds for which the firewall tables that let tasks out stay after the last task that needed them. A task that comes
    /// meanwhile need not wait for them; with them the kernel tracks every connection of the node.
    pub egress_linger: u32,
    /// Room in the data path's maps, in entries; see `docs/configuration.md` for what each takes in memory.
    pub limits: LimitsConfig,
    /// How long established flows may be silent.
    pub conntrack: ConntrackConfig,
    /// What this node counts, by HTTP.
    pub metrics: MetricsConfig,
    /// The page that this node's manager serves when somebody asks for it.
    pub dashboard: DashboardConfig,
    /// Networks of the mesh for containers of a Docker engine.
    pub docker: DockerConfig,
    /// Spans of the daemon's calls.
    pub traces: TracesConfig,
}

/// Where the log goes, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// To journald where systemd started the daemon, else as text.
    Auto,
    /// To standard error, for people.
    Text,
    /// To standard error, an object on each line.
    Json,
    /// To journald.
    Journald,
}

/// `[traces]`: spans of calls, for a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracesConfig {
    /// Takes OTLP over HTTP; none: nothing is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How many of a hundred traces that begin on this node.
    pub percent: u8,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: None, percent: 100 }
    }
}

/// `[metrics]`: the listener for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where it listens, `ADDRESS:PORT`; empty: nowhere. Whoever reaches it reads names of networks, services and tasks.
    pub listen: String,
    /// Attachments of this node's tasks with series of their own; the rest is summed up.
    pub endpoints: u32,
    /// Services, and virtual addresses and published ports, with series of their own; the rest is summed up.
    pub services: u32,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9476".into(), endpoints: 1000, services: 1000 }
    }
}

impl MetricsConfig {
    /// Where it listens, if anywhere.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }
}

/// `[dashboard]`: the page that this node's manager serves when somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DashboardConfig {
    /// Where, `ADDRESS:PORT`, unless `meshctl dashboard --listen` says otherwise; empty: this node serves none at all.
    pub listen: String,
    /// Seconds without anybody doing anything after which a session ends.
    pub idle: u32,
    /// Seconds after which a session ends in any case.
    pub session: u32,
}

impl Default for DashboardConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7380".into(), idle: 15 * 60, session: 12 * 3600 }
    }
}

impl DashboardConfig {
    /// Where it is served, if it may be.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }
}

/// `[docker]`: the plugin for a Docker engine on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerConfig {
    /// Whether it is served.
    pub enabled: bool,
    /// Where Docker looks for it; the file's name without `.sock` is the driver's name in Docker.
    pub plugin_socket: PathBuf,
    /// Docker's API, where labels of containers are read.
    pub engine_socket: PathBuf,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            plugin_socket: "/run/docker/plugins/mesh.sock".into(),
            engine_socket: "/run/docker.sock".into(),
        }
    }
}

/// Which programs handle packets of uplinks first. The tc program is there in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookMode {
    /// XDP where the driver is known to run it well.
    Auto,
    /// XDP wherever the driver takes it.
    Xdp,
    /// tc alone.
    Tc,
}

/// `[limits]`: entries of the data path's maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<u32>,
    /// Networks with a task on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<u32>,
    /// Addresses of tasks of all nodes on those networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
    /// Attachments of this node's tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_endpoints: Option<u32>,
    /// VIPs and published ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Slots of the tables from which tasks are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_slots: Option<u32>,
    /// Tasks behind services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<u32>,
    /// Flows of each kind: new and established, from clients and to tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<u32>,
    /// Fragmented packets on their way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragments: Option<u32>,
    /// Clients of services with affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<u32>,
    /// Sockets of the node that speak to published ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_sockets: Option<u32>,
}

/// `[conntrack]`: seconds of silence after which an established flow is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConntrackConfig {
    /// TCP, open in both directions.
    pub tcp_established: u32,
    /// TCP, closed by one side.
    pub tcp_half_closed: u32,
    /// TCP, closed by both sides or reset.
    pub tcp_closing: u32,
    /// UDP.
    pub udp: u32,
    /// SCTP.
    pub sctp: u32,
    /// Everything else.
    pub other: u32,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        let usual = FlowTimeouts::default();
        let secs = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Self {
            tcp_established: secs(usual.tcp_established),
            tcp_half_closed: secs(usual.tcp_half_closed),
            tcp_closing: secs(usual.tcp_closing),
            udp: secs(usual.udp),
            sctp: secs(usual.sctp),
            other: secs(usual.other),
        }
    }
}

impl ConntrackConfig {
    /// As the data path takes them.
    pub fn timeouts(&self) -> FlowTimeouts {
        let secs = |secs: u32| Duration::from_secs(secs.into());
        FlowTimeouts {
            tcp_established: secs(self.tcp_established),
            tcp_half_closed: secs(self.tcp_half_closed),
            tcp_closing: secs(self.tcp_closing),
            udp: secs(self.udp),
            sctp: secs(self.sctp),
            other: secs(self.other),
        }
    }
}

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMode {
    /// The programs write and strip VXLAN headers themselves.
    Auto,
    /// The kernel's VXLAN device does: slower, for comparison and for kernels that refuse the other.
    General,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/meshd".into(),
            run_dir: "/run/meshd".into(),
            bpf_dir: "/sys/fs/bpf/meshd".into(),
            log: "info".into(),
            log_format: LogFormat::Auto,
            path: PathMode::Auto,
            outer_checksum: false,
            uplinks: None,
            uplink_hook: HookMode::Auto,
            resolv_conf: "/etc/resolv.conf".into(),
            health_commands: false,
            egress_linger: 30,
            limits: LimitsConfig::default(),
            conntrack: ConntrackConfig::default(),
            metrics: MetricsConfig::default(),
            dashboard: DashboardConfig::default(),
            docker: DockerConfig::default(),
            traces: TracesConfig::default(),
        }
    }
}

impl Config {
    /// How the data path is to be opened.
    pub fn data_path(&self) -> DataPathOptions {
        let l = self.limits;
        let limits = Limits {
            peers: l.peers,
            networks: l.networks,
            endpoints: l.endpoints,
            local_endpoints: l.local_endpoints,
            services: l.services,
            table_slots: l.table_slots,
            backends: l.backends,
            flows: l.flows,
            fragments: l.fragments,
            clients: l.clients,
            host_sockets: l.host_sockets,
        };
        DataPathOptions {
            sizes: Sizes::default().with(&limits),
            timeouts: self.conntrack.timeouts(),
            uplink_hook: match self.uplink_hook {
                HookMode::Auto => UplinkHook::Auto,
                HookMode::Xdp => UplinkHook::Xdp,
                HookMode::Tc => UplinkHook::Tc,
            },
            ..DataPathOptions::new(&self.bpf_dir)
        }
    }

    /// As a file would say it.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("print the configuration")
    }
}

#[cfg(test)]
mod tests;
