//! Looking at, changing and removing single links.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use mesh_types::Mac;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo as Info,
    LinkLayerType, LinkMessage,
};
use rtnetlink::{LinkUnspec, packet_route::link::InfoData};

use crate::{
    Error, NetNs, Netlink, Result,
    error::{is_errno, to_io},
    netlink::Request as _,
};

/// Most links that are removed together: others wait for the kernel's lock that long, and each program on a link has the
/// kernel wait once more.
const AT_ONCE: usize = 16;
/// Group of links that are being removed, or one of the next: large, so that people's are others.
const REMOVED_GROUP: u32 = 0x6d65_7368;

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its name.
    pub name: String,
    /// Its number in its namespace.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    /// What kind of frames it carries.
    pub frames: Frames,
}

/// What a link's packets begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// An Ethernet header.
    Ethernet,
    /// The node's own, to itself.
    Loopback,
    /// Anything else, such as the bare IP packets of tunnels.
    Other,
}

impl Netlink {
    /// The links whose names begin with `prefix`, by name.
    pub async fn links(&self, prefix: &str) -> Result<Vec<LinkInfo>> {
        let mut links: Vec<_> = self.dump_links().await?.iter().map(info_of).collect();
        links.retain(|link| link.name.starts_with(prefix));
        links.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(links)
    }

    /// The link of this name, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<LinkInfo>> {
        Ok(self.find_link(name).await?.as_ref().map(info_of))
    }

    /// Removes a link (a veth takes its peer along); one that is not there is fine.
    pub async fn remove_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.find_link(name).await? else { return Ok(()) };
        self.delete_link(link.header.index, name).await
    }

    /// Removes links; tells what became of each. Many take the kernel hardly longer than one.
    pub async fn remove_links(&self, names: &[&str]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(names.len());
        for names in names.chunks(AT_ONCE) {
            if names.len() > 1 {
                match self.remove_together(names).await {
                    Ok(()) => {
                        results.extend(names.iter().map(|_| Ok(())));
                        continue;
                    }
                    Err(error) => tracing::debug!(%error, "links are removed one by one"),
                }
            }
            for name in names {
                results.push(self.remove_link(name).await);
            }
        }
        results
    }

    /// Puts the links into a group that no other link is in, and removes that.
    async fn remove_together(&self, names: &[&str]) -> Result<()> {
        let links = self.dump_links().await?;
        let infos = links.iter().map(info_of);
        let there: Vec<_> = infos.filter(|link| names.contains(&link.name.as_str())).collect();
        let taken: BTreeSet<u32> = links.iter().filter_map(group_of).collect();
        let mut group = REMOVED_GROUP;
        while taken.contains(&group) {
            group = group.wrapping_add(1);
        }
        let group = LinkAttribute::Group(group);
        let mut any = false;
        for link in there {
            let message =
                LinkUnspec::new_with_index(link.ifindex).append_extra_attribute(group.clone()).build();
            match self.set_link(message).await {
                Ok(()) => any = true,
                // Its other end's namespace has ended.
                Err(e) if is_errno(&e, libc::ENODEV) => {}
                Err(e) => return Err(Error::request("set the group of link", link.name, e)),
            }
        }
        if !any {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.attributes.push(group);
        match self.handle.link().del_with_message(message).execute().answered().await {
            Err(e) if !is_errno(&e, libc::ENODEV) => Err(Error::request("remove links", names.join(", "), e)),
            _ => Ok(()),
        }
    }

    /// Sets the MTU of a link of this namespace.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        let link = self.find_link(name).await?.ok_or_else(|| Error::NoSuchLink(name.to_owned()))?;
        if info_of(&link).mtu == mtu {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.header.index).mtu(mtu).build();
        self.set_link(message).await.map_err(|e| Error::request("set the MTU of link", name, e))
    }

    /// Sets the MTU of a link inside a task's namespace.
    pub async fn set_mtu_in(ns: &NetNs, name: &str, mtu: u32) -> Result<()> {
        Self::connect_in(ns)?.set_mtu(name, mtu).await
    }

    pub(crate) async fn dump_links(&self) -> Result<Vec<LinkMessage>> {
        let links = self.dump(|handle| handle.link().get().execute()).await;
        links.map_err(|e| Error::request("list", "links", e))
    }

    pub(crate) async fn find_link(&self, name: &str) -> Result<Option<LinkMessage>> {
        check_name(name)?;
        match self.handle.link().get().match_name(name).execute().try_next().answered().await {
            Ok(link) => Ok(link),
            Err(e) if is_errno(&e, libc::ENODEV) => Ok(None),
            Err(e) => Err(Error::request("look up link", name, e)),
        }
    }

    pub(crate) async fn delete_link(&self, ifindex: u32, name: &str) -> Result<()> {
        match self.handle.link().del(ifindex).execute().answered().await {
            Err(e) if !is_errno(&e, libc::ENODEV) => Err(Error::request("remove link", name, e)),
            _ => Ok(()),
        }
    }

    /// Sets a link up without an automatic IPv6 address: no router solicitation, no DAD, no link-local noise.
    pub(crate) async fn up_without_ipv6_autoconf(&self, ifindex: u32, name: &str) -> Result<()> {
        // Two requests, since the kernel applies the flags of one before its address family settings.
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let quiet = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]))
            .build();
        match self.set_link(quiet).await {
            // A kernel without IPv6 has nothing to silence.
            Err(e) if !is_errno(&e, libc::EAFNOSUPPORT) => {
                return Err(Error::request("turn off IPv6 autoconfiguration of link", name, e));
            }
            _ => {}
        }
        self.up(ifindex).await.map_err(|e| Error::request("set up link", name, e))
    }

    pub(crate) async fn up(&self, ifindex: u32) -> std::result::Result<(), rtnetlink::Error> {
        self.set_link(LinkUnspec::new_with_index(ifindex).up().build()).await
    }

    async fn set_link(&self, message: LinkMessage) -> std::result::Result<(), rtnetlink::Error> {
        self.handle.link().set(message).execute().answered().await
    }
}

/// Refuses what the kernel would (`dev_valid_name`), by name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.chars().any(bad) {
        return Err(Error::InvalidName(name.to_owned()));
    }
    Ok(())
}

/// The parts of a link message that we use.
pub(crate) fn info_of(message: &LinkMessage) -> LinkInfo {
    let mut info = LinkInfo {
        name: String::new(),
        ifindex: message.header.index,
        mtu: 0,
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        frames: match message.header.link_layer_type {
            LinkLayerType::Ether => Frames::Ethernet,
            LinkLayerType::Loopback => Frames::Loopback,
            _ => Frames::Other,
        },
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::Address(octets) => info.mac = octets.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    info
}

/// The link's kind (`veth`, `vxlan`, ...), if it has one.
pub(crate) fn kind_of(message: &LinkMessage) -> Option<&InfoKind> {
    link_info(message).find_map(|info| match info {
        Info::Kind(kind) => Some(kind),
        _ => None,
    })
}

/// The kind's own settings.
pub(crate) fn data_of(message: &LinkMessage) -> Option<&InfoData> {
    link_info(message).find_map(|info| match info {
        Info::Data(data) => Some(data),
        _ => None,
    })
}

fn link_info(message: &LinkMessage) -> impl Iterator<Item = &Info> {
    message.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    })
}

fn group_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Group(group) => Some(*group),
        _ => None,
    })
}

/// The other end's number, for a veth in the same namespace.
pub(crate) fn peer_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(ifindex) => Some(*ifindex),
        _ => None,
    })
}

/// Turns "already there" into the error that names it, and anything else into `operation` failed.
pub(crate) fn creation_failed(name: &str, operation: &'static str, error: rtnetlink::Error) -> Error {
    if is_errno(&error, libc::EEXIST) {
        return Error::NameTaken { name: name.to_owned(), namespace: "this node's namespace".to_owned() };
    }
    Error::Request { operation, target: name.to_owned(), source: to_io(error) }
}
