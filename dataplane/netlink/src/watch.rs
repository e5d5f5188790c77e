//! Following links and addresses as they change.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage};
use rtnetlink::{MulticastGroup, sys::SocketAddr};

use crate::{Error, LinkInfo, Netlink, Result, links::info_of, netlink::Connection};

type Message = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// A change of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is there; told once for each link that was there before, too.
    Added(LinkInfo),
    /// Its name, MTU, Ethernet address or up flag changed.
    Changed(LinkInfo),
    /// It is gone; what was last known of it.
    Removed(LinkInfo),
}

/// The links of a namespace, as they come, change and go. Nothing is lost: after an overrun the links are listed again
/// and the differences told.
pub struct LinkEvents {
    netlink: Netlink,
    messages: UnboundedReceiver<Message>,
    known: BTreeMap<u32, LinkInfo>,
    pending: VecDeque<LinkEvent>,
    stale: bool,
    _connection: Connection,
}

/// The local addresses of a namespace and where they are, told anew whenever they change.
pub struct AddressEvents {
    netlink: Netlink,
    messages: UnboundedReceiver<Message>,
    last: Option<Vec<(IpAddr, u32)>>,
    stale: bool,
    _connection: Connection,
}

/// Tells that routes changed, not which.
pub struct RouteEvents {
    messages: UnboundedReceiver<Message>,
    _connection: Connection,
}

impl Netlink {
    /// Follows the links of the calling thread's namespace, which must be this connection's.
    pub fn watch_links(&self) -> Result<LinkEvents> {
        let (connection, messages) = subscribe(&[MulticastGroup::Link])?;
        Ok(LinkEvents {
            netlink: self.clone(),
            messages,
            known: BTreeMap::new(),
            pending: VecDeque::new(),
            stale: true,
            _connection: connection,
        })
    }

    /// Follows the local addresses of the calling thread's namespace, which must be this connection's.
    pub fn watch_addresses(&self) -> Result<AddressEvents> {
        let (connection, messages) = subscribe(&[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr])?;
        let netlink = self.clone();
        Ok(AddressEvents { netlink, messages, last: None, stale: true, _connection: connection })
    }

    /// Follows the routes of the calling thread's namespace.
    pub fn watch_routes(&self) -> Result<RouteEvents> {
        let (connection, messages) = subscribe(&[MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route])?;
        Ok(RouteEvents { messages, _connection: connection })
    }
}

impl RouteEvents {
    /// Returns after the next change; `None` when the connection is gone. Changes that came together are one.
    pub async fn next(&mut self) -> Option<()> {
        self.messages.next().await?;
        while self.messages.try_recv().is_ok() {}
        Some(())
    }
}

impl LinkEvents {
    /// The next change; `None` when the connection is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<LinkEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Ok(event));
            }
            if self.stale {
                match self.netlink.dump_links().await {
                    Ok(links) => {
                        let now = links.iter().map(info_of).map(|link| (link.ifindex, link)).collect();
                        self.pending.extend(differences(&self.known, &now));
                        self.known = now;
                        self.stale = false;
                    }
                    Err(error) => return Some(Err(error)),
                }
                continue;
            }
            // Bridges tell of their ports by the same messages in their own family.
            match self.messages.next().await?.0.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) if of_link(&message) => {
                    self.pending.extend(seen(&mut self.known, info_of(&message)));
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) if of_link(&message) => {
                    self.pending.extend(self.known.remove(&message.header.index).map(LinkEvent::Removed));
                }
                NetlinkPayload::Overrun(_) => self.stale = true,
                _ => {}
            }
        }
    }
}

impl AddressEvents {
    /// The sorted addresses with their links' numbers: at once the first time, then whenever they differ. `None` when
    /// the connection is gone.
    pub async fn next(&mut self) -> Option<Result<Vec<(IpAddr, u32)>>> {
        loop {
            if self.stale {
                match self.netlink.local_addresses().await {
                    Ok(addresses) => {
                        self.stale = false;
                        if self.last.as_ref() != Some(&addresses) {
                            self.last = Some(addresses.clone());
                            return Some(Ok(addresses));
                        }
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            self.messages.next().await?;
            self.stale = true;
        }
    }
}

fn subscribe(groups: &[MulticastGroup]) -> Result<(Connection, UnboundedReceiver<Message>)> {
    let runtime =
        tokio::runtime::Handle::try_current().map_err(|e| Error::Connect(std::io::Error::other(e)))?;
    let (connection, _, messages) = rtnetlink::new_multicast_connection(groups).map_err(Error::Connect)?;
    Ok((Connection(runtime.spawn(connection)), messages))
}

fn of_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn seen(known: &mut BTreeMap<u32, LinkInfo>, link: LinkInfo) -> Option<LinkEvent> {
    match known.insert(link.ifindex, link.clone()) {
        None => Some(LinkEvent::Added(link)),
        Some(before) if before != link => Some(LinkEvent::Changed(link)),
        Some(_) => None,
    }
}

fn differences(before: &BTreeMap<u32, LinkInfo>, now: &BTreeMap<u32, LinkInfo>) -> Vec<LinkEvent> {
    let gone = before.iter().filter(|(index, _)| !now.contains_key(index));
    let mut events: Vec<_> = gone.map(|(_, link)| LinkEvent::Removed(link.clone())).collect();
    for (index, link) in now {
        match before.get(index) {
            None => events.push(LinkEvent::Added(link.clone())),
            Some(old) if old != link => events.push(LinkEvent::Changed(link.clone())),
            Some(_) => {}
        }
    }
    events
}
