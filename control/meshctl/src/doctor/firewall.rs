//! Rules of the host's own firewall that drop what nodes send each other, or that have to do with published ports.
//!
//! The probes of ports find what is closed in any case; this says by whom.

mod published;
mod rules;

use mesh_types::{GOSSIP_PORT, MANAGER_PORT, VXLAN_PORT};
use serde_json::Value;

use self::rules::{Fate, Packet, fate};
use super::{Finding, Told, devices::output, legacy};

const NAME: &str = "firewall";

/// Reads the rules of nftables, with those of the iptables of today, and of the older iptables.
pub fn check(told: &Told, findings: &mut Vec<Finding>) {
    let Some(text) = output("nft", &["--json", "list", "ruleset"]) else {
        return findings.push(Finding::unchecked(
            NAME,
            "nftables' rules can be read as root alone, with `nft` installed",
        ));
    };
    let manager = told.status.role() == mesh_api::v1::Role::Manager;
    let ports = told.view.as_ref().map(published::ports).unwrap_or_default();
    let found = |objects: &[Value]| {
        let mut found = closed(objects, manager);
        found.extend(published::check(objects, &ports));
        found
    };
    let rules: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut found_here = found(rules["nftables"].as_array().map_or(&[], Vec::as_slice));
    match legacy::objects() {
        Ok(objects) => found_here.extend(found(&objects)),
        Err(tool) => findings.push(Finding::unchecked(
            NAME,
            format!("there are rules of the older iptables, and no {tool} to list them"),
        )),
    }
    if found_here.is_empty() {
        findings.push(Finding::ok(NAME, "no rule surely drops what nodes send each other"));
    }
    findings.extend(found_here);
}

/// A chain that the kernel has packets pass, not one that others jump to.
struct Base<'a> {
    chain: &'a Value,
    hook: &'a str,
    family: &'a str,
    table: &'a str,
    name: &'a str,
}

impl<'a> Base<'a> {
    /// The chains of IP packets at a hook that matters here; not meshd's own.
    fn all(objects: &'a [Value]) -> impl Iterator<Item = Self> {
        let base = |chain: &'a Value| {
            let word = |key: &str| chain[key].as_str().unwrap_or_default();
            let base = Self {
                chain,
                hook: word("hook"),
                family: word("family"),
                table: word("table"),
                name: word("name"),
            };
            let matters = matches!(base.hook, "input" | "output" | "prerouting" | "postrouting")
                && matches!(base.family, "ip" | "ip6" | "inet")
                && base.table != "meshd";
            matters.then_some(base)
        };
        objects.iter().filter_map(|object| object.get("chain")).filter_map(base)
    }

    /// Whether packets come to it before it is known by which way they leave.
    fn is_way_in(&self) -> bool {
        matches!(self.hook, "input" | "prerouting")
    }

    /// Whether it drops what no rule of it decides on.
    fn drops_the_rest(&self) -> bool {
        self.chain["policy"] == "drop"
    }

    /// The program that changes it, if it is of the older iptables.
    fn older(&self) -> Option<&'a str> {
        self.chain[legacy::TOOL].as_str()
    }

    /// What to call it.
    fn place(&self) -> String {
        let Self { hook, family, table, name, .. } = self;
        match self.older() {
            Some(tool) => format!("chain {name} of table {table} ({tool})"),
            None => format!("chain {name} of nftables table {family} {table} ({hook})"),
        }
    }

    /// The command that puts a rule before all others, said in nftables' words and those of iptables.
    fn insert(&self, nft: &str, iptables: &str) -> String {
        let Self { family, table, name, .. } = self;
        let usual = ["INPUT", "OUTPUT"].contains(name) && *table == "filter" && *family != "inet";
        match (self.older(), *family) {
            (Some(tool), _) => format!("`{tool} -t {table} -I {name} {iptables}`"),
            (None, "ip6") if usual => format!("`ip6tables -I {name} {iptables}`"),
            (None, _) if usual => format!("`iptables -I {name} {iptables}`"),
            (None, _) => format!("`nft insert rule {family} {table} {name} {nft}`"),
        }
    }
}

/// What base chains drop of what nodes send each other, each with its cure; of objects as nftables lists them.
pub fn closed(objects: &[Value], manager: bool) -> Vec<Finding> {
    let packet = |protocol, port| Packet { protocol, port, way: None };
    let mut packets = vec![packet("udp", GOSSIP_PORT), packet("tcp", GOSSIP_PORT), packet("udp", VXLAN_PORT)];
    packets.extend(manager.then_some(packet("tcp", MANAGER_PORT)));
    let mut found = Vec::new();
    for base in Base::all(objects) {
        for packet in &packets {
            let drops = match fate(objects, base.chain, *packet) {
                Fate::Drops { .. } => true,
                Fate::Falls => base.drops_the_rest(),
                Fate::Passes => false,
            };
            if !drops {
                continue;
            }
            let Packet { protocol, port, .. } = packet;
            let what = format!("{} drops {port}/{protocol}", base.place());
            let cure = base.insert(
                &format!("{protocol} dport {port} accept"),
                &format!("-p {protocol} --dport {port} -j ACCEPT"),
            );
            // The programs take packets to the VXLAN port before the firewall sees them, mostly.
            let early = *port == VXLAN_PORT && base.is_way_in();
            found.push(match early {
                true => Finding::warning(
                    NAME,
                    format!(
                        "{what}: UDP that is sent in one piece (GSO), and all on the general path, is lost"
                    ),
                    cure,
                ),
                false => Finding::failure(NAME, what, cure),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn closed(text: &str, manager: bool) -> Vec<Finding> {
        let rules: Value = serde_json::from_str(text).unwrap();
        super::closed(rules["nftables"].as_array().unwrap(), manager)
    }

    fn ruleset(hook: &str, policy: &str, rules: &[&str]) -> String {
        let rules = rules.iter().map(|expr| {
            format!(r#",{{"rule":{{"family":"inet","table":"t","chain":"c","expr":[{expr}]}}}}"#)
        });
        format!(
            r#"{{"nftables":[{{"chain":{{"family":"inet","table":"t","name":"c","type":"filter","hook":"{hook}","prio":0,"policy":"{policy}"}}}}{}]}}"#,
            rules.collect::<String>()
        )
    }

    fn dport(protocol: &str, right: &str) -> String {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"{protocol}","field":"dport"}}}},"right":{right}}}}}"#
        )
    }

    fn texts(text: &str) -> Vec<String> {
        closed(text, false).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_rule_that_drops_a_port_is_found() {
        let drop =
            format!(r#"{},{{"counter":{{"packets":0,"bytes":0}}}},{{"drop":null}}"#, dport("udp", "7946"));
        let found = closed(&ruleset("input", "accept", &[&drop]), false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "chain c of nftables table inet t (input) drops 7946/udp");
        assert_eq!(found[0].cure.as_deref(), Some("`nft insert rule inet t c udp dport 7946 accept`"));
        let set = format!(r#"{},{{"reject":null}}"#, dport("tcp", r#"{"set":[22,{"range":[7000,8000]}]}"#));
        assert_eq!(
            texts(&ruleset("output", "accept", &[&set])),
            ["chain c of nftables table inet t (output) drops 7946/tcp"]
        );
        let earlier = format!(r#"{},{{"accept":null}}"#, dport("udp", "7946"));
        assert!(texts(&ruleset("input", "accept", &[&earlier, &drop])).is_empty());
        assert!(texts(&ruleset("forward", "drop", &[])).is_empty());
    }

    #[test]
    fn a_policy_drops_what_no_rule_lets_pass() {
        let found = closed(&ruleset("input", "drop", &[]), true);
        assert_eq!(found.len(), 4);
        let levels: Vec<_> = found.iter().filter(|f| f.what.contains("4789")).map(|f| f.level).collect();
        assert_eq!(levels, [Level::Warning], "the programs see such packets first");
        // Answers are not what is asked about; the loopback device is not the way.
        let answers = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;
        let own = r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}"#;
        assert_eq!(texts(&ruleset("input", "drop", &[answers, own])).len(), 3);
        // Who knows whom this lets in: the probes tell.
        let some = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"10.0.0.1"}},{"accept":null}"#;
        assert!(texts(&ruleset("input", "drop", &[some])).is_empty());
        let unsure = r#"{"xt":{"type":"match","name":"geoip"}},{"drop":null}"#;
        assert!(texts(&ruleset("input", "accept", &[unsure])).is_empty());
    }

    #[test]
    fn chains_that_are_jumped_to_are_followed() {
        let jump = r#"{"jump":{"target":"deeper"}}"#;
        let text = ruleset("input", "accept", &[jump]);
        let rule = r#",{"rule":{"family":"inet","table":"t","chain":"deeper","expr":[{"drop":null}]}}]}"#;
        let text = format!("{}{rule}", text.strip_suffix("]}").unwrap());
        assert_eq!(texts(&text).len(), 3);
    }
}
