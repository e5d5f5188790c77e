//! The CNI plugin beside real container runtimes and Debian's reference plugins.

mod bad_input;
mod containerd;
mod dual_stack;
mod lifecycle;
mod many;
mod podman;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use mesh_tests::{Cluster, Node, wait};

/// Containers are made by programs that start programs, beside other tests.
pub const SOON: Duration = Duration::from_secs(30);

/// Network `prod`, 10.10.3.0/24, and service `web` on it; known to every node.
pub fn prepare(cluster: &Cluster) -> Result<()> {
    let create = ["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"];
    cluster[0].ctl(&create)?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    cluster.wait_for_view()
}

/// Waits until the node has no tasks and none of their links.
pub fn no_tasks(node: &Node) -> Result<()> {
    wait("the last task to end", SOON, || {
        let links: Vec<String> = node.links()?.into_iter().filter(|link| link.starts_with("msh")).collect();
        ensure!(links.is_empty(), "{} has links {links:?}", node.name());
        let tasks = node.ctl_json(&["status"])?["tasks"].as_u64();
        ensure!(tasks == Some(0), "{} has {tasks:?} tasks", node.name());
        Ok(())
    })
}

/// A program of a container that answers HTTP on port 80 with `text`.
pub fn serving(text: &str) -> Vec<String> {
    let script = format!("echo {text} > /var/www/index.html; exec httpd -f -p 80 -h /var/www");
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

/// What is answered there, once something is.
pub fn answer(server: SocketAddr, from: &mesh_tests::NetNs) -> Result<String> {
    wait("an answer", SOON, || from.run(|| mesh_tests::get(server, Duration::from_secs(2)))?)
}
