//! What a running daemon can follow of a changed configuration.

use toml::Table;

use super::Config;

/// Keys that a running daemon follows; the rest is for its next start.
const FOLLOWED: [&str; 5] = ["log", "health_commands", "conntrack", "metrics", "dashboard"];

/// The difference between what is in force and what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Changed keys that are followed at once.
    pub followed: Vec<String>,
    /// Changed keys that the next start will take up.
    pub restart: Vec<String>,
}

impl Change {
    /// From one configuration to another.
    pub fn between(now: &Config, next: &Config) -> Self {
        let (now, next) = (table(now), table(next));
        let mut keys: Vec<_> = now.keys().chain(next.keys()).cloned().collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| now.get(key) != next.get(key));
        let (followed, restart) = keys.into_iter().partition(|key| FOLLOWED.contains(&key.as_str()));
        Self { followed, restart }
    }
}

impl Config {
    /// Takes over from `next` what a running daemon follows.
    pub fn follow(&mut self, next: &Self) {
        self.log.clone_from(&next.log);
        self.health_commands = next.health_commands;
        self.conntrack = next.conntrack;
        self.metrics.clone_from(&next.metrics);
        self.dashboard.clone_from(&next.dashboard);
    }
}

/// Every configuration can be written as a table: it came from one.
fn table(config: &Config) -> Table {
    Table::try_from(config).unwrap_or_default()
}
