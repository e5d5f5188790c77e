//! Which of its addresses a node advertises.

use std::net::IpAddr;

use anyhow::{Result, bail};
use mesh_agent::DataPathChoice;
use nix::ifaddrs::getifaddrs;

/// The addresses of this node's interfaces; loopback, link-local IPv6 and those of our own links left out.
fn candidates() -> Result<Vec<(String, IpAddr)>> {
    let mut found = Vec::new();
    for interface in getifaddrs()? {
        let name = interface.interface_name;
        let Some(address) = interface.address else { continue };
        let four = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let Some(address) = four.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()))) else {
            continue;
        };
        let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        if !address.is_loopback() && !link_local && !mesh_agent::is_own_link(&name) {
            found.push((name, address));
        }
    }
    Ok(found)
}

/// What `--advertise-addr` or `--data-path-addr` means: an address, or an interface that has just one of a family (IPv4
/// goes before IPv6).
fn resolve(flag: &str, given: &str) -> Result<IpAddr> {
    let found = candidates()?;
    if let Ok(address) = given.parse::<IpAddr>() {
        return match found.iter().any(|(_, a)| *a == address) {
            true => Ok(address),
            false => bail!("{flag} {address}: no interface of this node has this address ({})", list(&found)),
        };
    }
    let on: Vec<_> = found.iter().filter(|(name, _)| name == given).map(|(_, a)| *a).collect();
    match preferred(&on, Family::V4).as_slice() {
        [one] => Ok(*one),
        [] => bail!("{flag} {given}: neither an address nor an interface that has one ({})", list(&found)),
        _ => bail!("{flag} {given}: the interface has several addresses; name one ({})", list(&found)),
    }
}

/// As [`resolve`], with what was said: an interface is followed when its address changes.
pub fn choice(flag: &str, given: &str) -> Result<(IpAddr, DataPathChoice)> {
    let address = resolve(flag, given)?;
    let choice = match given.parse::<IpAddr>() {
        Ok(address) => DataPathChoice::Address(address),
        Err(_) => DataPathChoice::Interface(given.to_owned()),
    };
    Ok((address, choice))
}

/// The family that goes before the other one, where a node has addresses of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The only address there is, of that family if there is one of it.
pub fn only(flag: &str, first: Family) -> Result<IpAddr> {
    let found = candidates()?;
    let addresses: Vec<_> = found.iter().map(|(_, a)| *a).collect();
    match preferred(&addresses, first).as_slice() {
        [one] => Ok(*one),
        [] => bail!("this node has no address but loopback; give it one, then name it with {flag}"),
        _ => bail!("this node has several addresses; choose one with {flag} ({})", list(&found)),
    }
}

/// The addresses of that family, or those of the other one where there are no such.
fn preferred(addresses: &[IpAddr], first: Family) -> Vec<IpAddr> {
    let of_first = |address: &IpAddr| address.is_ipv4() == (first == Family::V4);
    let found: Vec<_> = addresses.iter().copied().filter(of_first).collect();
    if found.is_empty() { addresses.to_vec() } else { found }
}

fn list(found: &[(String, IpAddr)]) -> String {
    if found.is_empty() {
        return "there are none".to_owned();
    }
    let each: Vec<_> = found.iter().map(|(name, address)| format!("{address} on {name}")).collect();
    format!("there are {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_goes_before_the_other() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (four, six) = (ip("10.0.0.5"), ip("fd00::5"));
        assert_eq!(preferred(&[six, four], Family::V4), [four]);
        assert_eq!(preferred(&[four, six], Family::V6), [six]);
        assert_eq!(preferred(&[six], Family::V4), [six]);
        assert_eq!(preferred(&[four], Family::V6), [four]);
        assert_eq!(preferred(&[], Family::V6), [] as [IpAddr; 0]);
    }
}
