//! The tasks of this node.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use mesh_netlink::{NetNs, NsId};
use mesh_types::{
    Endpoint, EndpointState, Generation, LocalEndpointId, Mac, Name, NetworkId, NodeId, ServiceId, TaskId,
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
    /// Its leased address.
    pub address: IpAddr,
    /// Whether somebody asked for just this address.
    pub fixed: bool,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its id in the data path.
    pub local_id: LocalEndpointId,
    /// Which use of that id.
    pub generation: Generation,
    /// The node-local address that stands for it outside.
    pub egress: Option<Ipv4Addr>,
    /// Name of the veth's end on the node.
    pub link: String,
    /// Name of the veth's end in the task.
    pub task_link: String,
    /// Number of the node's end.
    pub ifindex: u32,
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
            addresses: vec![a.address],
            mac: a.mac,
            local_id: a.local_id,
            generation: a.generation,
            aliases: self.aliases.clone(),
            state: EndpointState::Ready,
            weight: 1,
        })
    }

    /// Whether the namespace is still the one that was attached.
    pub fn namespace_is_there(&self) -> bool {
        self.namespace.open().and_then(|ns| ns.id()).is_ok_and(|id| NsIdentity::from(id) == self.namespace_id)
    }
}
