//! Name service for tasks: a DNS server at 127.0.0.11 in each task's namespace.
//!
//! [`resolve`] decides over a snapshot of the task's networks, without I/O; `respond` turns bytes into bytes around it;
//! [`Forwarder`] asks the node's own name servers for what is not ours. [`DnsServer`] serves a task's [`Sockets`], all of
//! them on one [`DnsThread`]; `desk` is what both transports ask, and `prepared` what it remembers of its replies.
//!
//! Wire messages are read and written by hickory-proto. The sockets are ours rather than hickory-server's, so that
//! forwarded messages pass through to the byte and that closing is exact: an open socket keeps a namespace alive.

#![forbid(unsafe_code)]

mod desk;
mod error;
mod forwarder;
#[cfg(test)]
mod hostile;
mod prepared;
mod resolv_conf;
mod resolve;
mod respond;
mod server;
mod sockets;
mod stats;
mod tcp;
mod thread;
mod udp;
mod view;

pub use error::Error;
pub use forwarder::{Forwarder, Outside, TaskForwarder};
pub use hickory_proto::rr::{Name as RecordName, RecordType};
pub use resolv_conf::NodeResolver;
pub use resolve::{Answer, Place, Text, Why, resolve, reverse_name};
pub use server::{DNS_ADDRESS, DnsServer};
pub use sockets::Sockets;
pub use stats::{DnsHistogram, DnsStats, LATENCY_BOUNDS};
pub use thread::DnsThread;
pub use view::{Addresses, NetworkNames, ServiceNames, ServicePort, TaskView};

/// How long an answer about our own names may be kept, in seconds.
///
/// Short, since a task is replaced in less; not 0, since some resolvers ask again for each of a burst of connections.
pub const TTL: u32 = 5;
