//! Routes: to single addresses of ours, and questions about the others'.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::RouteMessageBuilder;

use crate::{Error, Netlink, Result, error::is_errno, netlink::Request as _};

/// Addresses set aside for documentation (RFC 5737, RFC 3849): nothing but a default route leads there.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

impl Netlink {
    /// The interface by which packets for `destination` leave, from `source` if given; `None` where no route leads there.
    pub async fn route_to(&self, destination: IpAddr, source: Option<IpAddr>) -> Result<Option<u32>> {
        let request = match (destination, source) {
            (IpAddr::V4(to), Some(IpAddr::V4(from))) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, 32)
                .source_prefix(from, 32)
                .build(),
            (IpAddr::V6(to), Some(IpAddr::V6(from))) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, 128)
                .source_prefix(from, 128)
                .build(),
            (to, _) => host_route(to).build(),
        };
        match self.handle.route().get(request).execute().try_next().answered().await {
            Ok(route) => Ok(route.as_ref().and_then(interface_of)),
            Err(e)
                if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL]
                    .iter()
                    .any(|&n| is_errno(&e, n)) =>
            {
                Ok(None)
            }
            Err(e) => Err(Error::request("look up the route to", destination.to_string(), e)),
        }
    }

    /// The interfaces of the default routes, at most one per family.
    pub async fn default_interfaces(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for destination in ANYWHERE {
            let ifindex = self.route_to(destination, None).await?;
            found.extend(ifindex.filter(|ifindex| !found.contains(ifindex)));
        }
        Ok(found)
    }

    /// Whether the route to one address is as [`Netlink::route_address`] makes it.
    pub(crate) async fn is_routed(&self, address: IpAddr, ifindex: u32, source: IpAddr) -> Result<bool> {
        match self.handle.route().get(host_route(address).build()).execute().try_next().answered().await {
            Ok(route) => Ok(route.is_some_and(|route| {
                let from = RouteAttribute::PrefSource(source.into());
                interface_of(&route) == Some(ifindex) && route.attributes.contains(&from)
            })),
            Err(e) if [libc::ENETUNREACH, libc::EHOSTUNREACH].iter().any(|&n| is_errno(&e, n)) => Ok(false),
            Err(e) => Err(Error::request("look up the route to", address.to_string(), e)),
        }
    }

    /// Routes one address to a link, with `source` as the node's address on that way; replaces what was there.
    pub(crate) async fn route_address(
        &self,
        address: IpAddr,
        ifindex: u32,
        source: Option<IpAddr>,
        replace: bool,
    ) -> std::result::Result<(), rtnetlink::Error> {
        let mut route = host_route(address).output_interface(ifindex);
        // IPv6 routes have no scope.
        if address.is_ipv4() {
            route = route.scope(RouteScope::Link);
        }
        let mut message = route.build();
        message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        let request = self.handle.route().add(message);
        if replace {
            request.replace().execute().answered().await
        } else {
            request.execute().answered().await
        }
    }
}

/// A route to one address.
fn host_route(address: IpAddr) -> RouteMessageBuilder<IpAddr> {
    let mut route = RouteMessageBuilder::<IpAddr>::new();
    let message = route.get_mut();
    message.header.address_family = match address {
        IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(address.into()));
    route
}

pub(crate) fn interface_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}
