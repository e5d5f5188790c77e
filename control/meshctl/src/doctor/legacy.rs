//! Rules of the older iptables, which nftables does not list, in the form in which nftables lists its own.

use std::fs;

use serde_json::{Value, json};

use super::devices::output;

/// What stands in a chain's `tool` when it is of the older iptables: the program that changes it.
pub const TOOL: &str = "tool";

/// The chains and rules of both families; an error names the program that is missing.
pub fn objects() -> Result<Vec<Value>, &'static str> {
    let mut objects = Vec::new();
    for (family, names, tool, usual) in [
        ("ip", "ip_tables_names", "iptables-legacy", "iptables"),
        ("ip6", "ip6_tables_names", "ip6tables-legacy", "ip6tables"),
    ] {
        // Without a table there are no rules; asking for them would make tables.
        let tables = fs::read_to_string(format!("/proc/self/net/{names}")).unwrap_or_default();
        if tables.trim().is_empty() {
            continue;
        }
        if let Some(text) = output(&format!("{tool}-save"), &[]) {
            objects.extend(parse(&text, family, tool));
            continue;
        }
        // Where there is one iptables alone, it may be the older.
        let version = output(usual, &["--version"]).filter(|version| !version.contains("nf_tables"));
        let text = version.and_then(|_| output(&format!("{usual}-save"), &[])).ok_or(tool)?;
        objects.extend(parse(&text, family, usual));
    }
    Ok(objects)
}

/// What `iptables-save` prints.
fn parse(text: &str, family: &str, tool: &str) -> Vec<Value> {
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
                {"family": family, "table": table, "chain": chain, TOOL: tool, "expr": statements(rest)}}));
        }
    }
    objects
}

/// The conditions and the verdict of a rule. What is not known here becomes a condition that is not known there.
fn statements(words: &[String]) -> Vec<Value> {
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
            "-d" => condition(json!({"payload": {"protocol": "ip", "field": "daddr"}}), value().into()),
            "--ctstate" | "--state" => {
                let states: Vec<_> = value().split(',').map(str::to_lowercase).collect();
                condition(json!({"ct": {"key": "state"}}), json!(states));
            }
            "-j" => statements.push(match value() {
                "ACCEPT" => json!({"accept": null}),
                "DROP" => json!({"drop": null}),
                "REJECT" => json!({"reject": null}),
                "RETURN" => json!({"return": null}),
                chain => json!({"jump": {"target": chain}}),
            }),
            "-g" => statements.push(json!({"goto": {"target": value()}})),
            // Those whose conditions are told apart above, or that have none.
            "-m" if matches!(
                words.peek(),
                Some(&("tcp" | "udp" | "multiport" | "state" | "conntrack" | "comment"))
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

    fn texts(rules: &str) -> Vec<String> {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:own - [0:0]\n{rules}\nCOMMIT\n");
        let found = super::super::firewall::closed(&parse(&text, "ip", "iptables-legacy"), false);
        found
            .into_iter()
            .map(|finding| format!("{} {}", finding.what, finding.cure.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_rule_that_drops_a_port_is_found_with_its_program() {
        let found =
            texts("-A INPUT -p udp -m udp --dport 7946 -m comment --comment \"no -j ACCEPT\" -j DROP");
        assert_eq!(
            found,
            [
                "chain INPUT of table filter (iptables-legacy) drops 7946/udp `iptables-legacy -t filter -I INPUT -p udp --dport 7946 -j ACCEPT`"
            ]
        );
        assert_eq!(
            texts("-A INPUT -p tcp -m multiport --dports 22,7000:8000 -j REJECT --reject-with tcp-reset")
                .len(),
            1
        );
        assert_eq!(texts("-A INPUT -j own\n-A own -p udp -j DROP").len(), 2);
    }

    #[test]
    fn what_is_let_pass_or_is_not_sure_is_not_told() {
        let accept = "-A INPUT -p udp --dport 7946 -j ACCEPT";
        assert!(texts(&format!("{accept}\n-A INPUT -p udp --dport 7946 -j DROP")).is_empty());
        assert!(texts("-A INPUT -s 10.0.0.0/8 -p udp --dport 7946 -j DROP").is_empty());
        assert!(texts("-A INPUT -p udp --dport 53 -j DROP").is_empty());
        assert!(texts("-A INPUT -i lo -j DROP").is_empty());
        assert!(texts("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j DROP").is_empty());
        assert_eq!(texts("-A INPUT ! -i lo -p udp --dport 7946 -j DROP").len(), 1);
    }
}
