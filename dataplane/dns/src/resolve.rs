//! The decision what to answer: pure, over one snapshot.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

use crate::{NetworkNames, TaskView};

/// What a question comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses of the family asked for, in the view's order.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Ptr(String),
    /// The name is known, but has nothing of this type.
    NoData,
    /// There is no such name, and nobody else is to be asked.
    NxDomain,
    /// The node's own name servers are to be asked.
    Forward,
}

/// Answers a question of class IN.
///
/// Only names of the task's networks are seen, alone or as `<name>.<network>`; letters' case does not matter. What ends in
/// the name of one of them, or is an address in one, never leaves the node.
pub fn resolve(view: &TaskView, name: &Name, qtype: RecordType) -> Answer {
    let unknown = if view.forward { Answer::Forward } else { Answer::NxDomain };
    if let Some(address) = address_of(name) {
        return reverse(view, address, qtype).unwrap_or(unknown);
    }
    let Some(text) = lower_text(name) else { return unknown };

    let mut known = false;
    let mut ours = false;
    for network in &view.networks {
        let host = under(&text, network);
        ours |= host.is_some();
        for key in [Some(text.as_str()), host].into_iter().flatten() {
            let Some(all) = network.forward.get(key) else { continue };
            known = true;
            let wanted = of_type(all, qtype);
            if !wanted.is_empty() {
                return Answer::Addresses(wanted);
            }
        }
    }
    match (known, ours) {
        (true, _) => Answer::NoData,
        (false, true) => Answer::NxDomain,
        (false, false) => unknown,
    }
}

fn reverse(view: &TaskView, address: IpAddr, qtype: RecordType) -> Option<Answer> {
    for network in &view.networks {
        if let Some(name) = network.reverse.get(&address) {
            let asked = matches!(qtype, RecordType::PTR | RecordType::ANY);
            return Some(if asked { Answer::Ptr(name.clone()) } else { Answer::NoData });
        }
    }
    let mut subnets = view.networks.iter().flat_map(|network| &network.subnets);
    subnets.any(|subnet| subnet.contains(&address)).then_some(Answer::NxDomain)
}

fn of_type(all: &[IpAddr], qtype: RecordType) -> Vec<IpAddr> {
    let wanted = |address: &&IpAddr| match qtype {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    all.iter().filter(wanted).copied().collect()
}

/// The part before `.<network>`, if the name ends so.
fn under<'a>(text: &'a str, network: &NetworkNames) -> Option<&'a str> {
    let suffix = network.name.as_str();
    let split = text.len().checked_sub(suffix.len())?;
    // Names are ASCII, so a split inside a character cannot match.
    let (host, tail) = text.split_at_checked(split)?;
    if tail.eq_ignore_ascii_case(suffix) { host.strip_suffix('.').filter(|h| !h.is_empty()) } else { None }
}

/// The address that a complete name under `in-addr.arpa` or `ip6.arpa` stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let last = name.iter().next_back()?;
    if !last.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// The name in lower case without the final dot; `None` for the root and for what no name of ours can be.
fn lower_text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            if !byte.is_ascii_graphic() || byte == b'.' {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
