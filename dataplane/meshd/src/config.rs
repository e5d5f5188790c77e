//! The one configuration, checked before anything happens.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
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
    /// Lists the resolvers that names outside the mesh are forwarded to; followed when it changes.
    pub resolv_conf: PathBuf,
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
            resolv_conf: "/etc/resolv.conf".into(),
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
    fn what_is_wrong_is_named() {
        let error = |text: &str, flags: &[&str]| format!("{:#}", load(text, flags).unwrap_err());
        assert!(error("stat_dir = '/a'", &[]).contains("stat_dir"));
        assert!(error("path = 'quick'", &[]).contains("quick"));
        assert!(error("state_dir = 'a'", &[]).contains("absolute"));
        assert!(error("uplinks = ['eth0', 'a/b']", &[]).contains("a/b"));
        assert!(error("state_dir = '/x'", &["--run-dir", "/x"]).contains("both /x"));
        let flags = Flags::try_parse_from(["meshd", "--config", "/nonexistent/meshd.toml"]).unwrap();
        assert!(format!("{:#}", Config::load(&flags).unwrap_err()).contains("/nonexistent/meshd.toml"));
    }
}
