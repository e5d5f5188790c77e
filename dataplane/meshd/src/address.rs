//! Which of its addresses a node advertises.

use std::net::IpAddr;

use anyhow::{Result, bail};
use nix::ifaddrs::getifaddrs;

/// The IPv4 addresses of this node's interfaces, loopback and our own links left out.
fn candidates() -> Result<Vec<(String, IpAddr)>> {
    let mut found = Vec::new();
    for interface in getifaddrs()? {
        let Some(address) = interface.address.as_ref().and_then(|a| a.as_sockaddr_in()) else { continue };
        let address = IpAddr::V4(address.ip());
        if !address.is_loopback() {
            found.push((interface.interface_name, address));
        }
    }
    Ok(found)
}

/// What `--advertise-addr` or `--data-path-addr` means: an address, or an interface that has just one.
pub fn resolve(flag: &str, given: &str) -> Result<IpAddr> {
    let found = candidates()?;
    if let Ok(address) = given.parse::<IpAddr>() {
        return match found.iter().any(|(_, a)| *a == address) {
            true => Ok(address),
            false => bail!("{flag} {address}: no interface of this node has this address ({})", list(&found)),
        };
    }
    let on: Vec<_> = found.iter().filter(|(name, _)| name == given).map(|(_, a)| *a).collect();
    match on.as_slice() {
        [one] => Ok(*one),
        [] => {
            bail!("{flag} {given}: neither an IPv4 address nor an interface that has one ({})", list(&found))
        }
        _ => bail!("{flag} {given}: the interface has several addresses; name one ({})", list(&found)),
    }
}

/// The only address there is.
pub fn only(flag: &str) -> Result<IpAddr> {
    let found = candidates()?;
    match found.as_slice() {
        [(_, one)] => Ok(*one),
        [] => bail!("this node has no IPv4 address but loopback; give it one, then name it with {flag}"),
        _ => bail!("this node has several addresses; choose one with {flag} ({})", list(&found)),
    }
}

fn list(found: &[(String, IpAddr)]) -> String {
    if found.is_empty() {
        return "there are none".to_owned();
    }
    let each: Vec<_> = found.iter().map(|(name, address)| format!("{address} on {name}")).collect();
    format!("there are {}", each.join(", "))
}
