//! Rules that drop packets to published ports.
//!
//! The programs take those of other machines from the interface before the firewall sees them, so that a rule which is to
//! close such a port does nothing. The node's own processes reach published ports by the link `mesh-host`; their packets do
//! pass its firewall on the way out.

use std::{collections::BTreeSet, net::IpAddr};

use mesh_firewall::{Base, Fate, Packet, Ruleset};
use mesh_types::{ClusterView, Protocol};

use super::{Finding, NAME, bases};

/// The link to the programs, and where on it published ports are (docs/ARCHITECTURE.md, "The node's own sockets").
const LINK: &str = "mesh-host";
const AT: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 63, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd6d, 0x6573, 0x6863, 0, 0, 0, 0, 1)),
];
/// How many ports a finding names.
const NAMED: usize = 4;

/// The published ports of all services.
pub fn ports(view: &ClusterView) -> BTreeSet<(u16, &'static str)> {
    let word = |protocol| match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let ports = view.services.values().flat_map(|service| &service.ports);
    ports.map(|port| (port.published, word(port.protocol))).collect()
}

/// A finding for each chain that drops some of `ports`.
pub fn check(rules: &Ruleset, ports: &BTreeSet<(u16, &'static str)>) -> Vec<Finding> {
    let found = bases(rules).filter_map(|base| match base.is_way_in() {
        true => shut_in_vain(rules, &base, ports),
        false => shut_for_own(rules, &base, ports),
    });
    found.collect()
}

/// Only rules that name a port mean this one: a firewall that drops all that is not let in is usual.
fn shut_in_vain(rules: &Ruleset, base: &Base<'_>, ports: &BTreeSet<(u16, &'static str)>) -> Option<Finding> {
    let drops = |(port, protocol): &&(u16, &'static str)| {
        let packet = Packet::to_port(protocol, *port);
        matches!(rules.fate(base, &packet), Fate::Drops { by_port: true, .. })
    };
    let named: Vec<_> = ports.iter().filter(drops).collect();
    let (port, protocol) = named.first()?;
    Some(Finding::warning(
        NAME,
        format!(
            "{} is to drop {}, and does nothing: packets to published ports are taken from the interface before the \
             firewall sees them",
            base.place(),
            list(&named)
        ),
        format!(
            "to close such a port `meshctl unpublish {port}/{protocol}`; to open it on one side only publish it on an \
             address or interface, as `meshctl publish --help` shows"
        ),
    ))
}

/// The node's own processes.
fn shut_for_own(rules: &Ruleset, base: &Base<'_>, ports: &BTreeSet<(u16, &'static str)>) -> Option<Finding> {
    let families = AT.iter().filter(|at| match base.family {
        "ip" => at.is_ipv4(),
        "ip6" => at.is_ipv6(),
        _ => true,
    });
    let families: Vec<_> = families.collect();
    let drops = |(port, protocol): &&(u16, &'static str)| {
        families.iter().any(|at| {
            let to = Packet { to: Some(LINK), destination: Some(**at), ..Packet::to_port(protocol, *port) };
            rules.drops(base, &to)
        })
    };
    let closed: Vec<_> = ports.iter().filter(drops).collect();
    (!closed.is_empty()).then(|| {
        Finding::failure(
            NAME,
            format!(
                "{} drops what this node's own processes send to published ports: {}",
                base.place(),
                list(&closed)
            ),
            base.insert(&format!("oifname {LINK} accept"), &format!("-o {LINK} -j ACCEPT")),
        )
    })
}

/// The first few of them.
fn list(ports: &[&(u16, &'static str)]) -> String {
    let named = ports.iter().take(NAMED).map(|(port, protocol)| format!("{port}/{protocol}"));
    let text = named.collect::<Vec<_>>().join(", ");
    match ports.len().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ports() -> BTreeSet<(u16, &'static str)> {
        [(8080, "tcp"), (5353, "udp")].into()
    }

    fn told(hook: &str, policy: &str, rules: &[Value]) -> Vec<String> {
        let chain = json!({"family": "inet", "table": "t", "name": "c", "hook": hook, "policy": policy});
        let rules = rules
            .iter()
            .map(|expr| json!({"rule": {"family": "inet", "table": "t", "chain": "c", "expr": expr}}));
        let objects: Vec<_> = [json!({"chain": chain})].into_iter().chain(rules).collect();
        let text = |finding: Finding| format!("{} -> {}", finding.what, finding.cure.unwrap_or_default());
        check(&Ruleset::of(objects), &ports()).into_iter().map(text).collect()
    }

    fn when(left: Value, right: Value) -> Value {
        json!({"match": {"op": "==", "left": left, "right": right}})
    }

    fn to_port(port: u16) -> Value {
        when(json!({"payload": {"protocol": "tcp", "field": "dport"}}), json!(port))
    }

    #[test]
    fn a_rule_that_is_to_close_a_published_port_is_told() {
        let drop = json!({"drop": null});
        let found = told("input", "accept", &[json!([to_port(8080), drop])]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("(input) is to drop 8080/tcp, and does nothing"), "{found:?}");
        assert!(found[0].contains("meshctl unpublish 8080/tcp"), "{found:?}");
        assert!(told("input", "accept", &[json!([to_port(8081), drop])]).is_empty());
        // What is usual: all is dropped that is not let in.
        assert!(told("input", "drop", &[]).is_empty());
        assert!(told("input", "accept", &[json!([drop])]).is_empty());
    }

    #[test]
    fn what_the_nodes_own_processes_send_is_told_when_it_is_dropped() {
        let found = told("output", "drop", &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("own processes send to published ports: 5353/udp, 8080/tcp"), "{found:?}");
        assert!(found[0].ends_with("`nft insert rule inet t c oifname mesh-host accept`"), "{found:?}");
        let by = |name: &str| when(json!({"meta": {"key": "oifname"}}), json!(name));
        let accept = json!({"accept": null});
        assert!(told("output", "drop", &[json!([by("mesh-*"), accept])]).is_empty());
        assert_eq!(told("output", "drop", &[json!([by("eth0"), accept])]).len(), 1);
        assert!(told("output", "accept", &[json!([by("eth0"), to_port(8080), {"drop": null}])]).is_empty());
        // By address, of one family: the other is dropped.
        let to = |net: Value| when(json!({"payload": {"protocol": "ip", "field": "daddr"}}), net);
        let local = to(json!({"prefix": {"addr": "169.254.0.0", "len": 16}}));
        assert_eq!(told("output", "accept", &[json!([local, to_port(8080), {"drop": null}])]).len(), 1);
        let elsewhere = to(json!("192.0.2.1"));
        assert!(told("output", "accept", &[json!([elsewhere, to_port(8080), {"drop": null}])]).is_empty());
    }
}
