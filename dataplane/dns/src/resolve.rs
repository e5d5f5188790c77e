//! The decision what to answer: pure, over one snapshot, and without an allocation for addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::rr::{Name, RecordType};

use crate::{Addresses, NetworkNames, TaskView};

mod arpa;
mod srv;

use arpa::Reverse;
pub use arpa::reverse_name;
pub use srv::Place;
use srv::Srv;

/// What a question comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Addresses of the family asked for, in the view's order; at least one.
    Addresses(&'a [IpAddr]),
    /// The name of an address.
    Ptr(&'a str),
    /// Where a service is offered.
    Services(Vec<Place<'a>>),
    /// The name is known, but has nothing of this type.
    NoData,
    /// There is no such name, and nobody else is to be asked.
    NxDomain,
    /// The name servers outside are to be asked.
    Forward,
}

/// Why a question comes to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why<'a> {
    /// A name of this network.
    NameOf(&'a NetworkNames),
    /// An address on this network that has a name.
    AddressOn(&'a NetworkNames),
    /// An SRV name of a service on this network.
    PortOn(&'a NetworkNames),
    /// It ends in this network's name, or is below one of its names, which are nobody else's affair.
    Below(&'a NetworkNames),
    /// An address in this network's subnets that has no name.
    SubnetOf(&'a NetworkNames),
    /// A name or an address that means something within one host only.
    Local,
    /// Nobody knows the name here, and all networks of the task are internal.
    Internal,
    /// Nobody knows the name here, and the task's `ndots` wants a search domain for it.
    SingleLabel,
    /// Nobody knows the name here.
    Outside,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NameOf(network) => write!(f, "a name on network {}", network.name),
            Why::AddressOn(network) => write!(f, "an address on network {}", network.name),
            Why::PortOn(network) => write!(f, "a port of a service on network {}", network.name),
            Why::Below(network) => {
                write!(f, "network {} has no such name, and nobody else is asked for its names", network.name)
            }
            Why::SubnetOf(network) => {
                write!(
                    f,
                    "no name on network {} has this address, and nobody else is asked for its addresses",
                    network.name
                )
            }
            Why::Local => f.write_str("means the host that asks; nobody else is asked"),
            Why::Internal => {
                f.write_str("not known here; not asked outside, since all networks of the task are internal")
            }
            Why::SingleLabel => f.write_str(
                "not known here; not asked outside, since the task's ndots wants a search domain for it",
            ),
            Why::Outside => f.write_str("not known here; asked outside"),
        }
    }
}

const LOCALHOST4: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST)];
const LOCALHOST6: &[IpAddr] = &[IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Answers a question of class IN for a name in lower case, without the final dot: see [`Text`].
///
/// Only names of the task's networks are seen, alone or as `<name>.<network>`. What ends in the name of one of them, is
/// below `_tcp` and the like of one of their names, or is an address in one, never leaves the node; nor does what means
/// something within one host only (RFC 6761, section 6.3; RFC 6303).
pub fn resolve<'a>(view: &'a TaskView, name: &str, qtype: RecordType) -> (Answer<'a>, Why<'a>) {
    if name == "localhost" || name.ends_with(".localhost") {
        let answer = match qtype {
            RecordType::A | RecordType::ANY => Answer::Addresses(LOCALHOST4),
            RecordType::AAAA => Answer::Addresses(LOCALHOST6),
            _ => Answer::NoData,
        };
        return (answer, Why::Local);
    }
    if name.ends_with(".arpa") {
        match arpa::reverse(name) {
            Reverse::Address(address) => return reverse(view, address, qtype),
            Reverse::Part => return outside(view, name, qtype),
            Reverse::No => {}
        }
    }
    let (mut known, mut ours) = (None, None);
    for network in &view.networks {
        if name.eq_ignore_ascii_case(network.name.as_str()) {
            // Names are below it.
            known = known.or(Some(network));
        }
        let host = under(name, network);
        if host.is_some() {
            ours = ours.or(Some(network));
        }
        for key in [Some(name), host].into_iter().flatten() {
            if let Some(all) = network.forward.get_by(key) {
                known = known.or(Some(network));
                let wanted = of_type(all, qtype);
                if !wanted.is_empty() {
                    return (Answer::Addresses(wanted), Why::NameOf(network));
                }
            } else if key.starts_with('_') {
                match srv::find(network, key) {
                    Srv::Other => {}
                    Srv::Unknown => ours = ours.or(Some(network)),
                    Srv::Between => known = known.or(Some(network)),
                    Srv::Places(places) => {
                        let asked = matches!(qtype, RecordType::SRV | RecordType::ANY) && !places.is_empty();
                        let answer = if asked { Answer::Services(places) } else { Answer::NoData };
                        return (answer, Why::PortOn(network));
                    }
                }
            }
        }
    }
    match (known, ours) {
        (Some(network), _) => (Answer::NoData, Why::NameOf(network)),
        (None, Some(network)) => (Answer::NxDomain, Why::Below(network)),
        (None, None) => outside(view, name, qtype),
    }
}

/// A name that is not known here.
pub(crate) fn outside<'a>(view: &TaskView, name: &str, qtype: RecordType) -> (Answer<'a>, Why<'a>) {
    let host =
        || matches!(qtype, RecordType::A | RecordType::AAAA) && !name.is_empty() && !name.contains('.');
    if !view.forward {
        (Answer::NxDomain, Why::Internal)
    } else if view.keep_single_labels && host() {
        (Answer::NxDomain, Why::SingleLabel)
    } else {
        (Answer::Forward, Why::Outside)
    }
}

fn reverse(view: &TaskView, address: IpAddr, qtype: RecordType) -> (Answer<'_>, Why<'_>) {
    for network in &view.networks {
        if let Some(name) = network.reverse.get(&address) {
            let asked = matches!(qtype, RecordType::PTR | RecordType::ANY);
            return (if asked { Answer::Ptr(name) } else { Answer::NoData }, Why::AddressOn(network));
        }
    }
    let inside =
        |network: &&std::sync::Arc<NetworkNames>| network.subnets.iter().any(|s| s.contains(&address));
    if let Some(network) = view.networks.iter().find(inside) {
        return (Answer::NxDomain, Why::SubnetOf(network));
    }
    if arpa::is_local(address) {
        let named = address.is_loopback() && matches!(qtype, RecordType::PTR | RecordType::ANY);
        return (if named { Answer::Ptr("localhost") } else { Answer::NxDomain }, Why::Local);
    }
    // The name of a whole address has more labels than one.
    outside(view, ".", qtype)
}

fn of_type(all: &Addresses, qtype: RecordType) -> &[IpAddr] {
    match qtype {
        RecordType::A => all.v4(),
        RecordType::AAAA => all.v6(),
        RecordType::ANY => all.all(),
        _ => &[],
    }
}

/// The part before `.<network>`, if the name ends so.
fn under<'a>(text: &'a str, network: &NetworkNames) -> Option<&'a str> {
    let suffix = network.name.as_str();
    let split = text.len().checked_sub(suffix.len())?;
    // Names are ASCII, so a split inside a character cannot match.
    let (host, tail) = text.split_at_checked(split)?;
    if tail.eq_ignore_ascii_case(suffix) { host.strip_suffix('.').filter(|h| !h.is_empty()) } else { None }
}

/// A name as [`resolve`] wants it, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

/// What a name of 255 octets on the wire takes as text (RFC 1035, section 3.1).
const LONGEST: usize = 254;

impl Text {
    /// Joins labels, in lower case. `None` when one holds what no name of ours can have, and when they are too long.
    pub fn new<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut text = Self { bytes: [0; LONGEST], length: 0 };
        for label in labels {
            if text.length > 0 {
                text.push(b'.')?;
            }
            for &byte in label {
                if !byte.is_ascii_graphic() || byte == b'.' {
                    return None;
                }
                text.push(byte.to_ascii_lowercase())?;
            }
        }
        Some(text)
    }

    /// The labels of `name`.
    pub fn of_name(name: &Name) -> Option<Self> {
        Self::new(name.iter())
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    /// The text; empty for the root.
    pub fn as_str(&self) -> &str {
        // All of it is ASCII.
        self.bytes.get(..self.length).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
