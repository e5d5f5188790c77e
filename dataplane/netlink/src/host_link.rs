//! The veth pair by which the node's own sockets reach published ports.

use std::net::IpAddr;

use netlink_packet_route::link::{InfoKind, LinkMessage};
use rtnetlink::LinkVeth;

use crate::{
    Error, Netlink, Result,
    links::{creation_failed, info_of, kind_of, peer_of},
    netlink::Request as _,
    sysctl,
};

/// What [`Netlink::ensure_host_link`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Name of the end that the node's sockets are routed to.
    pub name: String,
    /// Name of the other end.
    pub peer: String,
    /// The ways over it, one per family.
    pub ways: Vec<HostWay>,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

/// How the node's sockets of one family reach published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostWay {
    /// The address that published ports of the node itself are rewritten to; routed, held by no link.
    pub service: IpAddr,
    /// The node's address: the source of those connections.
    pub source: IpAddr,
    /// Whether the link itself holds `source`, as the node has no other address of the family.
    pub held: bool,
}

impl Netlink {
    /// Makes sure that the pair is there, up, and the ways to the service addresses; returns the numbers of both ends.
    ///
    /// The calling thread must be in the namespace of this connection (settings under /proc/sys follow the thread).
    pub async fn ensure_host_link(&self, link: &HostLink) -> Result<(u32, u32)> {
        let (host, peer) = match (self.find_link(&link.name).await?, self.find_link(&link.peer).await?) {
            (None, None) => self.create_pair(link).await?,
            (Some(host), Some(peer)) if are_a_pair(&host, &peer) => (host, peer),
            (Some(_), _) => return Err(taken(&link.name)),
            (None, Some(_)) => return Err(taken(&link.peer)),
        };
        let (host, peer) = (info_of(&host), info_of(&peer));
        for end in [&host, &peer] {
            self.set_mtu(&end.name, link.mtu).await?;
            if !end.up {
                self.up_without_ipv6_autoconf(end.ifindex, &end.name).await?;
            }
        }
        // Loose, since replies may come in while the route is being replaced; the other end forwards nothing, so that a
        // packet no program took cannot circle.
        sysctl::set(&format!("ipv4/conf/{}/rp_filter", link.name), "2")?;
        sysctl::set(&format!("ipv4/conf/{}/forwarding", link.peer), "0")?;
        if link.ways.iter().any(|way| way.service.is_ipv6()) {
            sysctl::ready_for_ipv6(&link.name)?;
        }
        let held: Vec<_> = link.ways.iter().filter(|way| way.held).map(|way| way.source).collect();
        self.hold_addresses(host.ifindex, &held).await?;
        let mac = peer.mac.ok_or_else(|| Error::NoSuchLink(link.peer.clone()))?;
        for way in &link.ways {
            // What is written again is told again to those who follow routes, this daemon for one.
            if self.is_routed(way.service, host.ifindex, way.source).await? {
                self.set_neighbour(host.ifindex, way.service, &mac.0).await?;
                continue;
            }
            let routed = self.route_address(way.service, host.ifindex, Some(way.source), true).await;
            routed.map_err(|e| {
                Error::request("route", format!("{} by {} from {}", way.service, link.name, way.source), e)
            })?;
            self.set_neighbour(host.ifindex, way.service, &mac.0).await?;
        }
        Ok((host.ifindex, peer.ifindex))
    }

    /// A neighbour entry that never expires and is never asked for.
    pub(crate) async fn set_neighbour(&self, ifindex: u32, address: IpAddr, mac: &[u8; 6]) -> Result<()> {
        let request = self.handle.neighbours().add(ifindex, address).link_layer_address(mac).replace();
        request
            .execute()
            .answered()
            .await
            .map_err(|e| Error::request("set the neighbour entry of", address.to_string(), e))
    }

    async fn create_pair(&self, link: &HostLink) -> Result<(LinkMessage, LinkMessage)> {
        let made =
            self.handle.link().add(LinkVeth::new(&link.name, &link.peer).build()).execute().answered().await;
        made.map_err(|e| creation_failed(&link.name, "create veth", e))?;
        let gone = |name: &String| Error::NoSuchLink(name.clone());
        let host = self.find_link(&link.name).await?.ok_or_else(|| gone(&link.name))?;
        let peer = self.find_link(&link.peer).await?.ok_or_else(|| gone(&link.peer))?;
        Ok((host, peer))
    }
}

fn are_a_pair(host: &LinkMessage, peer: &LinkMessage) -> bool {
    [host, peer].iter().all(|end| kind_of(end) == Some(&InfoKind::Veth))
        && peer_of(host) == Some(peer.header.index)
        && peer_of(peer) == Some(host.header.index)
}

fn taken(name: &str) -> Error {
    Error::NameTaken { name: name.to_owned(), namespace: "this node's namespace".to_owned() }
}
