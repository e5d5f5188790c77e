//! Which link holds which address.

use std::{collections::BTreeSet, net::IpAddr};

use futures::TryStreamExt;
use mesh_types::Mac;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use crate::{Error, Netlink, Result, links::info_of};

/// The link that carries a node's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its Ethernet address; `None` on links without one (tunnels).
    pub mac: Option<Mac>,
}

impl Netlink {
    /// The link that holds `address`.
    pub async fn uplink_of(&self, address: IpAddr) -> Result<Uplink> {
        let holder = self.dump_addresses().await?.into_iter().find(|m| address_of(m) == Some(address));
        let ifindex = holder.ok_or(Error::AddressNotFound(address))?.header.index;
        let link = self.handle.link().get().match_index(ifindex).execute().try_next().await;
        let link = link
            .map_err(|e| Error::request("look up the link of", address.to_string(), e))?
            .ok_or(Error::AddressNotFound(address))?;
        let info = info_of(&link);
        Ok(Uplink { ifindex, name: info.name, mtu: info.mtu, mac: info.mac })
    }

    /// The addresses of this namespace, sorted, without loopback and IPv6 link-local ones.
    pub async fn local_addresses(&self) -> Result<Vec<IpAddr>> {
        let messages = self.dump_addresses().await?;
        let addresses: BTreeSet<_> = messages.iter().filter_map(address_of).filter(is_reachable).collect();
        Ok(addresses.into_iter().collect())
    }

    async fn dump_addresses(&self) -> Result<Vec<AddressMessage>> {
        let _dump = self.dump().await;
        let addresses = self.handle.address().get().execute().try_collect().await;
        addresses.map_err(|e| Error::request("list", "addresses", e))
    }
}

/// The node's own address in a message: IFA_LOCAL, or IFA_ADDRESS where that is absent (IPv6).
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}

fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}
