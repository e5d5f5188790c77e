//! Addresses as numbers, and the search that all pools share.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// The number of an address within its family.
pub(crate) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address with this number in the family of `like`; numbers beyond IPv4 keep their low 32 bits.
pub(crate) fn address_of(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((number & u128::from(u32::MAX)) as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// The numbers of `range` in turn, starting behind `last`, each once.
pub(crate) fn in_turn(range: RangeInclusive<u128>, last: Option<u128>) -> impl Iterator<Item = u128> {
    let (first, end) = range.into_inner();
    let start = match last {
        Some(last) if (first..end).contains(&last) => last + 1,
        _ => first,
    };
    (start..=end).chain(first..start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_once_in_turn() {
        let turn = |last| in_turn(3..=6, last).collect::<Vec<_>>();
        assert_eq!(turn(None), [3, 4, 5, 6]);
        assert_eq!(turn(Some(4)), [5, 6, 3, 4]);
        assert_eq!(turn(Some(6)), [3, 4, 5, 6]);
        assert_eq!(turn(Some(99)), [3, 4, 5, 6]);
        assert_eq!(in_turn(u128::MAX..=u128::MAX, Some(u128::MAX)).count(), 1);
    }
}
