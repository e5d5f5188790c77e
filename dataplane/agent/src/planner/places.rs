//! Where on this node a published port is open.

use std::net::IpAddr;

use mesh_lb::PublishedOn;
use mesh_types::{InterfaceName, PortConfig, PublishAt, ServiceId};

use super::{Facts, Family};

/// The places at which `port` of `service` is open for packets of `family`; none if it is not open here.
pub(super) fn places(
    facts: &Facts,
    service: ServiceId,
    port: &PortConfig,
    family: Family,
) -> Vec<PublishedOn> {
    match (port.at, family) {
        (PublishAt::Any, Family::V4) => vec![PublishedOn::AnyV4],
        (PublishAt::Any, Family::V6) => vec![PublishedOn::AnyV6],
        (PublishAt::Address(address), _) => {
            let own = address.is_loopback() || facts.host_addresses().contains_key(&address);
            let here = own && Family::of(address) == family;
            here.then_some(PublishedOn::Address(address)).into_iter().collect()
        }
        (PublishAt::Interface(interface), _) => {
            let addresses = interface_addresses(facts, interface).filter(|a| Family::of(*a) == family);
            // Who names the address itself means it more than who names the interface that happens to have it.
            let free = addresses.filter(|a| facts.publisher_at(*a, port).is_none_or(|by| by == service));
            free.map(PublishedOn::Address).collect()
        }
    }
}

/// The addresses of this node's interface of that name.
pub(super) fn interface_addresses(
    facts: &Facts,
    interface: InterfaceName,
) -> impl Iterator<Item = IpAddr> + '_ {
    let on = move |name: &String| name.as_str() == interface.as_str();
    facts.host_addresses().iter().filter(move |(_, name)| on(name)).map(|(address, _)| *address)
}
