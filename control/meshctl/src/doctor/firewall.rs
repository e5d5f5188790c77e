//! Rules of the host's own firewall that drop what nodes send each other.
//!
//! Only what surely drops is told: a rule with a condition that is not understood here drops nothing, and lets pass. The
//! probes of ports find what is closed in any case; this says by whom.

use mesh_types::{GOSSIP_PORT, MANAGER_PORT, VXLAN_PORT};
use serde_json::Value;

use super::{Finding, Told, devices::output, legacy};

const NAME: &str = "firewall";
/// How far chains that jump to each other are followed.
const DEPTH: usize = 16;

/// A new packet from another node, or to it.
#[derive(Debug, Clone, Copy)]
struct Packet {
    protocol: &'static str,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Drops,
    /// The chain's end is reached.
    Falls,
}

/// Reads the rules of nftables, with those of the iptables of today, and of the older iptables.
pub fn check(told: &Told, findings: &mut Vec<Finding>) {
    let Some(text) = output("nft", &["--json", "list", "ruleset"]) else {
        return findings.push(Finding::unchecked(
            NAME,
            "nftables' rules can be read as root alone, with `nft` installed",
        ));
    };
    let manager = told.status.role() == mesh_api::v1::Role::Manager;
    let rules: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut closed = closed(rules["nftables"].as_array().map_or(&[], Vec::as_slice), manager);
    match legacy::objects() {
        Ok(objects) => closed.extend(self::closed(&objects, manager)),
        Err(tool) => findings.push(Finding::unchecked(
            NAME,
            format!("there are rules of the older iptables, and no {tool} to list them"),
        )),
    }
    if closed.is_empty() {
        findings.push(Finding::ok(NAME, "no rule surely drops what nodes send each other"));
    }
    findings.extend(closed);
}

/// What base chains drop, each with its cure; of objects as nftables lists them.
pub fn closed(objects: &[Value], manager: bool) -> Vec<Finding> {
    let mut packets = vec![
        Packet { protocol: "udp", port: GOSSIP_PORT },
        Packet { protocol: "tcp", port: GOSSIP_PORT },
        Packet { protocol: "udp", port: VXLAN_PORT },
    ];
    packets.extend(manager.then_some(Packet { protocol: "tcp", port: MANAGER_PORT }));
    let mut found = Vec::new();
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let hook = chain["hook"].as_str().unwrap_or_default();
        if !matches!(hook, "input" | "output" | "prerouting" | "postrouting") || chain["table"] == "meshd" {
            continue;
        }
        let word = |key: &str| chain[key].as_str().unwrap_or_default();
        let (family, table, name) = (word("family"), word("table"), word("name"));
        if !matches!(family, "ip" | "ip6" | "inet") {
            continue;
        }
        for packet in &packets {
            let mut fate = walk(objects, chain, name, *packet, DEPTH);
            if fate == Fate::Falls && word("policy") == "drop" {
                fate = Fate::Drops;
            }
            if fate != Fate::Drops {
                continue;
            }
            let port = format!("{}/{}", packet.port, packet.protocol);
            let older = chain[legacy::TOOL].as_str();
            let what = match older {
                Some(tool) => format!("chain {name} of table {table} ({tool}) drops {port}"),
                None => format!("chain {name} of nftables table {family} {table} ({hook}) drops {port}"),
            };
            let iptables = ["INPUT", "OUTPUT"].contains(&name) && table == "filter" && family != "inet";
            let rule = format!("{} dport {} accept", packet.protocol, packet.port);
            let iptables = match (older, family) {
                (Some(tool), _) => Some(format!("{tool} -t {table}")),
                (None, "ip6") => iptables.then(|| "ip6tables".to_owned()),
                (None, _) => iptables.then(|| "iptables".to_owned()),
            };
            let cure = match iptables {
                Some(tool) => {
                    format!("`{tool} -I {name} -p {} --dport {} -j ACCEPT`", packet.protocol, packet.port)
                }
                None => format!("`nft insert rule {family} {table} {name} {rule}`"),
            };
            // The programs take packets to the VXLAN port before the firewall sees them, mostly.
            let early = packet.port == VXLAN_PORT && matches!(hook, "input" | "prerouting");
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

fn walk(objects: &[Value], of: &Value, chain: &str, packet: Packet, depth: usize) -> Fate {
    let same = |rule: &&Value| {
        rule["family"] == of["family"] && rule["table"] == of["table"] && rule["chain"] == *chain
    };
    for rule in objects.iter().filter_map(|object| object.get("rule")).filter(same) {
        let parts: Vec<&Value> = rule["expr"].as_array().into_iter().flatten().collect();
        let mut sure = true;
        let mut applies = true;
        for part in &parts {
            match matches(part, packet) {
                Some(true) => {}
                Some(false) => applies = false,
                None => sure = false,
            }
        }
        if !applies {
            continue;
        }
        for part in parts {
            let target = ["jump", "goto"].iter().find_map(|word| part[*word]["target"].as_str());
            if part.get("accept").is_some() {
                return Fate::Passes;
            }
            if (part.get("drop").is_some() || part.get("reject").is_some()) && sure {
                return Fate::Drops;
            }
            if part.get("return").is_some() && sure {
                return Fate::Falls;
            }
            if let (Some(target), Some(deeper)) = (target, depth.checked_sub(1)) {
                match walk(objects, of, target, packet, deeper) {
                    Fate::Falls => {}
                    Fate::Drops if !sure => {}
                    fate => return fate,
                }
            }
        }
    }
    Fate::Falls
}

/// Whether a statement's condition holds for the packet; none if that cannot be said. What is no condition holds.
fn matches(part: &Value, packet: Packet) -> Option<bool> {
    if part.get("xt").is_some() {
        return None;
    }
    let Some(condition) = part.get("match") else { return Some(true) };
    let (left, right) = (&condition["left"], &condition["right"]);
    let is = match condition["op"].as_str() {
        Some("==" | "in") => true,
        Some("!=") => false,
        _ => return None,
    };
    let payload = &left["payload"];
    let key = left["meta"]["key"].as_str().unwrap_or_default();
    if payload["field"] == "dport" {
        let protocol = payload["protocol"].as_str()?;
        // Ports of another protocol are no ports of this one.
        if protocol != packet.protocol && protocol != "th" {
            return Some(false);
        }
        return Some(holds(right, &|value| value.as_u64() == Some(packet.port.into()), packet.port) == is);
    }
    if key == "l4proto" || payload["field"] == "protocol" || payload["field"] == "nexthdr" {
        return Some(holds(right, &|value| value.as_str() == Some(packet.protocol), 0) == is);
    }
    if (key == "iifname" || key == "oifname") && right == "lo" {
        return Some(!is);
    }
    if left["ct"]["key"] == "state" {
        return Some(holds(right, &|value| value.as_str() == Some("new"), 0) == is);
    }
    None
}

/// Whether a value, a set or a range has what is sought.
fn holds(right: &Value, one: &dyn Fn(&Value) -> bool, port: u16) -> bool {
    if let Some([low, high]) = right["range"].as_array().map(Vec::as_slice) {
        let port = u64::from(port);
        return low.as_u64().is_some_and(|low| low <= port) && high.as_u64().is_some_and(|high| port <= high);
    }
    match right["set"].as_array().or(right.as_array()) {
        Some(all) => all.iter().any(|value| holds(value, one, port)),
        None => one(right),
    }
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
