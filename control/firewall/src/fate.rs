//! Whether a chain's rules drop a packet. Only what surely does is told: a rule with a condition that is not understood here may
//! hold, and may not.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::{Base, Ruleset};

/// How far chains that jump to each other are followed.
const DEPTH: usize = 16;

/// A packet of a flow, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'a str,
    /// The port that it goes to.
    pub port: Option<u16>,
    /// Where it comes from.
    pub source: Option<IpAddr>,
    /// Where it goes to.
    pub destination: Option<IpAddr>,
    /// The interface that it comes by.
    pub from: Option<&'a str>,
    /// The interface that it leaves by.
    pub to: Option<&'a str>,
    /// Whether it answers one that was let pass; else it is the first of its flow.
    pub answer: bool,
}

impl<'a> Packet<'a> {
    /// The first of a flow to a port, from anywhere.
    pub fn to_port(protocol: &'a str, port: u16) -> Self {
        let port = Some(port);
        Self { protocol, port, source: None, destination: None, from: None, to: None, answer: false }
    }

    /// `ip` or `ip6`, if that is known.
    fn family(&self) -> Option<&'static str> {
        let address = self.source.or(self.destination)?;
        Some(if address.is_ipv4() { "ip" } else { "ip6" })
    }
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A rule accepts it, or might.
    Passes,
    /// A rule drops it.
    Drops {
        /// Whether a rule on the way there names its port.
        by_port: bool,
        /// Whether it is one of the base chain itself, not of one that it jumps to.
        itself: bool,
    },
    /// The chain's end is reached, or may be, and its policy decides.
    Falls,
}

/// What the rules of a base chain do with the packet.
pub fn of(rules: &Ruleset, base: &Base<'_>, packet: &Packet<'_>) -> Fate {
    let walk = Walk { rules, base, packet };
    let ends = walk.chain(base.name, false, DEPTH);
    match ends {
        Ends { passes: true, .. } => Fate::Passes,
        Ends { drops: true, falls: false, .. } => {
            Fate::Drops { by_port: !ends.drops_otherwise, itself: ends.itself }
        }
        _ => Fate::Falls,
    }
}

/// What may become of the packet in a chain.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    passes: bool,
    falls: bool,
    drops: bool,
    /// By a rule that does not name its port, nor does one on the way there.
    drops_otherwise: bool,
    /// By a rule of the chain itself.
    itself: bool,
}

impl Ends {
    const PASSES: Self =
        Self { passes: true, falls: false, drops: false, drops_otherwise: false, itself: false };
    /// What cannot be said.
    const ANY: Self = Self { passes: true, falls: true, drops: true, drops_otherwise: true, itself: true };

    fn add(&mut self, other: Self) {
        self.passes |= other.passes;
        self.falls |= other.falls;
        self.drops |= other.drops;
        self.drops_otherwise |= other.drops_otherwise;
        self.itself |= other.itself;
    }
}

struct Walk<'a> {
    rules: &'a Ruleset,
    base: &'a Base<'a>,
    packet: &'a Packet<'a>,
}

impl Walk<'_> {
    /// `named`: whether a rule on the way here names the port.
    fn chain(&self, name: &str, named: bool, depth: usize) -> Ends {
        let mut ends = Ends::default();
        for rule in self.rules.rules(self.base, name) {
            let parts = rule.as_array().map_or(&[][..], Vec::as_slice);
            let holds: Option<Vec<Certain>> = parts.iter().map(|part| self.holds(part)).collect();
            let Some(holds) = holds else { continue };
            let sure = holds.iter().all(|holds| *holds == Certain::Yes);
            let named =
                named || parts.iter().any(|part| part["match"]["left"]["payload"]["field"] == "dport");
            let (verdict, goes_on) = self.verdict(parts, named, depth);
            ends.add(verdict);
            if sure && !goes_on {
                return ends;
            }
        }
        Ends { falls: true, ..ends }
    }

    /// What a rule does whose conditions hold, and whether the next one may be reached then.
    fn verdict(&self, parts: &[Value], named: bool, depth: usize) -> (Ends, bool) {
        for part in parts {
            let has = |word: &str| part.get(word).is_some();
            let target = |word: &str| part[word]["target"].as_str();
            if has("accept") {
                return (Ends::PASSES, false);
            }
            if has("drop") || has("reject") {
                let ends = Ends { drops: true, drops_otherwise: !named, itself: true, ..Ends::default() };
                return (ends, false);
            }
            if has("return") {
                return (Ends { falls: true, ..Ends::default() }, false);
            }
            if has("vmap") || has("queue") {
                return (Ends { falls: false, ..Ends::ANY }, true);
            }
            if let Some(name) = target("jump").or(target("goto")) {
                let deeper = depth.checked_sub(1).map(|depth| self.chain(name, named, depth));
                let ends = Ends { itself: false, ..deeper.unwrap_or(Ends::ANY) };
                return match has("jump") {
                    true => (Ends { falls: false, ..ends }, ends.falls),
                    false => (ends, false),
                };
            }
        }
        (Ends::default(), true)
    }

    /// Whether a statement's condition holds for the packet; none if it does not. What is no condition holds.
    fn holds(&self, part: &Value) -> Option<Certain> {
        if ["xt", "limit", "quota", "ct count", "meter"].iter().any(|word| part.get(word).is_some()) {
            return Some(Certain::No);
        }
        let Some(condition) = part.get("match") else { return Some(Certain::Yes) };
        let is = match condition["op"].as_str() {
            Some("==" | "in") => true,
            Some("!=") => false,
            _ => return Some(Certain::No),
        };
        match self.value(&condition["left"], &condition["right"]) {
            Holds::Unknown => Some(Certain::No),
            Holds::Never => None,
            Holds::If(found) => (found == is).then_some(Certain::Yes),
        }
    }

    /// Whether what `left` names of the packet is, or is in, `right`.
    fn value(&self, left: &Value, right: &Value) -> Holds {
        let packet = self.packet;
        let way_in = self.base.is_way_in();
        if let Some(payload) = left.get("payload") {
            return self.payload(payload, right);
        }
        if let Some(key) = left["meta"]["key"].as_str() {
            return match key {
                "l4proto" => Holds::of(among(right, &|value| value.as_str() == Some(packet.protocol))),
                "nfproto" => {
                    let family = match self.base.family {
                        "inet" => packet.family(),
                        family => Some(family),
                    };
                    let name = family.map(|family| if family == "ip" { "ipv4" } else { "ipv6" });
                    name.map_or(Holds::Unknown, |name| Holds::of(among(right, &|value| value == name)))
                }
                "iifname" | "iif" => interface(right, packet.from),
                "oifname" | "oif" => interface(right, packet.to),
                _ => Holds::Unknown,
            };
        }
        match left["ct"]["key"].as_str() {
            Some("state") => {
                let state = if packet.answer { "established" } else { "new" };
                return Holds::of(among(right, &|value| value == state));
            }
            // Nobody translates what is looked at here.
            Some("status") if among(right, &|value| value != "dnat" && value != "snat") == Some(false) => {
                return Holds::If(false);
            }
            _ => {}
        }
        let fib = &left["fib"];
        let of = |word: &str| fib["flags"] == word || fib["flags"] == Value::from(vec![word]);
        if fib["result"] == "type" && (of("daddr") || of("saddr")) {
            let kind = if of("daddr") && way_in { "local" } else { "unicast" };
            return Holds::of(among(right, &|value| value == kind));
        }
        Holds::Unknown
    }

    fn payload(&self, payload: &Value, right: &Value) -> Holds {
        let packet = self.packet;
        let (protocol, field) = (payload["protocol"].as_str(), payload["field"].as_str());
        match (protocol, field) {
            (Some("ip" | "ip6"), Some("protocol" | "nexthdr")) => {
                Holds::of(among(right, &|value| value.as_str() == Some(packet.protocol)))
            }
            (Some(family @ ("ip" | "ip6")), Some(field)) => {
                if packet.family().is_some_and(|known| known != family) {
                    return Holds::Never;
                }
                let address = match field {
                    "saddr" => packet.source,
                    "daddr" => packet.destination,
                    _ => None,
                };
                address.map_or(Holds::Unknown, |address| Holds::of(within(right, address)))
            }
            // What is of another protocol is not in the packet.
            (Some(protocol), _) if protocol != packet.protocol && protocol != "th" => Holds::Never,
            (_, Some("dport")) => match packet.port {
                Some(port) => Holds::of(among(right, &|value| value.as_u64() == Some(port.into()))),
                None => Holds::Unknown,
            },
            _ => Holds::Unknown,
        }
    }
}

/// Whether a condition is known to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certain {
    Yes,
    No,
}

/// See [`Walk::value`].
enum Holds {
    If(bool),
    /// Neither for `==` nor for `!=`.
    Never,
    Unknown,
}

impl Holds {
    fn of(found: Option<bool>) -> Self {
        found.map_or(Self::Unknown, Self::If)
    }
}

fn interface(right: &Value, name: Option<&str>) -> Holds {
    match name {
        Some(name) => Holds::of(among(right, &|value| value.as_str().is_some_and(|rule| fits(rule, name)))),
        // No packet that is looked at here stays within the machine.
        None if right == "lo" => Holds::If(false),
        None => Holds::Unknown,
    }
}

/// Whether an interface has the name of a rule, whose end may be left open: nftables writes `eth*`, iptables `eth+`.
fn fits(name: &str, interface: &str) -> bool {
    match name.strip_suffix(['*', '+']) {
        Some(beginning) => interface.starts_with(beginning),
        None => name == interface,
    }
}

/// Whether a value, or one of a set or of a range of numbers, is what is sought; none for what is kept elsewhere.
fn among(right: &Value, sought: &dyn Fn(&Value) -> bool) -> Option<bool> {
    if let Some([low, high]) = right["range"].as_array().map(Vec::as_slice) {
        let (low, high) = (low.as_u64()?, high.as_u64()?);
        return Some((low..=high).any(|number| sought(&number.into())));
    }
    any(right, &|value| among(value, sought)).unwrap_or_else(|| Some(sought(right)))
}

/// Whether an address is the one of a rule, or within its prefix, range or set; none if the rule says it in another way.
fn within(right: &Value, address: IpAddr) -> Option<bool> {
    let parsed = |text: &str| {
        let net = text.parse::<IpNet>().ok();
        net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    };
    if let Some([low, high]) = right["range"].as_array().map(Vec::as_slice) {
        let end = |end: &Value| end.as_str()?.parse::<IpAddr>().ok();
        return Some(end(low)? <= address && address <= end(high)?);
    }
    if let Some(found) = any(right, &|value| within(value, address)) {
        return found;
    }
    let net = match right["prefix"].as_object() {
        Some(prefix) => parsed(&format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?))?,
        None => parsed(right.as_str()?)?,
    };
    Some(net.contains(&address))
}

/// Whether `holds` does of one value of a set; none of what is no set, and within that none where it is not known. Sets with a
/// name are not in the list of rules.
fn any(right: &Value, holds: &dyn Fn(&Value) -> Option<bool>) -> Option<Option<bool>> {
    if right.as_str().is_some_and(|text| text.starts_with('@')) {
        return Some(None);
    }
    let values = right["set"].as_array().or(right.as_array())?;
    let mut found = Some(false);
    for value in values {
        match holds(value) {
            Some(true) => return Some(Some(true)),
            Some(false) => {}
            None => found = None,
        }
    }
    Some(found)
}
