//! Links, addresses, routes, neighbours, namespaces and the masquerade rule of a node.
//!
//! The only crate that names rtnetlink and drives `nft`. Everything here observes first, changes only what differs and
//! touches only what it is told by name: foreign links, routes and tables stay as they are.
//!
//! A [`Netlink`] works in the namespace of the thread that connected it, as do [`enable_forwarding`] and the
//! masquerade: a daemon lives in its node's namespace. Task namespaces are reached by descriptor ([`NetNs`]).

mod addresses;
mod datagrams;
mod error;
mod host_link;
mod inherited;
mod links;
mod masquerade;
mod netlink;
mod netns;
mod nft;
mod own_resolver;
mod routes;
mod sysctl;
mod task_link;
mod vxlan;
mod watch;

pub use addresses::Interface;
pub use datagrams::{BATCH, Datagram, Inbox, Outbox};
pub use error::Error;
pub use host_link::{HostLink, HostWay};
pub use inherited::{cookie_of_socket, inherited_sockets};
pub use links::{Frames, LinkInfo};
pub use masquerade::{ensure_masquerade, make_masquerade, remove_masquerade, remove_masquerade_of};
pub use netlink::Netlink;
pub use netns::{NetNs, NsId};
pub use own_resolver::{BEHIND_MARK, forget_own_resolver, prefer_own_resolver};
pub use sysctl::{enable_forwarding, enable_forwarding6, has_ipv6};
pub use task_link::{TaskLink, TaskLinkInfo};
pub use watch::{AddressEvents, LinkEvent, LinkEvents, RouteEvents};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
