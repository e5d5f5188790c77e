//! A second way into a task, past meshd: by plain routing from node to node, for peers that know no overlay.

use std::{fs, io, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};
use mesh_tests::{NetNs, Task, TestNet, succeed};

use super::Machine;

/// The address at which the task is reached.
pub const TASK: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
/// Ethernet addresses of the link's ends: known beforehand, so that the node's end needs no IP address, which would make
/// meshd take it for one more uplink.
const NODE_MAC: &str = "02:00:00:98:00:01";
const TASK_MAC: &str = "02:00:00:98:00:02";

/// Leads from machines to `task`, which the node `home` runs. The link goes with the task, the routes with the machines.
pub fn lead(net: &TestNet, machines: &[&Machine], home: usize, task: &Task) -> Result<()> {
    let node = net.nodes().get(home).context("no such node")?;
    node.ip(&format!(
        "link add peerrt address {NODE_MAC} type veth peer name peerrt address {TASK_MAC} netns {}\n\
         link set peerrt addrgenmode none\n\
         link set peerrt up\n\
         route add {TASK}/32 dev peerrt\n\
         neigh add {TASK} lladdr {TASK_MAC} dev peerrt",
        task.pid()
    ))?;
    let mut inside = vec![format!("addr add {TASK}/32 dev peerrt"), "link set peerrt up".to_owned()];
    for machine in machines {
        machine.namespace.ip(&format!("route add {TASK}/32 via {}", net.address(home)))?;
        machine.namespace.run(forward)?.context("net.ipv4.ip_forward")?;
        // Only what comes from there goes back this way.
        inside.push(format!("route add {}/32 dev peerrt", machine.address));
        inside.push(format!("neigh add {} lladdr {NODE_MAC} dev peerrt", machine.address));
    }
    for line in inside {
        succeed(task.command("ip")?.args(line.split(' ')))?;
    }
    node.run(forward)?.context("net.ipv4.ip_forward")?;
    let rules = net.prefix().folder().join("route.nft");
    untracked(node, &rules)
}

/// Makes the calling thread's namespace a router.
fn forward() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
}

/// Spares the peers the conntrack that a node of meshd has for the way out of its tasks.
fn untracked(node: &NetNs, file: &Path) -> Result<()> {
    let rules = format!(
        "table ip bench_route {{\n  chain before {{ type filter hook prerouting priority raw;\n    \
         ip daddr {TASK} notrack\n    ip saddr {TASK} notrack\n  }}\n}}\n"
    );
    fs::write(file, rules).with_context(|| format!("cannot write {}", file.display()))?;
    succeed(node.command("nft")?.arg("-f").arg(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::{Prefix, output};

    #[test]
    fn a_namespace_becomes_a_router_without_conntrack() {
        let prefix = Prefix::unique();
        let ns = NetNs::create(&prefix.namespace("router")).unwrap();
        let path = "/proc/sys/net/ipv4/ip_forward";
        ns.run(|| fs::write(path, "0")).unwrap().unwrap();
        ns.run(forward).unwrap().unwrap();
        assert_eq!(ns.run(|| fs::read_to_string(path)).unwrap().unwrap(), "1\n");
        let file = std::env::temp_dir().join(format!("{prefix}-route.nft"));
        let result = untracked(&ns, &file);
        fs::remove_file(&file).unwrap();
        result.unwrap();
        let said = output(ns.command("nft").unwrap().args(["list", "ruleset"])).unwrap();
        assert!(said.contains("ip saddr 10.98.0.2 notrack"), "{said}");
    }
}
