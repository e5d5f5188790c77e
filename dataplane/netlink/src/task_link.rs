//! The veth between a task's namespace and its node.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
};

use ipnet::IpNet;
use mesh_types::Mac;
use netlink_packet_route::{
    AddressFamily,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo as Info, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::RouteMessageBuilder;

use crate::{
    Error, NetNs, Netlink, Result,
    error::{is_errno, to_io},
    links::{check_name, info_of},
    netlink::Request as _,
    routes::interface_of,
    sysctl,
};

/// Of our default routes: more than the usual ones of a container's runtime (0, and 1024 for IPv6), which then neither meets
/// ours when it adds its own, nor loses to it.
const METRIC: u32 = 2048;

/// What [`Netlink::add_task_link`] makes.
#[derive(Debug)]
pub struct TaskLink<'a> {
    /// Name of the node's end.
    pub host_name: &'a str,
    /// Name of the task's end: `eth0`, `eth1`, ...
    pub task_name: &'a str,
    /// The task's namespace.
    pub ns: &'a NetNs,
    /// Ethernet address of the task's end.
    pub mac: Mac,
    /// Addresses of the task's end, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
    /// Where the default routes lead, one per family; left out where the namespace has a default route of that family
    /// already.
    pub default_gateways: Vec<IpAddr>,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// The node-local addresses that stand for the task outside the overlay, one per family: routed to the veth on the
    /// node's side.
    pub egress: Vec<IpAddr>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLinkInfo {
    /// Number of the node's end.
    pub ifindex: u32,
    /// Ethernet address of the node's end.
    pub host_mac: Mac,
    /// Number of the task's end, in the task's namespace.
    pub task_ifindex: u32,
}

impl Netlink {
    /// Makes the veth, with its far end directly in the task's namespace, and sets up both ends. Call it in the connection's
    /// namespace.
    ///
    /// IPv6 is turned on for the two ends, whatever the namespaces' defaults, if there are addresses of it.
    /// All or nothing: when a step fails, what was made is removed again before the error returns. If the kernel does not answer
    /// for long, all is tried once more.
    pub async fn add_task_link(&self, link: &TaskLink<'_>) -> Result<TaskLinkInfo> {
        check_name(link.host_name)?;
        check_name(link.task_name)?;
        once_more_if_late(link.host_name, || self.make_task_link(link)).await
    }

    async fn make_task_link(&self, link: &TaskLink<'_>) -> Result<TaskLinkInfo> {
        // Connections of its own: of many tasks at once, each asks and is answered by itself.
        let (host, task) = (Self::connect()?, Self::connect_in(link.ns)?);
        let made = match host.create_task_link(&task, link).await {
            Err(error) if !error.is_late() => return Err(error),
            Err(error) => Err(error),
            Ok(()) => host.set_up_task_link(&task, link).await,
        };
        // Addresses, routes and neighbours of both ends go with the link.
        if made.is_err()
            && let Err(left) = self.remove_link(link.host_name).await
        {
            tracing::warn!(link = link.host_name, error = %left, "roll back of task link failed");
        }
        made
    }

    async fn create_task_link(&self, task: &Netlink, link: &TaskLink<'_>) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(link.task_name.to_owned()),
            LinkAttribute::Address(link.mac.0.to_vec()),
            LinkAttribute::Mtu(link.mtu),
            LinkAttribute::NetNsFd(link.ns.as_fd().as_raw_fd()),
        ];
        let mut host = LinkMessage::default();
        host.attributes = vec![
            LinkAttribute::IfName(link.host_name.to_owned()),
            LinkAttribute::Mtu(link.mtu),
            LinkAttribute::LinkInfo(vec![
                Info::Kind(InfoKind::Veth),
                Info::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let Err(error) = self.handle.link().add(host).execute().answered().await else { return Ok(()) };
        if is_errno(&error, libc::EEXIST) {
            let taken = |name: &str, namespace: String| Error::NameTaken { name: name.to_owned(), namespace };
            if self.find_link(link.host_name).await?.is_some() {
                return Err(taken(link.host_name, "this node's namespace".to_owned()));
            }
            if task.find_link(link.task_name).await?.is_some() {
                return Err(taken(link.task_name, link.ns.to_string()));
            }
        }
        Err(Error::Request {
            operation: "create veth",
            target: format!("{} with {} in {}", link.host_name, link.task_name, link.ns),
            source: to_io(error),
        })
    }

    async fn set_up_task_link(&self, task: &Netlink, link: &TaskLink<'_>) -> Result<TaskLinkInfo> {
        let gone = |name: &str| Error::NoSuchLink(name.to_owned());
        let host = self.find_link(link.host_name).await?.ok_or_else(|| gone(link.host_name))?;
        let host = info_of(&host);
        let inner = task.find_link(link.task_name).await?.ok_or_else(|| gone(link.task_name))?;
        let inner = info_of(&inner);

        self.up_without_ipv6_autoconf(host.ifindex, link.host_name).await?;
        task.up_without_ipv6_autoconf(inner.ifindex, link.task_name).await?;
        if link.addresses.iter().any(|a| a.addr().is_ipv6()) {
            link.ns.run(|| sysctl::ready_for_ipv6(link.task_name))??;
        }
        let (addresses, gateways) = (&link.addresses, &link.default_gateways);
        match task.give_addresses(inner.ifindex, addresses, gateways).await {
            // Docker before 26 switches IPv6 off in a container's namespace while we are at it, once.
            Err(Error::Request { source, .. }) if source.raw_os_error() == Some(libc::EACCES) => {
                link.ns.run(|| sysctl::switch_ipv6_on(link.task_name))??;
                let lost: Vec<IpNet> = addresses.iter().filter(|a| a.addr().is_ipv6()).copied().collect();
                task.give_addresses(inner.ifindex, &lost, gateways).await?;
            }
            given => given?,
        }
        for &egress in &link.egress {
            if egress.is_ipv6() {
                sysctl::ready_for_ipv6(link.host_name)?;
            }
            let routed = self.route_address(egress, host.ifindex, None, false).await;
            routed.map_err(|e| Error::request("route", format!("{egress} by {}", link.host_name), e))?;
            self.set_neighbour(host.ifindex, egress, &link.mac.0).await?;
        }
        // Last, since it is the one step that removing the link would not undo.
        if let Some(loopback) = task.find_link("lo").await? {
            let up = task.up(loopback.header.index).await;
            up.map_err(|e| Error::request("set up link", format!("lo in {}", link.ns), e))?;
        }
        Ok(TaskLinkInfo {
            ifindex: host.ifindex,
            host_mac: host.mac.ok_or_else(|| gone(link.host_name))?,
            task_ifindex: inner.ifindex,
        })
    }

    /// Lets the default route of the gateway's family lead by `link` of the namespace, instead of by another one of
    /// `ours`. One by any other interface stays.
    pub async fn lead_default_route(ns: &NetNs, link: &str, gateway: IpAddr, ours: &[&str]) -> Result<()> {
        let task = Self::connect_in(ns)?;
        let Some(wanted) = task.find_link(link).await? else {
            return Err(Error::NoSuchLink(link.to_owned()));
        };
        let wanted = wanted.header.index;
        if let Some(route) = task.default_route(gateway.is_ipv6()).await? {
            let leads = interface_of(&route);
            if leads == Some(wanted) {
                return Ok(());
            }
            let mut own = Vec::new();
            for name in ours {
                own.extend(task.find_link(name).await?.map(|link| link.header.index));
            }
            if !leads.is_some_and(|by| own.contains(&by)) {
                return Ok(());
            }
        }
        task.add_default_route(wanted, gateway).await
    }

    /// Switches IPv6 on again for the far end of a task's link, and puts its address back, as [`Netlink::add_task_link`] made
    /// them. What is there stays.
    pub async fn put_back_ipv6(ns: &NetNs, link: &str, address: IpNet) -> Result<()> {
        let task = Self::connect_in(ns)?;
        let Some(found) = task.find_link(link).await? else {
            return Err(Error::NoSuchLink(link.to_owned()));
        };
        ns.run(|| sysctl::switch_ipv6_on(link).and_then(|()| sysctl::ready_for_ipv6(link)))??;
        task.give_addresses(found.header.index, &[address], &[]).await
    }

    /// Adds addresses, those of IPv6 that are not there yet, and a default route for each gateway where there is none of its
    /// family.
    async fn give_addresses(&self, ifindex: u32, addresses: &[IpNet], gateways: &[IpAddr]) -> Result<()> {
        for address in addresses {
            match self.add_address(ifindex, *address).await {
                Err(Error::Request { source, .. })
                    if address.addr().is_ipv6() && source.raw_os_error() == Some(libc::EEXIST) => {}
                added => added?,
            }
        }
        for &gateway in gateways {
            if !self.has_default_route(gateway.is_ipv6()).await? {
                self.add_default_route(ifindex, gateway).await?;
            }
        }
        Ok(())
    }

    async fn has_default_route(&self, ipv6: bool) -> Result<bool> {
        Ok(self.default_route(ipv6).await?.is_some())
    }

    async fn default_route(&self, ipv6: bool) -> Result<Option<RouteMessage>> {
        let query = if ipv6 {
            RouteMessageBuilder::<Ipv6Addr>::new().build()
        } else {
            RouteMessageBuilder::<Ipv4Addr>::new().build()
        };
        let routes: std::result::Result<Vec<RouteMessage>, _> =
            self.dump(|handle| handle.route().get(query).execute()).await;
        let routes = routes.map_err(|e| Error::request("list", "routes", e))?;
        let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        Ok(routes.into_iter().find(|route| {
            let header = &route.header;
            header.address_family == family
                && header.destination_prefix_length == 0
                && header.table == RouteHeader::RT_TABLE_MAIN
                && header.kind == RouteType::Unicast
                && !route.attributes.iter().any(|a| matches!(a, RouteAttribute::Destination(_)))
        }))
    }

    async fn add_default_route(&self, ifindex: u32, gateway: IpAddr) -> Result<()> {
        // On-link: the gateway is answered by our program, whether or not the subnet holds it.
        let route = match gateway {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
                .gateway(v4)
                .output_interface(ifindex)
                .priority(METRIC)
                .onlink()
                .build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
                .gateway(v6)
                .output_interface(ifindex)
                .priority(METRIC)
                .onlink()
                .build(),
        };
        let added = self.handle.route().add(route).replace().execute().answered().await;
        added.map_err(|e| Error::request("add the default route by", gateway.to_string(), e))
    }
}

/// Does `work`, and if the kernel leaves it without an answer, once again.
async fn once_more_if_late<T, F: Future<Output = Result<T>>>(link: &str, work: impl Fn() -> F) -> Result<T> {
    match work().await {
        Err(error) if error.is_late() => {
            tracing::warn!(link, %error, "once more");
            work().await
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io};

    use super::*;

    #[tokio::test]
    async fn only_what_was_not_answered_is_done_once_more() {
        for (kind, times) in [(io::ErrorKind::TimedOut, 2), (io::ErrorKind::PermissionDenied, 1)] {
            let begun = Cell::new(0);
            let done: Result<()> = once_more_if_late("msh1", || {
                begun.set(begun.get() + 1);
                let source = io::Error::new(kind, "");
                async { Err(Error::Request { operation: "create veth", target: "msh1".to_owned(), source }) }
            })
            .await;
            assert!(done.is_err());
            assert_eq!(begun.get(), times, "{kind}");
        }
    }
}
