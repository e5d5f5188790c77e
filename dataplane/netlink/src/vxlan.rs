//! The flow-based VXLAN device: the general path beside the programs' own encapsulation.

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use crate::{
    Error, Netlink, Result,
    links::{creation_failed, data_of, info_of, kind_of},
    netlink::Request as _,
};

/// Above any uplink's: packets are sized by the tasks' MTU, and this device must not be the one that refuses.
const MTU: u32 = 65_000;

impl Netlink {
    /// Makes sure that a flow-based VXLAN device (`external nolearning`, UDP checksum 0 accepted and sent) of this name
    /// receives on `port` and is up; returns its number.
    ///
    /// A device of ours on another port is replaced; a foreign link of this name is an error.
    pub async fn ensure_vxlan(&self, name: &str, port: u16) -> Result<u32> {
        crate::links::check_name(name)?;
        let links = self.dump_links().await?;
        for link in &links {
            let info = info_of(link);
            if info.name != name && port_of(link) == Some(port) {
                return Err(Error::PortHeld { port, holder: Some(info.name) });
            }
        }
        if let Some(link) = links.iter().find(|link| info_of(link).name == name) {
            if kind_of(link) != Some(&InfoKind::Vxlan) || !is_external(link) {
                return Err(Error::NameTaken {
                    name: name.to_owned(),
                    namespace: "this node's namespace".to_owned(),
                });
            }
            let info = info_of(link);
            if port_of(link) == Some(port) {
                if !info.up {
                    self.start(info.ifindex, name, port).await?;
                }
                return Ok(info.ifindex);
            }
            self.delete_link(info.ifindex, name).await?;
        }
        self.create_vxlan(name, port).await
    }

    async fn create_vxlan(&self, name: &str, port: u16) -> Result<u32> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(name)
            .collect_metadata(true)
            .learning(false)
            .port(port)
            .udp_zero_csum6_tx(true)
            .udp_zero_csum6_rx(true)
            .mtu(MTU)
            .build();
        let made = self.handle.link().add(message).execute().answered().await;
        made.map_err(|e| creation_failed(name, "create VXLAN device", e))?;
        let link = self.find_link(name).await?.ok_or_else(|| Error::NoSuchLink(name.to_owned()))?;
        let ifindex = link.header.index;
        if let Err(error) = self.start(ifindex, name, port).await {
            if let Err(left) = self.delete_link(ifindex, name).await {
                tracing::warn!(link = name, error = %left, "roll back of VXLAN device failed");
            }
            return Err(error);
        }
        Ok(ifindex)
    }

    /// The socket is bound when the device is set up, so this is where a port that is taken shows.
    async fn start(&self, ifindex: u32, name: &str, port: u16) -> Result<()> {
        match self.up_without_ipv6_autoconf(ifindex, name).await {
            Err(Error::Request { source, .. }) if source.raw_os_error() == Some(libc::EADDRINUSE) => {
                Err(Error::PortHeld { port, holder: None })
            }
            other => other,
        }
    }
}

fn settings(link: &LinkMessage) -> &[InfoVxlan] {
    match data_of(link) {
        Some(InfoData::Vxlan(settings)) => settings,
        _ => &[],
    }
}

fn port_of(link: &LinkMessage) -> Option<u16> {
    settings(link).iter().find_map(|s| match s {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    })
}

fn is_external(link: &LinkMessage) -> bool {
    settings(link).iter().any(|s| matches!(s, InfoVxlan::CollectMetadata(true)))
}
