//! Whether a chain's rules drop a packet. Only what surely does is told: a rule with a condition that is not understood here
//! drops nothing, and lets pass.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// How far chains that jump to each other are followed.
const DEPTH: usize = 16;

/// The first packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Where it goes to.
    pub port: u16,
    /// The interface that it leaves by and the address that it goes to, where those are known.
    pub way: Option<(&'static str, IpAddr)>,
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A rule accepts it, or might.
    Passes,
    /// A rule drops it; whether a rule on the way there names its port.
    Drops {
        /// See above.
        by_port: bool,
    },
    /// The chain's end is reached.
    Falls,
}

/// What the rules of the base chain `chain` do with the packet; `objects` are all that there are, as nftables lists them.
pub fn fate(objects: &[Value], chain: &Value, packet: Packet) -> Fate {
    let name = chain["name"].as_str().unwrap_or_default();
    walk(objects, chain, name, packet, DEPTH)
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
        let by_port = parts.iter().any(|part| part["match"]["left"]["payload"]["field"] == "dport");
        for part in parts {
            let target = ["jump", "goto"].iter().find_map(|word| part[*word]["target"].as_str());
            if part.get("accept").is_some() {
                return Fate::Passes;
            }
            if (part.get("drop").is_some() || part.get("reject").is_some()) && sure {
                return Fate::Drops { by_port };
            }
            if part.get("return").is_some() && sure {
                return Fate::Falls;
            }
            if let (Some(target), Some(deeper)) = (target, depth.checked_sub(1)) {
                match walk(objects, of, target, packet, deeper) {
                    Fate::Falls => {}
                    Fate::Drops { .. } if !sure => {}
                    Fate::Drops { by_port: deeper } => return Fate::Drops { by_port: by_port || deeper },
                    Fate::Passes => return Fate::Passes,
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
    if let Some((interface, to)) = packet.way {
        if key == "oifname" || key == "oif" {
            let named = |value: &Value| value.as_str().is_some_and(|name| fits(name, interface));
            return Some(holds(right, &named, 0) == is);
        }
        if payload["field"] == "daddr" {
            return Some(within(right, to)? == is);
        }
    }
    if (key == "iifname" || key == "oifname") && right == "lo" {
        return Some(!is);
    }
    if left["ct"]["key"] == "state" {
        return Some(holds(right, &|value| value.as_str() == Some("new"), 0) == is);
    }
    None
}

/// Whether an interface has the name of a rule, whose end may be left open: nftables writes `eth*`, iptables `eth+`.
fn fits(name: &str, interface: &str) -> bool {
    match name.strip_suffix(['*', '+']) {
        Some(beginning) => interface.starts_with(beginning),
        None => name == interface,
    }
}

/// Whether an address is the one of a rule, or within its prefix; none if the rule says it in another way.
fn within(right: &Value, address: IpAddr) -> Option<bool> {
    let text = match (right.as_str(), &right["prefix"]) {
        (Some(text), _) => text.to_owned(),
        (None, prefix) => format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?),
    };
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(net.contains(&address))
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
