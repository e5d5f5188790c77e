//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;

/// Where the configuration is looked for when nothing names one; it may be absent there.
const DEFAULT_CONFIG: &str = "/etc/meshd/meshd.toml";

/// meshd: overlay networking and a routing mesh for this node.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    about,
    after_help = "SIGHUP has a running daemon read its configuration again. SIGTERM ends it; tasks and packets go on.\n\n\
                  Examples:\n  meshd --check-config\n  meshd --check-config ./meshd.toml\n  \
                  meshd --config ./meshd.toml --state-dir /srv/mesh"
)]
pub struct Flags {
    /// Configuration file (TOML) [default: /etc/meshd/meshd.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Folder for identity, cluster state and kept tasks [default: /var/lib/meshd]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Folder for the socket that meshctl talks to [default: /run/meshd]
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
    /// Folder, on a bpffs, for pinned maps and links [default: /sys/fs/bpf/meshd]
    #[arg(long, value_name = "DIR")]
    pub(super) bpf_dir: Option<PathBuf>,
    /// Check the configuration, or that in FILE: print what would be in force, or each fault with its line, and exit
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "config")]
    check_config: Option<Option<PathBuf>>,
    /// Remove this node's data path (programs, maps, links, firewall tables) and exit. Tasks are cut off. No daemon may
    /// run; its state stays, and the next one makes the data path anew
    #[arg(long, conflicts_with = "check_config")]
    pub take_down: bool,
}

impl Flags {
    /// Whether the configuration is only to be checked.
    pub fn check_only(&self) -> bool {
        self.check_config.is_some()
    }

    /// The file to read; none where there is none at the usual place.
    pub(super) fn file(&self) -> Option<&Path> {
        let named = self.check_config.as_ref().and_then(Option::as_deref).or(self.config.as_deref());
        named.or_else(|| Some(Path::new(DEFAULT_CONFIG)).filter(|path| path.exists()))
    }
}
