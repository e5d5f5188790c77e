//! The one configuration, checked before anything happens.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use mesh_agent::{DataPathOptions, FlowTimeouts, Limits, Sizes, UplinkHook};
use mesh_types::InterfaceName;
use serde::{Deserialize, Serialize};

/// Where the configuration is looked for when no flag names one; it may be absent there.
const DEFAULT_CONFIG: &str = "/etc/meshd/meshd.toml";

/// meshd: overlay networking and a routing mesh for this node.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Flags {
    /// Configuration file (TOML) [default: /etc/meshd/meshd.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for identity, cluster state and kept tasks [default: /var/lib/meshd]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Folder for the socket that meshctl talks to [default: /run/meshd]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Folder, on a bpffs, for pinned maps and links [default: /sys/fs/bpf/meshd]
    #[arg(long, value_name = "DIR")]
    bpf_dir: Option<PathBuf>,
    /// Check the configuration, print what is in force, and exit
    #[arg(long)]
    pub check_config: bool,
}

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
    /// Room in the data path's maps, in entries; see `docs/configuration.md` for what each takes in memory.
    pub limits: LimitsConfig,
    /// How long established flows may be silent.
    pub conntrack: ConntrackConfig,
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
            path: PathMode::Auto,
            outer_checksum: false,
            uplinks: None,
            uplink_hook: HookMode::Auto,
            resolv_conf: "/etc/resolv.conf".into(),
            health_commands: false,
            limits: LimitsConfig::default(),
            conntrack: ConntrackConfig::default(),
        }
    }
}

impl Config {
    /// Reads the file, if any, and lets the flags win.
    pub fn load(flags: &Flags) -> Result<Self> {
        let mut config = match &flags.config {
            Some(path) => Self::read(path)?,
            None if Path::new(DEFAULT_CONFIG).exists() => Self::read(Path::new(DEFAULT_CONFIG))?,
            None => Self::default(),
        };
        let given = [
            (&mut config.state_dir, &flags.state_dir),
            (&mut config.run_dir, &flags.run_dir),
            (&mut config.bpf_dir, &flags.bpf_dir),
        ];
        for (value, flag) in given {
            if let Some(flag) = flag {
                value.clone_from(flag);
            }
        }
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("configuration {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))
    }

    fn check(&self) -> Result<()> {
        let folders =
            [("state_dir", &self.state_dir), ("run_dir", &self.run_dir), ("bpf_dir", &self.bpf_dir)];
        for (key, folder) in folders {
            if !folder.is_absolute() {
                bail!("{key} {}: give an absolute path", folder.display());
            }
        }
        let limits = toml::Table::try_from(self.limits).context("limits")?;
        if let Some((key, _)) = limits.iter().find(|(_, value)| value.as_integer() == Some(0)) {
            bail!("limits.{key} is 0; give at least 1, or leave it out");
        }
        for name in self.uplinks.iter().flatten() {
            InterfaceName::new(name).with_context(|| format!("uplinks: {name:?}"))?;
        }
        for (place, (key, folder)) in folders.iter().enumerate() {
            if let Some((other, _)) = folders[..place].iter().find(|(_, f)| f == folder) {
                bail!("{key} and {other} are both {}; each needs a folder of its own", folder.display());
            }
        }
        Ok(())
    }

    /// How the data path is to be opened.
    pub fn data_path(&self) -> DataPathOptions {
        let (l, c) = (self.limits, self.conntrack);
        let secs = |secs: u32| Duration::from_secs(secs.into());
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
            timeouts: FlowTimeouts {
                tcp_established: secs(c.tcp_established),
                tcp_half_closed: secs(c.tcp_half_closed),
                tcp_closing: secs(c.tcp_closing),
                udp: secs(c.udp),
                sctp: secs(c.sctp),
                other: secs(c.other),
            },
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
mod tests {
    use super::*;

    fn load(text: &str, flags: &[&str]) -> Result<Config> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("meshd.toml");
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        let args = ["meshd", "--config", &file].into_iter().chain(flags.iter().copied());
        Config::load(&Flags::try_parse_from(args)?)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = load("state_dir = '/a'\nrun_dir = '/b'", &["--run-dir", "/c"]).unwrap();
        assert_eq!(config.state_dir, Path::new("/a"));
        assert_eq!(config.run_dir, Path::new("/c"));
        assert_eq!(config.bpf_dir, Path::new("/sys/fs/bpf/meshd"));
        let again: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn limits_and_timeouts_reach_the_data_path() {
        let text =
            "uplinks = ['eth0', 'eth1.7']\nuplink_hook = 'tc'\n[limits]\nflows = 5000\n[conntrack]\nudp = 7";
        let config = load(text, &[]).unwrap();
        let options = config.data_path();
        assert_eq!((options.sizes.flows, options.sizes.peers), (5000, Sizes::default().peers));
        assert_eq!(options.timeouts.udp, Duration::from_secs(7));
        assert_eq!(options.timeouts.tcp_established, Duration::from_secs(5 * 24 * 3600));
        assert_eq!(options.uplink_hook, UplinkHook::Tc);
        let again: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(again, config);
        assert_eq!(
            toml::from_str::<Config>(&Config::default().to_toml().unwrap()).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str, flags: &[&str]| format!("{:#}", load(text, flags).unwrap_err());
        assert!(error("stat_dir = '/a'", &[]).contains("stat_dir"));
        assert!(error("path = 'quick'", &[]).contains("quick"));
        assert!(error("state_dir = 'a'", &[]).contains("absolute"));
        assert!(error("uplinks = ['eth0', 'a/b']", &[]).contains("a/b"));
        assert!(error("[limits]\nflow = 1", &[]).contains("flow"));
        assert!(error("[conntrack]\nudp = -1", &[]).contains("udp"));
        assert!(error("state_dir = '/x'", &["--run-dir", "/x"]).contains("both /x"));
        let flags = Flags::try_parse_from(["meshd", "--config", "/nonexistent/meshd.toml"]).unwrap();
        assert!(format!("{:#}", Config::load(&flags).unwrap_err()).contains("/nonexistent/meshd.toml"));
    }
}
