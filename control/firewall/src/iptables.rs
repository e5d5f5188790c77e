//! Rules of iptables, in the form in which nftables lists its own: those of the older kind, which nftables does not know, and
//! those of today's that nftables knows only by the names of their extensions (`xt`).

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::run::output;

/// What stands in a chain's and a rule's `tool` when it is of the older iptables: the program that changes it.
pub const TOOL: &str = "tool";
/// The tables of iptables.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// The chains and rules of the older iptables, of both families; an error names the program that is missing.
pub fn older() -> Result<Vec<Value>, &'static str> {
    let mut objects = Vec::new();
    for (family, names, tool, usual) in [
        ("ip", "ip_tables_names", "iptables-legacy", "iptables"),
        ("ip6", "ip6_tables_names", "ip6tables-legacy", "ip6tables"),
    ] {
        // Without a table there are no rules; asking for them would make tables.
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        if tables.trim().is_empty() {
            continue;
        }
        if let Some(text) = output(&format!("{tool}-save"), &[]) {
            objects.extend(parse(&text, family, Some(tool)));
            continue;
        }
        // Where there is one iptables alone, it may be the older.
        let version = output(usual, &["--version"]).filter(|version| !version.contains("nf_tables"));
        let text = version.and_then(|_| output(&format!("{usual}-save"), &[])).ok_or(tool)?;
        objects.extend(parse(&text, family, Some(usual)));
    }
    Ok(objects)
}

/// The same objects, with rules that have extensions of iptables in the words of `iptables-save`, where it is there.
pub fn translated(objects: Vec<Value>) -> Vec<Value> {
    translated_by(objects, |family, table| {
        let program = if family == "ip" { "iptables-nft-save" } else { "ip6tables-nft-save" };
        output(program, &["-t", table])
    })
}

fn translated_by(mut objects: Vec<Value>, save: impl Fn(&str, &str) -> Option<String>) -> Vec<Value> {
    for (family, table) in ["ip", "ip6"].into_iter().flat_map(|family| TABLES.map(|table| (family, table))) {
        let of = |object: &Value| {
            let rule = object.get("rule")?;
            let here = rule["family"] == family && rule["table"] == table;
            here.then(|| rule["chain"].as_str().unwrap_or_default().to_owned())
        };
        if !objects.iter().any(|object| of(object).is_some() && has_extension(&object["rule"]["expr"])) {
            continue;
        }
        let Some(text) = save(family, table) else { continue };
        let chains = |objects: &[Value]| {
            let mut chains: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for (at, object) in objects.iter().enumerate() {
                if let Some(chain) = of(object) {
                    chains.entry(chain).or_default().push(at);
                }
            }
            chains
        };
        let mut saved = parse(&text, family, None);
        let places = chains(&saved);
        for (chain, listed) in chains(&objects) {
            let Some(same) = places.get(&chain).filter(|same| same.len() == listed.len()) else { continue };
            for (at, from) in listed.into_iter().zip(same) {
                let rule = &mut objects[at]["rule"];
                if has_extension(&rule["expr"]) {
                    rule["expr"] = saved[*from]["rule"]["expr"].take();
                }
            }
        }
    }
    objects
}

fn has_extension(expr: &Value) -> bool {
    expr.as_array().into_iter().flatten().any(|part| part.get("xt").is_some())
}

/// What `iptables-save` prints; `tool` as in [`TOOL`].
pub fn parse(text: &str, family: &str, tool: Option<&str>) -> Vec<Value> {
    let mut table = "";
    let mut objects = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            let mut chain = json!({"family": family, "table": table, "name": name, TOOL: tool});
            // Chains that others jump to have none.
            if policy != "-" {
                chain["hook"] = name.to_lowercase().into();
                chain["policy"] = policy.to_lowercase().into();
            }
            objects.push(json!({"chain": chain}));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let Some((chain, rest)) = words.split_first() else { continue };
            objects.push(json!({"rule":
                {"family": family, "table": table, "chain": chain, TOOL: tool, "expr": statements(rest, family)}}));
        }
    }
    objects
}

/// The conditions and the verdict of a rule. What is not known here becomes a condition that is not known there.
fn statements(words: &[String], family: &str) -> Vec<Value> {
    let mut statements = Vec::new();
    let mut protocol = "th".to_owned();
    let mut words = words.iter().map(String::as_str).peekable();
    let mut not = false;
    while let Some(word) = words.next() {
        if word == "!" {
            not = true;
            continue;
        }
        let mut condition = |left: Value, right: Value| {
            statements
                .push(json!({"match": {"op": if not { "!=" } else { "==" }, "left": left, "right": right}}));
        };
        let mut value = || words.next().unwrap_or_default();
        match word {
            "-p" => {
                let name = value();
                if !not {
                    name.clone_into(&mut protocol);
                }
                condition(json!({"meta": {"key": "l4proto"}}), name.into());
            }
            "--dport" | "--dports" => {
                let ports = value().split(',').map(port).collect::<Vec<_>>();
                condition(
                    json!({"payload": {"protocol": protocol, "field": "dport"}}),
                    json!({"set": ports}),
                );
            }
            "-i" | "-o" => {
                let key = if word == "-i" { "iifname" } else { "oifname" };
                condition(json!({"meta": {"key": key}}), value().into());
            }
            "-s" | "-d" => {
                let field = if word == "-s" { "saddr" } else { "daddr" };
                condition(json!({"payload": {"protocol": family, "field": field}}), value().into());
            }
            "--src-type" | "--dst-type" => {
                let flag = if word == "--src-type" { "saddr" } else { "daddr" };
                let kinds: Vec<_> = value().split(',').map(str::to_lowercase).collect();
                condition(json!({"fib": {"result": "type", "flags": [flag]}}), json!({"set": kinds}));
            }
            "--ctstate" | "--state" => {
                let states: Vec<_> = value().split(',').map(str::to_lowercase).collect();
                condition(json!({"ct": {"key": "state"}}), json!(states));
            }
            "-j" => statements.push(match value() {
                "ACCEPT" => json!({"accept": null}),
                "DROP" => json!({"drop": null}),
                "REJECT" => json!({"reject": null}),
                "RETURN" => json!({"return": null}),
                "NFQUEUE" => json!({"queue": null}),
                chain => json!({"jump": {"target": chain}}),
            }),
            "-g" => statements.push(json!({"goto": {"target": value()}})),
            // Those whose conditions are told apart above, or that have none.
            "-m" if matches!(
                words.peek(),
                Some(&("tcp" | "udp" | "multiport" | "state" | "conntrack" | "addrtype" | "comment"))
            ) =>
            {
                words.next();
            }
            "--comment" | "--reject-with" => {
                words.next();
            }
            _ => statements.push(json!({"xt": {"name": word}})),
        }
        not = false;
    }
    statements
}

/// A port, or a range `low:high`.
fn port(text: &str) -> Value {
    let number = |text: &str| text.parse::<u16>().ok();
    match text.split_once(':') {
        Some((low, high)) => json!({"range": [number(low).unwrap_or(0), number(high).unwrap_or(u16::MAX)]}),
        None => json!(number(text)),
    }
}

/// Words by the shell's quotes, as comments have them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            c if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Packet, Ruleset};

    /// Which ports the chain INPUT surely drops.
    fn dropped(rules: &str) -> Vec<u16> {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:own - [0:0]\n{rules}\nCOMMIT\n");
        let rules = Ruleset::of(parse(&text, "ip", Some("iptables-legacy")));
        let base = rules.bases().next().unwrap();
        assert_eq!(base.place(), "chain INPUT of table filter (iptables-legacy)");
        [("udp", 7946), ("tcp", 7946), ("udp", 4789)]
            .into_iter()
            .filter(|(protocol, port)| rules.drops(&base, &Packet::to_port(protocol, *port)))
            .map(|(_, port)| port)
            .collect()
    }

    #[test]
    fn a_rule_that_drops_a_port_is_found() {
        let rule = "-A INPUT -p udp -m udp --dport 7946 -m comment --comment \"no -j ACCEPT\" -j DROP";
        assert_eq!(dropped(rule), [7946]);
        let many = "-A INPUT -p tcp -m multiport --dports 22,7000:8000 -j REJECT --reject-with tcp-reset";
        assert_eq!(dropped(many), [7946]);
        assert_eq!(dropped("-A INPUT -j own\n-A own -p udp -j DROP"), [7946, 4789]);
        let text = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";
        let rules = Ruleset::of(parse(text, "ip", Some("iptables-legacy")));
        assert_eq!(
            rules.bases().next().unwrap().insert("", "-p udp --dport 7946 -j ACCEPT"),
            "`iptables-legacy -t filter -I INPUT -p udp --dport 7946 -j ACCEPT`"
        );
    }

    #[test]
    fn what_is_let_pass_or_is_not_sure_is_not_told() {
        let accept = "-A INPUT -p udp --dport 7946 -j ACCEPT";
        assert!(dropped(&format!("{accept}\n-A INPUT -p udp --dport 7946 -j DROP")).is_empty());
        assert!(dropped("-A INPUT -s 10.0.0.0/8 -p udp --dport 7946 -j DROP").is_empty());
        assert!(dropped("-A INPUT -p udp --dport 53 -j DROP").is_empty());
        assert!(dropped("-A INPUT -i lo -j DROP").is_empty());
        assert!(dropped("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j DROP").is_empty());
        assert_eq!(dropped("-A INPUT -p udp --sport 67 --dport 68 -j ACCEPT\n-A INPUT -j DROP").len(), 3);
        assert!(dropped("-A INPUT -m limit --limit 3/min -j RETURN\n-A INPUT -j DROP").is_empty());
        assert_eq!(dropped("-A INPUT ! -i lo -p udp --dport 7946 -j DROP"), [7946]);
        assert_eq!(dropped("-A INPUT -m addrtype --dst-type LOCAL -j RETURN\n-A INPUT -j DROP"), [0; 0]);
        assert_eq!(dropped("-A INPUT -m addrtype ! --dst-type LOCAL -j RETURN\n-A INPUT -j DROP").len(), 3);
    }

    #[test]
    fn extensions_are_read_from_what_is_saved() {
        let rule = |expr: Value| {
            json!({"rule":
            {"family": "ip", "table": "filter", "chain": "INPUT", "expr": expr}})
        };
        let plain = json!([{"counter": {}}, {"accept": null}]);
        let objects = vec![rule(json!([{"xt": {"name": "multiport"}}, {"drop": null}])), rule(plain.clone())];
        let saved = |rules: &str| Some(format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n"));
        let two = "-A INPUT -p tcp -m multiport --dports 1,2 -j DROP\n-A INPUT -j ACCEPT";
        let now = translated_by(objects.clone(), |_, _| saved(two));
        assert!(!has_extension(&now[0]["rule"]["expr"]), "{now:?}");
        assert_eq!(now[1]["rule"]["expr"], plain);
        // Of another moment.
        assert_eq!(translated_by(objects.clone(), |_, _| saved("-A INPUT -j DROP")), objects);
        assert_eq!(translated_by(objects.clone(), |_, _| None), objects);
    }
}
