//! The peer: IPVS on the machine that the client speaks to translates the destination, and nftables the source, so that
//! replies come back. Kernels without IPVS do not have it.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, Result};
use mesh_tests::succeed;

use super::Machine;
use crate::{load::need, path::Ports};

/// Whether the kernel has IPVS, with its module loaded if it is one.
pub fn available() -> bool {
    let _ = Command::new("modprobe").args(["--all", "--quiet", "ip_vs", "ip_vs_rr"]).status();
    Path::new("/proc/net/ip_vs").exists()
}

/// Leads `from` of the machine to `to` of a server. `file` is where nftables' rules are written to.
pub fn balance(machine: &Machine, file: &Path, server: Ipv4Addr, (from, to): (Ports, Ports)) -> Result<()> {
    need("ipvsadm")?;
    // Without it, what IPVS has translated passes nftables by.
    let track = || fs::write("/proc/sys/net/ipv4/vs/conntrack", "1");
    machine.namespace.run(track)?.context("net.ipv4.vs.conntrack")?;
    let rules = format!(
        "table ip bench_ipvs {{\n  chain after {{ type nat hook postrouting priority srcnat;\n    \
         ip daddr {server} masquerade\n  }}\n}}\n"
    );
    fs::write(file, rules).with_context(|| format!("cannot write {}", file.display()))?;
    succeed(machine.namespace.command("nft")?.arg("-f").arg(file))?;
    for line in commands(machine.address, server, from, to).lines() {
        succeed(machine.namespace.command("ipvsadm")?.args(line.split(' ')))?;
    }
    Ok(())
}

/// Words for ipvsadm, a command a line.
fn commands(own: Ipv4Addr, server: Ipv4Addr, from: Ports, to: Ports) -> String {
    let mut text = String::new();
    for (from, to, protocol) in from.pairs(to) {
        let kind = if protocol == "udp" { "--udp-service" } else { "--tcp-service" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "--add-service {kind} {own}:{from} --scheduler rr");
        let _ = writeln!(text, "--add-server {kind} {own}:{from} --real-server {server}:{to} --masquerading");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_service_and_a_server() {
        let text = commands([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), Ports::from(100), Ports::USUAL);
        assert_eq!(text.lines().count(), 10);
        let wanted = "--add-server --udp-service 192.0.2.1:103 --real-server 192.0.2.2:9 --masquerading";
        assert!(text.lines().any(|line| line == wanted), "{text}");
    }
}
