//! One question to another node's data path, or to another task through the overlay, and how long the answer took.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mesh_netlink::NetNs;
use mesh_types::{Endpoint, Lookup, LookupError, NetworkId, Node, VXLAN_PORT};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
        socket_with,
        sockopt::{
            Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout, set_ip_mtu_discover, set_ipv6_mtu_discover,
            set_socket_timeout,
        },
    },
};
use thiserror::Error;

use crate::{Agent, LocalTask, TaskError};

/// Bytes of an echo request without data.
const ECHO: usize = 8;
/// A packet of less than this tells its asker too little.
const LEAST: usize = 16;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct PingSpec {
    /// A node, or a task on a network of this node's tasks.
    pub to: String,
    /// The task of this node from which another one is asked; any on its network if empty.
    pub from: String,
    /// Bytes of the packet with its IP header; 0 for the least.
    pub size: u32,
    /// How long to wait.
    pub wait: Duration,
    /// Only addresses of IPv6, or of IPv4.
    pub ipv6: Option<bool>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Pinged {
    /// Name of the node or task.
    pub name: String,
    /// Which way the question went, in words.
    pub path: String,
    /// Whom it asked.
    pub address: IpAddr,
    /// How long the answer took; none if none came in time.
    pub answered: Option<Duration>,
    /// The packet is larger than the first interface on its way takes.
    pub too_large: bool,
}

/// Why nothing was asked.
#[derive(Debug, Error)]
pub enum PingError {
    /// Neither a node nor a task that is known here.
    #[error(
        "there is no node {0}, and no task of that name that this node knows: it knows those on its own tasks' networks"
    )]
    Unknown(String),
    /// A service, which is several tasks or none.
    #[error("{0} is a service; name one of its tasks, which `meshctl service ps {0}` lists")]
    Service(String),
    /// Several.
    #[error(transparent)]
    Ambiguous(LookupError),
    /// This node itself.
    #[error("{0} is this node; name another one")]
    Own(String),
    /// The other's data path is of the other family.
    #[error(
        "the data path of {node} has the address {address}, this node's {own}: packets do not cross families"
    )]
    Family {
        /// The other.
        node: String,
        /// Its address.
        address: IpAddr,
        /// This node's.
        own: IpAddr,
    },
    /// No task of the family asked for.
    #[error("{0} has no address of that family")]
    NoAddress(String),
    /// Nowhere to ask from.
    #[error("no task of this node is on network {network}; attach one, or ping from a node that has one")]
    NoSource {
        /// The other task's.
        network: String,
    },
    /// The source is not there, or on another network.
    #[error("task {from} is not on network {network}")]
    OtherNetwork {
        /// The source.
        from: String,
        /// The other task's.
        network: String,
    },
    /// No such source.
    #[error(transparent)]
    Source(#[from] TaskError),
    /// The node has no data path address at the moment.
    #[error("this node has no data path address; `meshctl status` says why")]
    NoDataPath,
    /// A socket could not be had, or not be sent by.
    #[error("cannot ask {address}")]
    Io {
        /// Whom.
        address: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// The namespace of the source.
    #[error(transparent)]
    Namespace(#[from] mesh_netlink::Error),
}

impl Agent {
    /// Asks once.
    pub async fn ping(&self, spec: &PingSpec) -> Result<Pinged, PingError> {
        let view = self.view();
        match view.node(&spec.to) {
            Ok(node) if spec.from.is_empty() => return self.ping_node(node, spec).await,
            Ok(_) | Err(LookupError::Unknown { .. }) => {}
            Err(error) => return Err(PingError::Ambiguous(error)),
        }
        let (endpoints, _) = self.endpoints();
        let to = match Endpoint::find(endpoints.iter(), &spec.to) {
            Ok(to) => to,
            Err(LookupError::Unknown { .. }) => {
                let service = view.service(&spec.to).map(|service| service.name.to_string());
                return Err(service.map_or_else(|_| PingError::Unknown(spec.to.clone()), PingError::Service));
            }
            Err(error) => return Err(PingError::Ambiguous(error)),
        };
        // A task on several networks is asked on one that this node has a task on.
        let of_task: Vec<&Endpoint> = endpoints.iter().filter(|e| e.task == to.task).collect();
        let (endpoint, from) = self.source(&of_task, &spec.from)?;
        let wanted = |a: &&IpAddr| spec.ipv6.is_none_or(|ipv6| a.is_ipv6() == ipv6);
        let address =
            *endpoint.addresses.iter().find(wanted).ok_or_else(|| PingError::NoAddress(spec.to.clone()))?;
        let node =
            view.nodes.get(&endpoint.node).map_or_else(|| endpoint.node.to_string(), |n| n.name.to_string());
        let network = name_of(&view, endpoint.network);
        let path = format!("network {network}, from task {}, on node {node}", from.name);
        let (ns, size, wait) = (from.namespace.open()?, spec.size, spec.wait);
        let asked = tokio::task::spawn_blocking(move || ns_echo(&ns, address, size, wait)).await;
        let asked = asked.unwrap_or_else(|error| Ok(Err(io::Error::other(error))))?;
        outcome(endpoint.name.to_string(), path, address, asked)
    }

    async fn ping_node(&self, node: &Node, spec: &PingSpec) -> Result<Pinged, PingError> {
        if node.id == self.inner.node {
            return Err(PingError::Own(node.name.to_string()));
        }
        let own = self.lock().data_path.as_ref().map(|d| d.address).ok_or(PingError::NoDataPath)?;
        let address = node.data_path_addr;
        if own.is_ipv4() != address.is_ipv4() {
            return Err(PingError::Family { node: node.name.to_string(), address, own });
        }
        let there = SocketAddr::new(address, VXLAN_PORT);
        let asked = mesh_gossip::ask_data_path(own, there, spec.size, spec.wait).await;
        outcome(node.name.to_string(), format!("data path, from {own}"), address, asked)
    }

    /// Which endpoint of a task to ask, and from which task of this node.
    fn source<'a>(&self, to: &[&'a Endpoint], from: &str) -> Result<(&'a Endpoint, LocalTask), PingError> {
        let on = |task: &LocalTask, network| task.attachments.iter().any(|a| a.network == network);
        let network = || to.first().map_or_else(String::new, |e| name_of(&self.view(), e.network));
        if !from.is_empty() {
            let task = self.task(from)?;
            let reached = to.iter().find(|e| on(&task, e.network));
            let reached = reached
                .ok_or_else(|| PingError::OtherNetwork { from: task.name.to_string(), network: network() })?;
            return Ok((reached, task));
        }
        // Another one first: a task reaches itself without any data path.
        let mut tasks = self.tasks();
        tasks.sort_by_key(|task| to.iter().any(|e| e.task == task.id));
        let found =
            tasks.into_iter().find_map(|task| Some((*to.iter().find(|e| on(&task, e.network))?, task)));
        found.ok_or_else(|| PingError::NoSource { network: network() })
    }
}

fn name_of(view: &mesh_types::ClusterView, network: NetworkId) -> String {
    view.networks.get(&network).map_or_else(|| network.to_string(), |n| n.name.to_string())
}

fn outcome(
    name: String,
    path: String,
    address: IpAddr,
    asked: io::Result<Option<Duration>>,
) -> Result<Pinged, PingError> {
    let too_large = matches!(&asked, Err(e) if e.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()));
    match asked {
        Ok(answered) => Ok(Pinged { name, path, address, answered, too_large }),
        Err(_) if too_large => Ok(Pinged { name, path, address, answered: None, too_large }),
        Err(source) => Err(PingError::Io { address, source }),
    }
}

fn ns_echo(
    ns: &NetNs,
    to: IpAddr,
    size: u32,
    wait: Duration,
) -> Result<io::Result<Option<Duration>>, mesh_netlink::Error> {
    ns.run(|| echo(to, size, wait))
}

/// An echo request and its reply (RFC 792, RFC 4443) in the namespace of the calling thread, not to be fragmented.
fn echo(to: IpAddr, size: u32, wait: Duration) -> io::Result<Option<Duration>> {
    let v4 = to.is_ipv4();
    let (family, protocol, header) = match v4 {
        true => (AddressFamily::INET, ipproto::ICMP, 20),
        false => (AddressFamily::INET6, ipproto::ICMPV6, 40),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    match v4 {
        true => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
        false => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    // Only what comes from there.
    connect(&socket, &SocketAddr::new(to, 0))?;
    let (request, reply) = if v4 { (8, 0) } else { (128, 129) };
    let mut packet = vec![0; (size as usize).saturating_sub(header).max(LEAST)];
    packet[0] = request;
    packet[4..ECHO].copy_from_slice(&rand::random::<[u8; 4]>());
    if v4 {
        // The kernel does it for IPv6.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let asked = Instant::now();
    send(&socket, &packet, SendFlags::empty())?;
    let mut buffer = vec![0; packet.len() + 64];
    while let Some(left) = wait.checked_sub(asked.elapsed()).filter(|left| !left.is_zero()) {
        // Nothing at all would wait for ever.
        set_socket_timeout(&socket, Timeout::Recv, Some(left.max(Duration::from_millis(1))))?;
        let len = match recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // What a router or the other side said.
            Err(Errno::MSGSIZE) => return Err(Errno::MSGSIZE.into()),
            Err(_) => return Ok(None),
        };
        let start = if v4 { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let answer = buffer.get(start..len).unwrap_or_default();
        if answer.first() == Some(&reply) && answer.get(4..) == packet.get(4..) {
            return Ok(Some(asked.elapsed()));
        }
    }
    Ok(None)
}

/// Of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_answers_itself() {
        let ns = NetNs::create().unwrap();
        let up = ns.run(|| std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status());
        assert!(up.unwrap().unwrap().success());
        for to in ["127.0.0.1", "::1"] {
            for size in [0, 84, 1501, 9001] {
                let answered = ns_echo(&ns, to.parse().unwrap(), size, Duration::from_secs(5)).unwrap();
                assert!(answered.unwrap().is_some(), "{to}, {size} bytes");
            }
        }
    }

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_minus_zero() {
        let mut packet = *b"\x08\0\0\0abcdefghijk";
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&packet), 0);
    }
}
