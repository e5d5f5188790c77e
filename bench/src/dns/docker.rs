//! Docker's embedded DNS: two containers on a user network, answered by dockerd itself.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use mesh_tests::{NetNs, Prefix};

use super::subject::{Subject, embedded};
use crate::peers::Engine;

/// Among the subjects.
pub const KEY: &str = "docker";

/// See the module.
pub struct Docker {
    askers: Vec<PathBuf>,
    // Dropped in this order.
    engine: Engine,
    _namespace: NetNs,
}

impl Docker {
    /// A daemon of its own in a namespace of its own.
    pub fn start(prefix: &Prefix, names: &[String]) -> Result<Self> {
        let namespace = NetNs::create(&prefix.namespace("docker"))?;
        let engine = Engine::start(prefix, "docker", &namespace)?;
        let mut docker = Self { askers: Vec::new(), engine, _namespace: namespace };
        docker.fill(names).with_context(|| docker.engine.log())?;
        Ok(docker)
    }

    fn fill(&mut self, names: &[String]) -> Result<()> {
        self.engine.run(&["network", "create", "names"])?;
        let aliases: Vec<String> = names.iter().map(|name| format!("--network-alias={name}")).collect();
        for (name, aliases) in [("flooder", aliases.as_slice()), ("asker", &[])] {
            let mut words = vec!["--network=names"];
            words.extend(aliases.iter().map(String::as_str));
            self.askers.push(self.engine.container(name, &words)?);
        }
        Ok(())
    }
}

impl Subject for Docker {
    fn name(&self) -> &'static str {
        "Docker"
    }

    fn askers(&self) -> &[PathBuf] {
        &self.askers
    }

    fn server(&self) -> SocketAddr {
        embedded()
    }

    fn pid(&self) -> u32 {
        self.engine.pid()
    }
}
