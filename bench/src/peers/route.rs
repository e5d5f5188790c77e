//! A second way into a task, past meshd: by plain routing from node to node, for peers that know no overlay.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context, Result};
use mesh_tests::{Task, TestNet, succeed};

/// A link between a node and one of its tasks, which another node has a route to.
pub struct Route;

impl Route {
    /// The address at which the task is reached.
    pub const TASK: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);

    /// Leads from the node `entry` to `task`, which the node `home` runs. The link goes with the task, the routes with
    /// the nodes.
    pub fn create(net: &TestNet, entry: usize, home: usize, task: &Task) -> Result<()> {
        const NODE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
        let node = |index: usize| net.nodes().get(index).context("no such node");
        let (to, address) = (Self::TASK, net.address(home));
        node(home)?.ip(&format!(
            "link add peerrt type veth peer name peerrt netns {}\n\
             addr add {NODE}/30 dev peerrt\n\
             link set peerrt up",
            task.pid()
        ))?;
        let inside = [
            format!("addr add {to}/30 dev peerrt"),
            "link set peerrt up".to_owned(),
            // Only what comes from the entry goes back this way.
            format!("route add {}/32 via {NODE}", net.address(entry)),
        ];
        for line in inside {
            succeed(task.command("ip")?.args(line.split(' ')))?;
        }
        node(entry)?.ip(&format!("route add {to}/32 via {address}"))?;
        for index in [entry, home] {
            node(index)?.run(forward)?.context("net.ipv4.ip_forward")?;
        }
        Ok(())
    }
}

/// Makes the calling thread's namespace a router.
fn forward() -> std::io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::NetNs;

    #[test]
    fn a_namespace_becomes_a_router() {
        let ns = NetNs::create(&mesh_tests::Prefix::unique().namespace("router")).unwrap();
        let path = "/proc/sys/net/ipv4/ip_forward";
        ns.run(|| fs::write(path, "0")).unwrap().unwrap();
        ns.run(forward).unwrap().unwrap();
        assert_eq!(ns.run(|| fs::read_to_string(path)).unwrap().unwrap(), "1\n");
    }
}
