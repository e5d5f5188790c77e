//! Names that stand for addresses (RFC 1035, section 3.5; RFC 3596, section 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a name under `in-addr.arpa` or `ip6.arpa` stands for, in lower case without the final dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reverse {
    /// No such name.
    No,
    /// A part of an address.
    Part,
    /// A whole address.
    Address(IpAddr),
}

pub(super) fn reverse(name: &str) -> Reverse {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        return v4(labels).map_or(Reverse::Part, |a| Reverse::Address(a.into()));
    }
    match name.strip_suffix(".ip6.arpa") {
        Some(labels) => v6(labels).map_or(Reverse::Part, |a| Reverse::Address(a.into())),
        None => Reverse::No,
    }
}

fn v4(labels: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut labels = labels.split('.');
    for octet in octets.iter_mut().rev() {
        let label = labels.next()?;
        // Not `+1`, nor `01`.
        let plain =
            label.bytes().all(|b| b.is_ascii_digit()) && (label.len() == 1 || !label.starts_with('0'));
        *octet = label.parse().ok().filter(|_| plain)?;
    }
    labels.next().is_none().then(|| octets.into())
}

fn v6(labels: &str) -> Option<Ipv6Addr> {
    let mut bits: u128 = 0;
    let mut count = 0;
    for label in labels.split('.') {
        let [digit] = label.as_bytes() else { return None };
        let value = char::from(*digit).to_digit(16)?;
        if count == 32 {
            return None;
        }
        bits |= u128::from(value) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| bits.into())
}

/// The name of an address, as `reverse` reads it.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// Whether an address means something within one host or link only, or nothing at all: names of such are not to be asked
/// for elsewhere (RFC 6303, section 4).
pub(super) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local() || a.is_broadcast() || a.octets()[0] == 0,
        // What stands for tasks and for the host within a node (mesh_types::Subnet keeps networks off it).
        IpAddr::V6(a) => {
            let within_node = matches!(a.segments(), [0xfd6d, 0x6573, 0x6863 | 0x6864, 0, ..]);
            a.is_loopback() || a.is_unspecified() || a.is_unicast_link_local() || within_node
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_and_nonsense() {
        for part in [
            "3.10.10.in-addr.arpa",
            "x.3.10.10.in-addr.arpa",
            "256.3.10.10.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
        ] {
            assert_eq!(reverse(part), Reverse::Part, "{part}");
        }
        assert_eq!(reverse("+1.3.10.10.in-addr.arpa"), Reverse::Part);
        assert_eq!(reverse("01.3.10.10.in-addr.arpa"), Reverse::Part);
        assert_eq!(reverse("a.b.ip6.arpa"), Reverse::Part);
        for other in ["arpa", "in-addr.arpa", "web", "1.2.3.4.in-addr.arpa.example"] {
            assert_eq!(reverse(other), Reverse::No, "{other}");
        }
    }

    #[test]
    fn local_addresses() {
        for local in ["127.0.0.11", "169.254.64.1", "0.0.0.0", "::1", "fe80::1", "fd6d:6573:6864::7"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "192.0.2.1", "fd6d:6573:6800::1", "2001:db8::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_and_as_others_have_it(bits: u128, v6: bool) {
            let address = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
            let name = reverse_name(address);
            prop_assert_eq!(reverse(&name), Reverse::Address(address));
            prop_assert_eq!(Name::from_ascii(format!("{name}.")).unwrap(), Name::from(address));
        }
    }
}
