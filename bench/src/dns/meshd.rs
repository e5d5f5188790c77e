//! Ours: two tasks of one node, and a service with many aliases.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use mesh_tests::{Cluster, Task, TaskSpec, wait};

use super::subject::{Subject, embedded};

/// Among the subjects.
pub const KEY: &str = "meshd";

/// See the module.
pub struct Meshd {
    pid: u32,
    askers: Vec<PathBuf>,
    // Dropped in this order.
    _tasks: Vec<Task>,
    _cluster: Cluster,
}

impl Meshd {
    /// A cluster of one node whose tasks can resolve `names`, to one address each.
    pub fn start(names: &[String]) -> Result<Self> {
        let cluster = Cluster::start(1)?;
        let node = &cluster[0];
        node.ctl(&[
            "network",
            "create",
            "--driver",
            "overlay",
            "--subnet",
            "10.10.3.0/24",
            "--attachable",
            "names",
        ])?;
        let mut create = vec!["service", "create", "--network", "names"];
        names.iter().for_each(|name| create.extend(["--alias", name]));
        create.push("web");
        node.ctl(&create)?;
        cluster.wait_for_view()?;
        let task = |name| node.run_idle(&TaskSpec { name, network: "names", ..TaskSpec::default() });
        let tasks = vec![task("flooder")?, task("asker")?];
        for (task, name) in tasks.iter().zip(names.iter().rev()) {
            wait("names to be known", std::time::Duration::from_secs(10), || {
                anyhow::ensure!(task.dig(&[name])?.len() == 1, "{name} is not known");
                Ok(())
            })?;
        }
        let askers = tasks.iter().map(Task::namespace).collect();
        Ok(Self { pid: node.pid()?, askers, _tasks: tasks, _cluster: cluster })
    }
}

impl Subject for Meshd {
    fn name(&self) -> &'static str {
        "meshd"
    }

    fn askers(&self) -> &[PathBuf] {
        &self.askers
    }

    fn server(&self) -> SocketAddr {
        embedded()
    }

    fn pid(&self) -> u32 {
        self.pid
    }
}
