//! What the flags of `init` and `join` mean, and what stands in for those that are not given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use mesh_agent::DataPathChoice;
use mesh_types::{MANAGER_PORT, Name};

use crate::address::{self, Family};

/// What a flag says, or the only address there is; of that family, if the node has both.
pub fn advertise(flag: &str, given: &str, first: Family) -> Result<(IpAddr, DataPathChoice)> {
    if given.is_empty() {
        return address::only(flag, first).map(|only| (only, DataPathChoice::Address(only)));
    }
    address::choice(flag, given)
}

/// What `--data-path-addr` means, or else what `--advertise-addr` does.
pub fn data_path(given: &str, advertised: &str, advertise_addr: IpAddr) -> Result<(IpAddr, DataPathChoice)> {
    match (given, advertised) {
        ("", "") => Ok((advertise_addr, DataPathChoice::Address(advertise_addr))),
        ("", advertised) => address::choice("--advertise-addr", advertised),
        (given, _) => address::choice("--data-path-addr", given),
    }
}

/// The name given, or the host's.
pub fn node_name(given: &str) -> Result<Name> {
    if !given.is_empty() {
        return Ok(Name::new(given)?);
    }
    let host = nix::unistd::gethostname().context("the host's name")?;
    let host = host.to_string_lossy();
    Name::new(host.as_ref())
        .with_context(|| format!("the host's name {host:?} does not do; give another with --name"))
}

/// Stands for every address of the family.
pub fn any_of(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// What `--listen-addr` means, or else the usual port on every address of the family.
pub(super) fn listen_address(given: &str, advertise: IpAddr) -> Result<SocketAddr> {
    if given.is_empty() {
        return Ok((any_of(advertise), MANAGER_PORT).into());
    }
    let parsed = given
        .parse::<SocketAddr>()
        .or_else(|e| given.parse::<IpAddr>().map(|a| (a, MANAGER_PORT).into()).map_err(|_| e));
    let listen = parsed.with_context(|| format!("--listen-addr {given}: give ADDRESS:PORT"))?;
    anyhow::ensure!(listen.port() != 0, "--listen-addr {given}: give a port, other nodes have to know it");
    Ok(listen)
}
