//! Whether the host's own firewall lets forwarded packets of tasks through.
//!
//! A table of ours cannot overrule another's `drop`: in the forward hook every base chain has to accept a packet. So the
//! others' rules are only read, and what is in the way is told together with its cure.

use std::{fmt, fs, process::Command};

use ipnet::IpNet;

use crate::{Result, nft};

/// A chain of the host's firewall that drops what tasks send out, or the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The tasks' addresses outside.
    pub pool: IpNet,
    /// Whose chain it is.
    pub chain: Chain,
}

/// A chain, as the tool that made it names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    /// Of nftables: family, table and chain.
    Nft(String, String, String),
    /// Of iptables, or ip6tables for IPv6.
    Iptables(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = self.pool;
        match &self.chain {
            Chain::Nft(family, table, chain) => {
                let ip = word_of(pool);
                let insert = format!("nft insert rule {family} {table} {chain} {ip}");
                write!(
                    f,
                    "the host's firewall (chain {chain} of nftables table {family} {table}) drops forwarded packets, so \
                     tasks have no way out by {ip}; let them pass with `{insert} saddr {pool} accept` and \
                     `{insert} daddr {pool} ct state established,related accept`"
                )
            }
            Chain::Iptables(chain) => {
                let tool = if pool.addr().is_ipv4() { "iptables" } else { "ip6tables" };
                write!(
                    f,
                    "the host's firewall ({tool}, chain FORWARD) drops forwarded packets, so tasks have no way out by \
                     {}; let them pass with `{tool} -I {chain} -s {pool} -j ACCEPT` and `{tool} -I {chain} -d {pool} \
                     -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT`",
                    word_of(pool)
                )
            }
        }
    }
}

/// The chains that drop forwarded packets of `pool`; `own` is the name of our tables, which are not meant.
///
/// Works in the namespace of the calling thread and blocks for some milliseconds.
pub fn forwarding_closed(pool: IpNet, own: &str) -> Result<Vec<Closed>> {
    let pool = pool.trunc();
    let mut closed = Vec::new();
    let chains = nft::list(&["chains"])?.unwrap_or_default();
    for (family, table, chain) in forward_chains(&chains, own) {
        if family != word_of(pool) && family != "inet" {
            continue;
        }
        let Some(text) = nft::list(&["table", &family, &table])? else { continue };
        if let Some(closing) = nft_closes(&text, &chain, pool) {
            let chain = match closing {
                By::Itself => Chain::Nft(family, table, chain),
                By::Iptables(chain) => Chain::Iptables(chain),
            };
            closed.push(Closed { pool, chain });
        }
    }
    if let Some(text) = legacy_rules(pool)
        && let Some(chain) = legacy_closes(&text, pool)
    {
        closed.push(Closed { pool, chain: Chain::Iptables(chain) });
    }
    Ok(closed)
}

fn word_of(pool: IpNet) -> &'static str {
    if pool.addr().is_ipv4() { "ip" } else { "ip6" }
}

/// Family, table and chain of every filter in the forward hook, from `nft list chains`.
fn forward_chains(text: &str, own: &str) -> Vec<(String, String, String)> {
    let (mut table, mut chain) = (None, None);
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, ..] => table = Some((*family, *name)),
            ["chain", name, ..] => chain = Some(*name),
            ["type", "filter", "hook", "forward", ..] => {
                if let (Some((family, table)), Some(chain)) = (table, chain)
                    && table != own
                {
                    found.push((family.to_owned(), table.to_owned(), chain.to_owned()));
                }
            }
            _ => {}
        }
    }
    found
}

/// By whose means a chain drops packets, and so who has to let them pass.
#[derive(Debug, PartialEq, Eq)]
enum By {
    Itself,
    Iptables(String),
}

/// Whether the base chain of a table as `nft list table` prints it drops what nobody accepts, and nothing accepts `pool`.
fn nft_closes(table: &str, chain: &str, pool: IpNet) -> Option<By> {
    let heading = format!("chain {chain} {{");
    let body = table.lines().map(str::trim).skip_while(|line| *line != heading).skip(1);
    let body: Vec<&str> = body.take_while(|line| *line != "}").collect();
    let policy = body.iter().any(|line| line.starts_with("type ") && line.contains("policy drop"));
    let last = body.last().is_some_and(|line| bare(line, &["drop", "reject"]));
    if !policy && !last {
        return None;
    }
    let pool = pool.to_string();
    let accepts = |line: &&str| line.split_whitespace().any(|word| word == "accept");
    let rules = || table.lines().map(str::trim).filter(accepts);
    let has = |line: &str, words: [&str; 2]| line.contains(&format!("{} {}", words[0], words[1]));
    let out = rules().any(|r| has(r, ["saddr", &pool]));
    let answers = |r: &str| r.contains("established") && !r.contains("ifname") && !r.contains("addr");
    let back = rules().any(|r| has(r, ["daddr", &pool]) || answers(r));
    // Without any condition.
    let all = body.iter().any(|line| bare(line, &["accept"]));
    if (out && back) || all {
        return None;
    }
    let by_iptables = chain == "FORWARD" && table.contains(" filter {");
    let docker = table.lines().any(|line| line.trim() == "chain DOCKER-USER {");
    Some(match (by_iptables, docker) {
        (false, _) => By::Itself,
        (true, true) => By::Iptables("DOCKER-USER".to_owned()),
        (true, false) => By::Iptables("FORWARD".to_owned()),
    })
}

/// Whether a rule is just this verdict, with or without a counter.
fn bare(rule: &str, verdicts: &[&str]) -> bool {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let verdict = match words.as_slice() {
        ["counter", "packets", _, "bytes", _, rest @ ..] => rest,
        all => all,
    };
    verdict.first().is_some_and(|word| verdicts.contains(word))
}

/// What `iptables-save`'s elder kind prints, where it has a filter table.
fn legacy_rules(pool: IpNet) -> Option<String> {
    let (names, tools) = match pool {
        IpNet::V4(_) => ("ip_tables_names", ["iptables-legacy", "iptables"]),
        IpNet::V6(_) => ("ip6_tables_names", ["ip6tables-legacy", "ip6tables"]),
    };
    let names = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
    if !names.lines().any(|name| name == "filter") {
        return None;
    }
    let run =
        |tool: &&str| Command::new(tool).arg("-S").output().ok().filter(|output| output.status.success());
    let output = tools.iter().find_map(run)?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`nft_closes`], of what `iptables -S` prints: the chain in which to let packets pass.
fn legacy_closes(text: &str, pool: IpNet) -> Option<String> {
    if !text
        .lines()
        .any(|line| matches!(line, "-P FORWARD DROP" | "-A FORWARD -j DROP" | "-A FORWARD -j REJECT"))
    {
        return None;
    }
    let accepts = || text.lines().filter(|line| line.ends_with("-j ACCEPT"));
    let out = accepts().any(|line| line.contains(&format!("-s {pool} ")));
    let answers =
        |line: &str| line.contains("ESTABLISHED") && !line.contains(" -i ") && !line.contains(" -o ");
    let back = accepts().any(|line| line.contains(&format!("-d {pool} ")) || answers(line));
    if out && back {
        return None;
    }
    let docker = text.lines().any(|line| line == "-N DOCKER-USER");
    Some(if docker { "DOCKER-USER" } else { "FORWARD" }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "169.254.64.0/18";

    fn closes(table: &str, chain: &str) -> Option<By> {
        nft_closes(table, chain, POOL.parse().unwrap())
    }

    #[test]
    fn finds_the_forward_chains_of_others() {
        let text = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\tchain \
                    DOCKER-USER {\n\t}\n}\ntable ip meshd {\n\tchain forward {\n\t\ttype filter hook forward priority filter; \
                    policy accept;\n\t}\n}\ntable inet fw {\n\tchain fwd {\n\t\ttype filter hook forward priority 0; policy \
                    accept;\n\t}\n\tchain in {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n";
        let found = forward_chains(text, "meshd");
        let names: Vec<_> = found.iter().map(|(f, t, c)| [f.as_str(), t, c].join(" ")).collect();
        assert_eq!(names, ["ip filter FORWARD", "inet fw fwd"]);
    }

    #[test]
    fn a_chain_is_closed_until_both_directions_are_accepted() {
        let table = |rules: &str, policy: &str| {
            format!(
                "table inet fw {{\n\tchain fwd {{\n\t\ttype filter hook forward priority filter; policy {policy};\n{rules}\t}}\n}}\n"
            )
        };
        let (out, back) =
            ("\t\tip saddr 169.254.64.0/18 accept\n", "\t\tct state established,related accept\n");
        assert_eq!(closes(&table("", "accept"), "fwd"), None);
        assert_eq!(closes(&table("", "drop"), "fwd"), Some(By::Itself));
        assert_eq!(closes(&table(out, "drop"), "fwd"), Some(By::Itself));
        assert_eq!(closes(&table(back, "drop"), "fwd"), Some(By::Itself));
        assert_eq!(closes(&table(&format!("{out}{back}"), "drop"), "fwd"), None);
        assert_eq!(closes(&table("\t\tcounter packets 0 bytes 0 accept\n", "drop"), "fwd"), None);
        let rejects = "\t\treject with icmpx admin-prohibited\n";
        assert_eq!(closes(&table(rejects, "accept"), "fwd"), Some(By::Itself));
        assert_eq!(closes(&table(&format!("{out}{back}{rejects}"), "accept"), "fwd"), None);
        let narrow = "\t\toifname \"docker0\" ct state established,related accept\n";
        assert_eq!(closes(&table(&format!("{out}{narrow}"), "drop"), "fwd"), Some(By::Itself));
    }

    #[test]
    fn the_cure_is_in_the_words_of_whoever_made_the_chain() {
        let table = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy \
                     drop;\n\t\tcounter packets 0 bytes 0 jump DOCKER-USER\n\t}\n\tchain DOCKER-USER {\n\t\tcounter packets \
                     0 bytes 0 return\n\t}\n}\n";
        assert_eq!(closes(table, "FORWARD"), Some(By::Iptables("DOCKER-USER".to_owned())));
        let pool = POOL.parse().unwrap();
        let text = Closed { pool, chain: Chain::Iptables("DOCKER-USER".to_owned()) }.to_string();
        assert!(text.contains("`iptables -I DOCKER-USER -s 169.254.64.0/18 -j ACCEPT`"), "{text}");
        let legacy = "-P INPUT ACCEPT\n-P FORWARD DROP\n-A FORWARD -s 169.254.64.0/18 -j ACCEPT\n";
        assert_eq!(legacy_closes(legacy, pool), Some("FORWARD".to_owned()));
        let open = format!("{legacy}-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
        assert_eq!(legacy_closes(&open, pool), None);
        assert_eq!(legacy_closes("-P FORWARD ACCEPT\n", pool), None);
    }
}
