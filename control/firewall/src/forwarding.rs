//! Whether the host's own firewall lets forwarded packets of tasks through.
//!
//! A table of ours cannot overrule another's `drop`: in the forward hook every base chain has to accept a packet. So the
//! others' rules are only read, and what is in the way is told together with its cure.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{Base, Fate, Keeper, Packet, Ruleset};

/// Somebody whom tasks speak to: public addresses, which no list of those that are not to be seen outside names.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));
const FAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888));

/// A chain of the host's firewall that drops what tasks send out, or the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The tasks' addresses outside.
    pub pools: Vec<IpNet>,
    /// Whose chain it is.
    by: By,
}

/// A chain, as the tool that made it names it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    /// Of a program that has to be told itself.
    Keeper(Keeper),
    /// Of nftables: family, table and chain.
    Nft(String, String, String),
    /// Of iptables, or ip6tables for IPv6; the chain in which to let packets pass.
    Iptables(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, commands) = match &self.by {
            By::Keeper(keeper) => (keeper.to_string(), keeper.let_out(&self.pools)),
            By::Nft(family, table, chain) => {
                let insert = |pool: &IpNet| {
                    let ip = family_of(*pool);
                    let insert = format!("nft insert rule {family} {table} {chain} {ip}");
                    let back = format!("{insert} daddr {pool} ct state established,related accept");
                    [format!("{insert} saddr {pool} accept"), back]
                };
                let commands = self.pools.iter().flat_map(insert).collect();
                (format!("chain {chain} of nftables table {family} {table}"), commands)
            }
            By::Iptables(chain) => {
                let tool = |pool: &IpNet| if pool.addr().is_ipv4() { "iptables" } else { "ip6tables" };
                let insert = |pool: &IpNet| {
                    let insert = format!("{} -I {chain}", tool(pool));
                    let back =
                        format!("{insert} -d {pool} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
                    [format!("{insert} -s {pool} -j ACCEPT"), back]
                };
                let tool = self.pools.first().map_or("iptables", tool);
                (format!("{tool}, chain FORWARD"), self.pools.iter().flat_map(insert).collect())
            }
        };
        let families: Vec<_> = self.pools.iter().map(|pool| family_of(*pool)).collect();
        let commands: Vec<_> = commands.iter().map(|command| format!("`{command}`")).collect();
        write!(
            f,
            "the host's firewall ({whose}) drops forwarded packets, so tasks have no way out by {}; let them pass with {}",
            families.join(" and "),
            listing(&commands)
        )
    }
}

/// One after the other, `and` before the last.
fn listing(words: &[String]) -> String {
    match words {
        [some @ .., last] if !some.is_empty() => format!("{} and {last}", some.join(", ")),
        words => words.concat(),
    }
}

/// The chains that drop forwarded packets of `pools`; `own` is the name of our tables, which are not meant.
///
/// Works in the namespace of the calling thread and blocks for some milliseconds.
pub fn forwarding_closed(pools: &[IpNet], own: &str) -> Vec<Closed> {
    if pools.is_empty() {
        return Vec::new();
    }
    closed(&Ruleset::of_forwarding(own), pools, own, outside)
}

impl Ruleset {
    /// As [`forwarding_closed`], of what the tables called `own` masquerade, in the namespace of the calling thread.
    pub fn forwarding_closed(&self, own: &str) -> Vec<Closed> {
        closed(self, &self.masqueraded(own), own, outside)
    }
}

/// The interface by which packets of a pool leave the node.
fn outside(pool: &IpNet) -> Option<String> {
    let routes = fs::read_to_string(match pool {
        IpNet::V4(_) => "/proc/thread-self/net/route",
        IpNet::V6(_) => "/proc/thread-self/net/ipv6_route",
    });
    default_link(&routes.unwrap_or_default()).map(str::to_owned)
}

fn closed(
    rules: &Ruleset,
    pools: &[IpNet],
    own: &str,
    outside: impl Fn(&IpNet) -> Option<String>,
) -> Vec<Closed> {
    let mut found: Vec<Closed> = Vec::new();
    for pool in pools.iter().map(IpNet::trunc) {
        let outside = outside(&pool);
        for base in rules.bases().filter(|base| base.hook == "forward" && base.table != own) {
            if base.family != family_of(pool) && base.family != "inet" {
                continue;
            }
            let Some(by) = drops(rules, &base, pool, outside.as_deref()) else { continue };
            match found.iter_mut().find(|closed| closed.by == by && matches!(by, By::Keeper(_))) {
                Some(closed) => closed.pools.push(pool),
                None => found.push(Closed { pools: vec![pool], by }),
            }
        }
    }
    found
}

/// Who has to let packets pass, if the chain drops what tasks send out or the answers.
fn drops(rules: &Ruleset, base: &Base<'_>, pool: IpNet, outside: Option<&str>) -> Option<By> {
    // The task's link is one of those that nobody else names so.
    let (task, link) = (pool.hosts().next(), Some("msh00000000"));
    let far = Some(if pool.addr().is_ipv4() { FAR } else { FAR6 });
    let (port, protocol) = (None, "tcp");
    let out =
        Packet { protocol, port, source: task, destination: far, from: link, to: outside, answer: false };
    let back =
        Packet { protocol, port, source: far, destination: task, from: outside, to: link, answer: true };
    let closing = [out, back].into_iter().find(|packet| rules.drops(base, packet))?;
    let by_hand = matches!(rules.fate(base, &closing), Fate::Drops { itself: true, .. });
    let nft = || By::Nft(base.family.to_owned(), base.table.to_owned(), base.name.to_owned());
    Some(match base.keeper {
        Some(Keeper::Ufw) if by_hand => By::Iptables(base.name.to_owned()),
        Some(keeper) => By::Keeper(keeper),
        None if base.name != "FORWARD" || base.table != "filter" => nft(),
        None if rules.has_beside(base, "DOCKER-USER") => By::Iptables("DOCKER-USER".to_owned()),
        None => By::Iptables(base.name.to_owned()),
    })
}

fn family_of(pool: IpNet) -> &'static str {
    if pool.addr().is_ipv4() { "ip" } else { "ip6" }
}

/// The interface of the default route, in either table of /proc/net (proc(5)).
fn default_link(routes: &str) -> Option<&str> {
    routes.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [link, "00000000", _, _, _, _, _, "00000000", ..] => Some(link),
            [to, "00", .., link] if to.len() == 32 && to.bytes().all(|c| c == b'0') && link != "lo" => {
                Some(link)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::iptables::parse;

    const POOL: &str = "169.254.64.0/18";

    fn found(objects: Vec<Value>) -> Vec<String> {
        let pools = [POOL.parse().unwrap()];
        closed(&Ruleset::of(objects), &pools, "meshd", |_| Some("eth0".to_owned()))
            .iter()
            .map(Closed::to_string)
            .collect()
    }

    fn table(name: &str, policy: &str, rules: &[Value]) -> Vec<Value> {
        let chain = json!({"chain": {"family": "inet", "table": name, "name": "fwd", "hook": "forward", "policy": policy}});
        let rules = rules
            .iter()
            .map(|expr| json!({"rule": {"family": "inet", "table": name, "chain": "fwd", "expr": expr}}));
        [chain].into_iter().chain(rules).collect()
    }

    fn when(left: Value, right: Value) -> Value {
        json!({"match": {"op": "==", "left": left, "right": right}})
    }

    #[test]
    fn a_chain_is_closed_until_both_directions_are_accepted() {
        let accept = json!({"accept": null});
        let pool = json!({"prefix": {"addr": "169.254.64.0", "len": 18}});
        let from = when(json!({"payload": {"protocol": "ip", "field": "saddr"}}), pool);
        let out = json!([from, accept]);
        let answers = when(json!({"ct": {"key": "state"}}), json!({"set": ["established", "related"]}));
        let back = json!([answers, accept]);
        let is_closed = |policy: &str, rules: &[Value]| !found(table("fw", policy, rules)).is_empty();
        assert!(!is_closed("accept", &[]));
        assert!(is_closed("drop", &[]));
        assert!(is_closed("drop", std::slice::from_ref(&out)));
        assert!(is_closed("drop", std::slice::from_ref(&back)));
        assert!(!is_closed("drop", &[out.clone(), back.clone()]));
        assert!(!is_closed("drop", &[json!([{"counter": {"packets": 0, "bytes": 0}}, accept])]));
        let rejects = json!([{"reject": {"type": "icmpx"}}]);
        assert!(is_closed("accept", std::slice::from_ref(&rejects)));
        assert!(!is_closed("accept", &[out.clone(), back, rejects]));
        let docker = when(json!({"meta": {"key": "oifname"}}), json!("docker0"));
        assert!(is_closed("drop", &[out, json!([docker, answers, accept])]));
        // Who knows what is in it.
        let kept = when(json!({"payload": {"protocol": "ip", "field": "saddr"}}), json!("@lan"));
        assert!(!is_closed("drop", &[json!([kept, accept])]));
    }

    #[test]
    fn the_cure_is_in_the_words_of_whoever_made_the_chain() {
        let nft = found(table("fw", "drop", &[]));
        assert!(nft[0].contains("(chain fwd of nftables table inet fw) drops"), "{nft:?}");
        assert!(
            nft[0].contains("`nft insert rule inet fw fwd ip saddr 169.254.64.0/18 accept` and `nft"),
            "{nft:?}"
        );
        let iptables =
            |tool, rules: &str| found(parse(&format!("*filter\n:FORWARD DROP [0:0]\n{rules}"), "ip", tool));
        for tool in [None, Some("iptables-legacy")] {
            let docker = iptables(
                tool,
                ":DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -i docker0 -j ACCEPT\n",
            );
            assert!(
                docker[0].contains("`iptables -I DOCKER-USER -s 169.254.64.0/18 -j ACCEPT`"),
                "{docker:?}"
            );
            let half = "-A FORWARD -s 169.254.64.0/18 -j ACCEPT\n";
            assert!(iptables(tool, half)[0].contains("`iptables -I FORWARD -s"));
            let answers = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
            assert!(iptables(tool, &format!("{half}{answers}")).is_empty());
        }
        let ufw = ":ufw-user-forward - [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -j ufw-user-forward\n";
        let told = iptables(None, ufw);
        assert!(told[0].ends_with("(ufw) drops forwarded packets, so tasks have no way out by ip; let them pass with `ufw route allow from 169.254.64.0/18`"), "{told:?}");
        assert!(
            iptables(None, &format!("{ufw}-A ufw-user-forward -s 169.254.64.0/18 -j ACCEPT\n")).is_empty()
        );
        assert!(iptables(None, &format!("-A FORWARD -j DROP\n{ufw}"))[0].contains("iptables -I FORWARD"));
        let six = format!("*filter\n:FORWARD DROP [0:0]\n{}", ufw.replace("ufw-", "ufw6-"));
        let pool6 = ["fd6d:6573:6864::/96".parse().unwrap()];
        let told = closed(&Ruleset::of(parse(&six, "ip6", None)), &pool6, "meshd", |_| None);
        assert!(told[0].to_string().ends_with("`ufw route allow from fd6d:6573:6864::/96`"), "{told:?}");
    }

    #[test]
    fn firewalld_is_told_of_both_families_at_once() {
        let pools = [POOL, "fd6d:6573:6864::/96"].map(|pool| pool.parse().unwrap());
        let rules = Ruleset::of(table("firewalld", "accept", &[json!([{"reject": {"type": "icmpx"}}])]));
        let told = closed(&rules, &pools, "meshd", |_| None);
        assert_eq!(told.len(), 1);
        let text = told[0].to_string();
        assert!(text.contains("(firewalld)") && text.contains("by ip and ip6; let them"), "{text}");
        assert!(text.ends_with(" and `firewall-cmd --reload`"), "{text}");
    }

    #[test]
    fn what_is_masqueraded_is_looked_at() {
        let mut objects = table("fw", "drop", &[]);
        let rules = Ruleset::of(objects.clone());
        assert!(rules.forwarding_closed("meshd").is_empty(), "there are no tasks");
        let pool = json!({"prefix": {"addr": "169.254.64.0", "len": 18}});
        let from = when(json!({"payload": {"protocol": "ip", "field": "saddr"}}), pool);
        objects.push(json!({"rule": {"family": "ip", "table": "meshd", "chain": "out", "expr": [from, {"masquerade": null}]}}));
        let closed = Ruleset::of(objects).forwarding_closed("meshd");
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].pools, [POOL.parse().unwrap()]);
    }

    #[test]
    fn packets_leave_by_the_default_route() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\nlo\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\neth1\t00000000\t014DA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_link(v4), Some("eth1"));
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n{zero} 00 {zero} 00 fd77 00000400 00000001 00000000 00000003     eth0\n"
        );
        assert_eq!(default_link(&v6), Some("eth0"));
        assert_eq!(default_link(""), None);
    }
}
