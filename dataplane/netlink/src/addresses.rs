//! Which link holds which address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};

use crate::{
    Error, LinkInfo, NetNs, Netlink, Result, error::is_errno, links::info_of, netlink::Request as _,
};

/// A link and the node's addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The link.
    pub link: LinkInfo,
    /// Sorted; without loopback, link-local IPv6 and those that duplicate address detection refused.
    pub addresses: Vec<IpAddr>,
}

impl Netlink {
    /// The links of this namespace with their addresses, by number.
    pub async fn interfaces(&self) -> Result<Vec<Interface>> {
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for message in self.dump_addresses().await? {
            if let Some(address) = address_of(&message).filter(is_reachable) {
                addresses.entry(message.header.index).or_default().insert(address);
            }
        }
        let mut links: Vec<_> = self.dump_links().await?.iter().map(info_of).collect();
        links.sort_by_key(|link| link.ifindex);
        let with = |link: LinkInfo| Interface {
            addresses: addresses.remove(&link.ifindex).into_iter().flatten().collect(),
            link,
        };
        Ok(links.into_iter().map(with).collect())
    }

    /// Lets a link hold just these addresses, each for itself alone.
    pub(crate) async fn hold_addresses(&self, ifindex: u32, wanted: &[IpAddr]) -> Result<()> {
        let mut missing = wanted.to_vec();
        for message in self.dump_addresses().await?.into_iter().filter(|m| m.header.index == ifindex) {
            let Some(address) = address_of(&message) else { continue };
            if wanted.contains(&address) {
                missing.retain(|a| *a != address);
                continue;
            }
            match self.handle.address().del(message).execute().answered().await {
                Err(e) if !is_errno(&e, libc::EADDRNOTAVAIL) => {
                    return Err(Error::request("remove address", address.to_string(), e));
                }
                _ => {}
            }
        }
        for address in missing {
            self.add_address(ifindex, ipnet::IpNet::from(address)).await?;
        }
        Ok(())
    }

    /// Adds an address that is known to be nobody else's.
    pub(crate) async fn add_address(&self, ifindex: u32, address: ipnet::IpNet) -> Result<()> {
        let mut request = self.handle.address().add(ifindex, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            // Waiting a second for duplicate address detection would only delay.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().answered().await.map_err(|e| Error::request("add address", address.to_string(), e))
    }

    /// Has the kernel take an address from a link of a task's namespace when `lifetime` is over (whole seconds, rounded
    /// down, but at least one), or never. The address must be there; without the link there is nothing to do.
    pub async fn set_lifetime_in(
        ns: &NetNs,
        link: &str,
        address: ipnet::IpNet,
        lifetime: Option<Duration>,
    ) -> Result<()> {
        let netlink = Self::connect_in(ns)?;
        let Some(found) = netlink.find_link(link).await? else { return Ok(()) };
        let for_ever = u32::MAX;
        let seconds = lifetime.map_or(for_ever, |l| u32::try_from(l.as_secs()).unwrap_or(for_ever).max(1));
        let mut info = CacheInfo::default();
        (info.ifa_valid, info.ifa_preferred) = (seconds, seconds);
        let request = netlink.handle.address().add(found.header.index, address.addr(), address.prefix_len());
        let mut request = request.replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(info));
        if address.addr().is_ipv6() {
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request
            .execute()
            .answered()
            .await
            .map_err(|e| Error::request("limit address", address.to_string(), e))
    }

    /// The addresses of this namespace, sorted, without loopback and IPv6 link-local ones, each with its link's number.
    pub(crate) async fn local_addresses(&self) -> Result<Vec<(IpAddr, u32)>> {
        let messages = self.dump_addresses().await?;
        let held =
            messages.iter().filter_map(|m| Some((address_of(m).filter(is_reachable)?, m.header.index)));
        let addresses: BTreeSet<_> = held.collect();
        Ok(addresses.into_iter().collect())
    }

    async fn dump_addresses(&self) -> Result<Vec<AddressMessage>> {
        let addresses = self.dump(|handle| handle.address().get().execute()).await;
        addresses.map_err(|e| Error::request("list", "addresses", e))
    }
}

/// The node's own address in a message: IFA_LOCAL, or IFA_ADDRESS where that is absent (IPv6); none while it cannot be
/// used because another host has it.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => found = Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed) => return None,
            _ => {}
        }
    }
    found.or(address)
}

fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}
