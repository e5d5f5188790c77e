//! The node's own links: the uplink, the VXLAN device, the host link.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use mesh_lb::{EGRESS_POOL, HOST_SERVICE_ADDRESS, NodeSettings, VXLAN_OVERHEAD_V4};
use mesh_netlink::{HostLink, NetNs, Netlink, Uplink};
use mesh_types::{Mac, VXLAN_PORT};

use crate::AgentError;

/// Name of the flow-based VXLAN device.
pub const VXLAN_LINK: &str = "mesh-vxlan";
/// Names of the host link's two ends: the node's sockets are routed to the first.
pub const HOST_LINK: (&str, &str) = ("mesh-host", "mesh-peer");
/// What the veths of tasks begin with on the node's side.
pub const TASK_LINK_PREFIX: &str = "msh";

/// Whether this is the name of a task's veth: the prefix and eight hexadecimal digits.
pub fn is_task_link(name: &str) -> bool {
    let number = name.strip_prefix(TASK_LINK_PREFIX);
    number.is_some_and(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The nftables table for egress.
pub const NFT_TABLE: &str = "meshd";

/// Which way packets between nodes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathChoice {
    /// The fast path where the kernel has what it needs.
    #[default]
    Auto,
    /// The VXLAN device.
    General,
}

/// What is known of the node's links.
#[derive(Debug, Clone)]
pub struct Host {
    /// The link that holds the data path address.
    pub uplink: Uplink,
    /// What the data path must know.
    pub settings: NodeSettings,
    /// Addresses on which published ports are open.
    pub addresses: BTreeSet<IpAddr>,
}

impl Host {
    /// Makes the node's links, or finds them as they are, and reads what they look like now.
    pub async fn ensure(
        netlink: &Netlink,
        data_path_addr: IpAddr,
        path: PathChoice,
    ) -> Result<Self, AgentError> {
        let IpAddr::V4(vtep) = data_path_addr else { return Err(AgentError::NotIpv4(data_path_addr)) };
        let uplink = netlink.uplink_of(data_path_addr).await?;
        let inner_mtu = uplink.mtu.saturating_sub(VXLAN_OVERHEAD_V4);
        let vxlan_ifindex = netlink.ensure_vxlan(VXLAN_LINK, VXLAN_PORT).await?;
        let (host, peer) = HOST_LINK;
        let link = HostLink {
            name: host.into(),
            peer: peer.into(),
            service_addr: Ipv4Addr::from(HOST_SERVICE_ADDRESS),
            source: vtep,
            mtu: inner_mtu,
        };
        let (host_ifindex, _) = netlink.ensure_host_link(&link).await?;
        let host_info = netlink.link(host).await?;
        let settings = NodeSettings {
            vtep: data_path_addr,
            uplink_ifindex: uplink.ifindex,
            vxlan_ifindex,
            host_ifindex,
            host_mac: host_info.and_then(|l| l.mac).unwrap_or(Mac([0; 6])),
            inner_mtu,
            vxlan_port: VXLAN_PORT,
            netns_cookie: NetNs::current()?.cookie()?,
            fast_path: path == PathChoice::Auto,
        };
        let addresses = netlink.local_addresses().await?.into_iter().filter(|a| !a.is_loopback()).collect();
        Ok(Self { uplink, settings, addresses })
    }

    /// Lets packets of tasks out: forwarding, and masquerade of the addresses that stand for them.
    pub fn ensure_egress() -> Result<(), AgentError> {
        let (first, prefix) = EGRESS_POOL;
        let pool = Ipv4Net::new_assert(Ipv4Addr::from(first), prefix);
        mesh_netlink::enable_forwarding()?;
        mesh_netlink::ensure_masquerade(NFT_TABLE, pool)?;
        Ok(())
    }

    /// Removes the node's links and the masquerade; goes on past errors and returns them.
    pub async fn remove(netlink: &Netlink) -> Vec<mesh_netlink::Error> {
        let mut errors = Vec::new();
        for name in [VXLAN_LINK, HOST_LINK.0] {
            errors.extend(netlink.remove_link(name).await.err());
        }
        errors.extend(mesh_netlink::remove_masquerade(NFT_TABLE).err());
        errors
    }
}
