//! The tasks of this node.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use mesh_netlink::{NetNs, NsId};
use mesh_types::{
    Endpoint, EndpointState, Generation, Health, HealthNote, LocalEndpointId, Mac, Name, NetworkId, NodeId,
    Owner, PortConfig, ServiceId, TaskDns, TaskId,
};
use serde::{Deserialize, Serialize};

/// How a task's namespace is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NsRef {
    /// By a file, as `ip netns add` makes it; the task ends when the file does.
    Path(PathBuf),
    /// By a process; the task ends with it.
    Pid(u32),
}

impl NsRef {
    /// Opens the namespace.
    pub fn open(&self) -> mesh_netlink::Result<NetNs> {
        match self {
            NsRef::Path(path) => NetNs::open_path(path),
            NsRef::Pid(pid) => NetNs::of_pid(*pid),
        }
    }

    /// The process, if it is named by one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            NsRef::Path(_) => None,
            NsRef::Pid(pid) => Some(*pid),
        }
    }
}

impl fmt::Display for NsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NsRef::Path(path) => path.display().fmt(f),
            NsRef::Pid(pid) => write!(f, "pid {pid}"),
        }
    }
}

/// One task's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// Its leased addresses: one for each family of the network, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Those of them that somebody asked for.
    pub fixed: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its id in the data path.
    pub local_id: LocalEndpointId,
    /// Which use of that id.
    pub generation: Generation,
    /// The node-local IPv4 address that stands for it outside; none without IPv4, and on internal networks.
    pub egress4: Option<Ipv4Addr>,
    /// The node-local IPv6 address that stands for it outside.
    pub egress6: Option<Ipv6Addr>,
    /// Name of the veth's end on the node.
    pub link: String,
    /// Name of the veth's end in the task.
    pub task_link: String,
    /// Number of the node's end.
    pub ifindex: u32,
    /// Further names on this network alone.
    pub aliases: Vec<Name>,
    /// Whether the task is here because its service is, and goes with it.
    pub by_service: bool,
    /// Who joined the task to the network, if it is somebody who asks again.
    pub owner: Option<Owner>,
    /// Ports of this node, in mode host, that lead to this task alone; they go with this place.
    pub host_ports: Vec<PortConfig>,
}

impl Attachment {
    /// Its IPv4 address.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None })
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None })
    }

    /// The addresses that stand for it outside.
    pub fn egress(&self) -> Vec<IpAddr> {
        self.egress4.map(IpAddr::V4).into_iter().chain(self.egress6.map(IpAddr::V6)).collect()
    }
}

/// Whether a task takes new flows of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Drain {
    /// It does.
    #[default]
    None,
    /// It keeps its flows and takes no new ones.
    Going {
        /// When it is over at the latest: milliseconds since boot (`CLOCK_BOOTTIME`).
        until: u64,
        /// When it is over at the earliest, likewise.
        least: u64,
        /// Whether it drains because its node does.
        by_node: bool,
    },
    /// It has none any more.
    Done {
        /// Established flows that were still there then.
        cut: u64,
        /// Whether it drained because its node does.
        by_node: bool,
    },
}

/// A task of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTask {
    /// Its id.
    pub id: TaskId,
    /// Its name, unique on its networks.
    pub name: Name,
    /// The service it belongs to.
    pub service: Option<ServiceId>,
    /// Further names.
    pub aliases: Vec<Name>,
    /// Its namespace.
    pub namespace: NsRef,
    /// The namespace's identity, so that another one of the same name is not taken for it.
    pub namespace_id: NsIdentity,
    /// Its places on networks, in the order of its interfaces.
    pub attachments: Vec<Attachment>,
    /// Its share of its service's new flows, 1 to [`mesh_types::MAX_WEIGHT`].
    pub weight: u16,
    /// Seconds for which it may drain; its service's when there are none.
    pub drain_timeout_secs: Option<u32>,
    /// Whether it takes new flows.
    pub drain: Drain,
    /// Whether it joins the networks that its service joins.
    pub follows_service: bool,
    /// What its resolver is told, and its host name.
    pub dns: TaskDns,
    /// Whether it works, where its service has it checked.
    pub health: Health,
    /// Why it is unhealthy or not checked.
    pub health_note: Option<HealthNote>,
}

/// [`NsId`] as it is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsIdentity {
    /// Device of the namespace file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl From<NsId> for NsIdentity {
    fn from(id: NsId) -> Self {
        Self { dev: id.dev, ino: id.ino }
    }
}

impl LocalTask {
    /// What the other nodes are told of each attachment.
    pub fn endpoints(&self, node: NodeId) -> impl Iterator<Item = Endpoint> + '_ {
        self.attachments.iter().map(move |a| Endpoint {
            network: a.network,
            node,
            task: self.id,
            name: self.name.clone(),
            service: self.service,
            addresses: a.addresses.clone(),
            mac: a.mac,
            local_id: a.local_id,
            generation: a.generation,
            aliases: self.aliases.iter().chain(&a.aliases).cloned().chain(self.host_name()).collect(),
            state: self.endpoint_state(),
            weight: self.weight,
            health: self.health,
            health_note: self.health_note.clone(),
        })
    }

    /// Whether it takes new flows of its service, as the others are told.
    pub fn endpoint_state(&self) -> EndpointState {
        match self.drain {
            Drain::None => EndpointState::Ready,
            Drain::Going { .. } => EndpointState::Draining,
            Drain::Done { .. } => EndpointState::Drained,
        }
    }

    /// Whether ports of the node lead to it alone.
    pub fn has_host_ports(&self) -> bool {
        self.attachments.iter().any(|a| !a.host_ports.is_empty())
    }

    /// Its host name, where that is another name than its own and its aliases.
    fn host_name(&self) -> Option<Name> {
        let name = Name::new(self.dns.hostname.as_ref()?.as_str()).ok()?;
        let known = std::iter::once(&self.name).chain(&self.aliases);
        known.into_iter().all(|other| !other.as_str().eq_ignore_ascii_case(name.as_str())).then_some(name)
    }

    /// Whether the namespace is still the one that was attached.
    pub fn namespace_is_there(&self) -> bool {
        self.namespace.open().and_then(|ns| ns.id()).is_ok_and(|id| NsIdentity::from(id) == self.namespace_id)
    }
}
