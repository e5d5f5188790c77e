//! Which values make no sense.

use std::{net::SocketAddr, path::Path};

use mesh_trace::Endpoint;
use mesh_types::InterfaceName;
use tracing_subscriber::EnvFilter;

use super::{Config, DashboardConfig, LimitsConfig};

/// What is wrong with one key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The key, such as `limits.flows`.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Config {
    /// Everything that is wrong with the values; nothing else is looked at.
    pub(super) fn wrongs(&self) -> Vec<Wrong> {
        let mut wrongs = Vec::new();
        let mut wrong = |key, what| wrongs.push(Wrong { key, what });
        let folders =
            [("state_dir", &self.state_dir), ("run_dir", &self.run_dir), ("bpf_dir", &self.bpf_dir)];
        for (place, (key, folder)) in folders.iter().enumerate() {
            if let Err(what) = absolute(folder) {
                wrong(key, what);
            }
            if let Some((other, _)) = folders[..place].iter().find(|(_, f)| f == folder) {
                wrong(key, format!("{} is {other} too; give each a folder of its own", folder.display()));
            }
        }
        if let Err(what) = absolute(&self.resolv_conf) {
            wrong("resolv_conf", what);
        }
        for (key, socket) in [
            ("docker.plugin_socket", &self.docker.plugin_socket),
            ("docker.engine_socket", &self.docker.engine_socket),
        ] {
            if let Err(what) = absolute(socket) {
                wrong(key, what);
            }
        }
        if let Err(what) = log(&self.log) {
            wrong("log", what);
        }
        for (key, listen, port) in [
            ("metrics.listen", &self.metrics.listen, 9476),
            ("dashboard.listen", &self.dashboard.listen, 7380),
        ] {
            if !listen.is_empty() && listen.parse::<SocketAddr>().is_err() {
                let what = format!(
                    "{listen:?}: give an address with a port, such as 127.0.0.1:{port} or [::1]:{port}, or \"\" to listen nowhere"
                );
                wrong(key, what);
            }
        }
        let DashboardConfig { idle, session, .. } = self.dashboard;
        if idle == 0 {
            wrong("dashboard.idle", "with 0 no session begins; give at least 1 second".to_owned());
        }
        if session < idle {
            let what = format!("{session} is less than dashboard.idle, {idle}; give at least as much");
            wrong("dashboard.session", what);
        }
        if let Some(Err(error)) = self.traces.endpoint.as_deref().map(str::parse::<Endpoint>) {
            wrong("traces.endpoint", error.to_string());
        }
        if self.traces.percent > 100 {
            wrong("traces.percent", format!("{} is more than 100", self.traces.percent));
        }
        for name in self.uplinks.iter().flatten() {
            if let Err(error) = InterfaceName::new(name) {
                wrong("uplinks", format!("{name:?}: {error}"));
            }
        }
        for (key, limit) in limits(&self.limits) {
            if limit == Some(0) {
                wrong(key, "0 leaves no room; give at least 1, or leave the key out".to_owned());
            }
        }
        wrongs
    }
}

fn absolute(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(format!("{:?}: give an absolute path", path.display().to_string()))
    }
}

/// What is wrong with a filter of the log.
pub fn log(filter: &str) -> Result<(), String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let word = filter.trim().to_lowercase();
    // A word alone that is no level is taken for the name of a module, of which then everything is logged and nothing else.
    if !word.contains(['=', ',', '[']) && !levels.contains(&word.as_str()) {
        let levels = levels.join(", ");
        return Err(format!(
            "{filter:?} is no level; give one of {levels}, or a filter such as \"info,mesh_gossip=debug\""
        ));
    }
    EnvFilter::try_new(filter).map(drop).map_err(|error| format!("{filter:?}: {error}"))
}

fn limits(l: &LimitsConfig) -> [(&'static str, Option<u32>); 11] {
    [
        ("limits.peers", l.peers),
        ("limits.networks", l.networks),
        ("limits.endpoints", l.endpoints),
        ("limits.local_endpoints", l.local_endpoints),
        ("limits.services", l.services),
        ("limits.table_slots", l.table_slots),
        ("limits.backends", l.backends),
        ("limits.flows", l.flows),
        ("limits.fragments", l.fragments),
        ("limits.clients", l.clients),
        ("limits.host_sockets", l.host_sockets),
    ]
}
