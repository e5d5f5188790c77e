//! Rules of the host's own firewall that drop what nodes send each other, or that have to do with published ports.
//!
//! The probes of ports find what is closed in any case; this says by whom.

mod others;
mod published;

use mesh_firewall::{Base, Fate, Keeper, Packet, Ruleset};
use mesh_types::{GOSSIP_PORT, MANAGER_PORT, VXLAN_PORT};

use self::others::Others;
use super::{
    Finding, Level, Told,
    cluster::{WARNING, split},
};

const NAME: &str = "firewall";
/// What meshd's own tables are called.
const OWN: &str = "meshd";
/// What nodes let in from each other (docs/firewall-and-cloud.md).
const PORTS: [(u16, &str); 4] =
    [(MANAGER_PORT, "tcp"), (GOSSIP_PORT, "tcp"), (GOSSIP_PORT, "udp"), (VXLAN_PORT, "udp")];

/// Reads the rules of nftables, with those of the iptables of today, and of the older iptables.
pub fn check(told: &Told, findings: &mut Vec<Finding>) {
    let Some(rules) = Ruleset::read() else {
        return findings.push(Finding::unchecked(
            NAME,
            "nftables' rules can be read as root alone, with `nft` installed",
        ));
    };
    let manager = told.status.role() == mesh_api::v1::Role::Manager;
    let ports = told.view.as_ref().map(published::ports).unwrap_or_default();
    if let Some(program) = rules.unlisted() {
        findings.push(Finding::unchecked(
            NAME,
            format!("there are rules of the older iptables, and no {program} to list them"),
        ));
    }
    let mut found = closed(&rules, manager, &Others::of(told));
    found.extend(published::check(&rules, &ports));
    // The daemon tells the same, of some time ago.
    findings.retain(|finding| !(finding.check == WARNING && finding.what.starts_with("the host's firewall")));
    found.extend(rules.forwarding_closed(OWN).iter().map(|closed| {
        let text = closed.to_string();
        let (what, cure) = split(&text);
        Finding::warning(NAME, what, cure)
    }));
    if found.is_empty() {
        findings.push(Finding::ok(NAME, "no rule surely drops what nodes send each other"));
    }
    findings.extend(found);
}

/// The chains that matter here, but for meshd's own.
fn bases(rules: &Ruleset) -> impl Iterator<Item = Base<'_>> {
    rules.bases().filter(|base| base.hook != "forward" && base.table != OWN)
}

/// What base chains drop of what nodes send each other, each with its cure.
fn closed(rules: &Ruleset, manager: bool, others: &Others) -> Vec<Finding> {
    let mut found = Vec::new();
    for keeper in [Keeper::Ufw, Keeper::Firewalld] {
        found.extend(closed_by(rules, keeper, manager, others));
    }
    for base in bases(rules) {
        for (port, protocol) in ports(manager) {
            let Some((by, from)) = drops(rules, &base, port, protocol, others) else { continue };
            if by.is_some() {
                continue;
            }
            let what = format!("{} drops {port}/{protocol}{from}", base.place());
            let cure = base.insert(
                &format!("{protocol} dport {port} accept"),
                &format!("-p {protocol} --dport {port} -j ACCEPT"),
            );
            found.push(match level(port, &base) {
                Level::Warning => Finding::warning(NAME, format!("{what}: {LOST}"), cure),
                _ => Finding::failure(NAME, what, cure),
            });
        }
    }
    found
}

/// What a program that keeps rules has its chains drop: it is to be told itself, once for all ports.
fn closed_by(rules: &Ruleset, keeper: Keeper, manager: bool, others: &Others) -> Option<Finding> {
    let mut dropped: Vec<(u16, &str, String)> = Vec::new();
    let mut worst = Level::Warning;
    let mut place = None;
    for base in bases(rules) {
        for (port, protocol) in ports(manager) {
            let Some((Some(by), from)) = drops(rules, &base, port, protocol, others) else { continue };
            if by != keeper {
                continue;
            }
            worst = worst.max(level(port, &base));
            place.get_or_insert_with(|| base.place());
            if !dropped.iter().any(|(same, of, _)| (*same, *of) == (port, protocol)) {
                dropped.push((port, protocol, from));
            }
        }
    }
    let named: Vec<_> =
        dropped.iter().map(|(port, protocol, from)| format!("{port}/{protocol}{from}")).collect();
    let what = format!("{keeper} drops {} ({})", named.join(", "), place?);
    let commands: Vec<_> =
        keeper.let_in(&PORTS, &others.sources()).iter().map(|command| format!("`{command}`")).collect();
    let cure = commands.join(", then ");
    Some(match worst {
        Level::Warning => Finding::warning(NAME, format!("{what}: {LOST}"), cure),
        _ => Finding::failure(NAME, what, cure),
    })
}

/// What is lost where the VXLAN port alone is closed.
const LOST: &str = "UDP that is sent in one piece (GSO), and all on the general path, is lost";

/// The programs take packets to the VXLAN port before the firewall sees them, mostly.
fn level(port: u16, base: &Base<'_>) -> Level {
    if port == VXLAN_PORT && base.is_way_in() { Level::Warning } else { Level::Failure }
}

/// Managers alone are asked at the managers' port.
fn ports(manager: bool) -> impl Iterator<Item = (u16, &'static str)> {
    PORTS.into_iter().filter(move |(port, _)| manager || *port != MANAGER_PORT)
}

/// Whether a chain drops what nodes send to a port: the program that has to be told, if one keeps the rule, and from whom, if
/// not from all.
fn drops(
    rules: &Ruleset,
    base: &Base<'_>,
    port: u16,
    protocol: &str,
    others: &Others,
) -> Option<(Option<Keeper>, String)> {
    let mut closing = None;
    let mut dropped = Vec::new();
    let mut all = true;
    for (name, packet) in others.packets(base, port, protocol) {
        match rules.drops(base, &packet) {
            true => {
                closing = Some(packet);
                dropped.push(name);
            }
            false => all = false,
        }
    }
    let by_hand = |packet: &Packet<'_>| matches!(rules.fate(base, packet), Fate::Drops { itself: true, .. });
    let keeper = match base.keeper {
        // What leaves is let out in other words, and what stands before ufw's chains is not its own.
        _ if !base.is_way_in() => None,
        Some(Keeper::Ufw) if by_hand(&closing?) => None,
        keeper => keeper,
    };
    let names = dropped.join(", ");
    let from = match (all, base.is_way_in()) {
        (true, _) => String::new(),
        (false, true) => format!(" from {names}"),
        (false, false) => format!(" to {names}"),
    };
    closing.map(|_| (keeper, from))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn rules(text: &str) -> Ruleset {
        let rules: Value = serde_json::from_str(text).unwrap();
        Ruleset::of(rules["nftables"].as_array().unwrap().clone())
    }

    fn closed(text: &str, manager: bool) -> Vec<Finding> {
        super::closed(&rules(text), manager, &Others::default())
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

    /// Of what this node lets in from n2 and n3.
    fn of_others(text: &str) -> Vec<Finding> {
        super::closed(&rules(text), true, &Others::known("192.0.2.1", &["192.0.2.2", "192.0.2.130"]))
    }

    #[test]
    fn nodes_that_are_not_let_in_are_named() {
        let drop = |from: &str| {
            format!(
                r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"ip","field":"saddr"}}}},"right":{from}}}}},{{"drop":null}}"#
            )
        };
        let net = drop(r#"{"prefix":{"addr":"192.0.2.128","len":25}}"#);
        let found = of_others(&ruleset("input", "accept", &[&net]));
        assert_eq!(found.len(), 4);
        assert_eq!(found[1].what, "chain c of nftables table inet t (input) drops 7946/tcp from n3");
        assert_eq!(of_others(&ruleset("input", "accept", &[&drop(r#""198.51.100.1""#)])).len(), 0);
        let others = Others::default();
        let unknown = super::closed(&rules(&ruleset("input", "accept", &[&net])), true, &others);
        assert!(unknown.is_empty(), "who knows who they are: {unknown:?}");
    }

    #[test]
    fn programs_that_keep_rules_are_to_be_told_themselves() {
        let firewalld =
            ruleset("input", "accept", &[r#"{"reject":null}"#]).replace(r#":"t""#, r#":"firewalld""#);
        let found = of_others(&firewalld);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].what.starts_with("firewalld drops 2377/tcp, 7946/tcp, 7946/udp, 4789/udp ("),
            "{found:?}"
        );
        assert_eq!(found[0].level, Level::Failure);
        let cure = found[0].cure.as_deref().unwrap();
        assert!(cure.contains("source address=192.0.2.2 service name=mesh accept'`, then `"), "{cure}");
        let ufw = firewalld.replace("inet", "ip").replace("firewalld", "filter");
        let chain = r#"{"chain":{"family":"ip","table":"filter","name":"ufw-before-input"}}]}"#;
        let ufw = format!("{},{chain}", ufw.strip_suffix("]}").unwrap());
        let by_hand = of_others(&ufw);
        assert_eq!(by_hand.len(), 4, "a rule before those of ufw: {by_hand:?}");
        let found = of_others(
            &ufw.replace(r#""policy":"accept""#, r#""policy":"drop""#).replace("reject", "counter"),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        let cure = found[0].cure.as_deref().unwrap();
        assert!(cure.starts_with("`ufw allow from 192.0.2.2 to any port 2377,7946 proto tcp`"), "{cure}");
        // What leaves the node is not let out by the same words.
        let out = ufw.replace("input", "output");
        assert!(of_others(&out).iter().all(|finding| !finding.what.starts_with("ufw")));
    }
}
