//! The peer: nftables on the machine that the client speaks to translates the destination, and the source too, so that
//! replies come back.

use std::{fmt::Write as _, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};
use mesh_tests::succeed;

use super::Machine;
use crate::path::Ports;

/// Leads `from` of the machine to `to` of a server. `file` is where the rules are written to.
pub fn translate(machine: &Machine, file: &Path, server: Ipv4Addr, (from, to): (Ports, Ports)) -> Result<()> {
    std::fs::write(file, rules(machine.address, server, from, to))
        .with_context(|| format!("cannot write {}", file.display()))?;
    succeed(machine.namespace.command("nft")?.arg("-f").arg(file))
}

fn rules(own: Ipv4Addr, server: Ipv4Addr, from: Ports, to: Ports) -> String {
    let mut text = "table ip bench_peer {\n".to_owned();
    text += "  chain before { type nat hook prerouting priority dstnat;\n";
    for (from, to, protocol) in from.pairs(to) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "    ip daddr {own} {protocol} dport {from} dnat to {server}:{to}");
    }
    text += "  }\n  chain after { type nat hook postrouting priority srcnat;\n";
    let _ = writeln!(text, "    ip daddr {server} masquerade");
    text + "  }\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::{NetNs, Prefix, output};

    #[test]
    fn nft_takes_the_rules() {
        let prefix = Prefix::unique();
        let namespace = NetNs::create(&prefix.namespace("nft")).unwrap();
        let machine = Machine { namespace, address: Ipv4Addr::new(192, 0, 2, 1) };
        let file = std::env::temp_dir().join(format!("{prefix}.nft"));
        let ports = (Ports::from(14000), Ports::USUAL);
        let result = translate(&machine, &file, Ipv4Addr::new(192, 0, 2, 2), ports);
        std::fs::remove_file(&file).unwrap();
        result.unwrap();
        let said = output(machine.namespace.command("nft").unwrap().args(["list", "ruleset"])).unwrap();
        assert!(said.contains("ip daddr 192.0.2.1 tcp dport 14001 dnat to 192.0.2.2:5201"), "{said}");
        assert!(said.contains("udp dport 14003 dnat to 192.0.2.2:9"), "{said}");
    }
}
