//! What a task may see, as the agent builds it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use mesh_types::{Name, Protocol};

/// The names of one network, shared by all its tasks on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNames {
    /// The network's name: `<host>.<name>` is looked up here alone, and never forwarded.
    pub name: Name,
    /// Addresses by name, in lower case: services (their VIP, or their tasks' addresses without one), `tasks.<service>`,
    /// tasks, host names and aliases. A name without addresses is known and answered empty.
    pub forward: HashMap<String, Addresses>,
    /// `<name>.<network>` by address.
    pub reverse: HashMap<IpAddr, String>,
    /// What SRV questions find, by the lower-case names of services and their aliases.
    pub services: HashMap<String, Arc<ServiceNames>>,
    /// The network's subnets: an address in them that has no name is not asked for elsewhere.
    pub subnets: Vec<IpNet>,
}

impl NetworkNames {
    /// A network without any names yet.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            forward: HashMap::new(),
            reverse: HashMap::new(),
            services: HashMap::new(),
            subnets: Vec::new(),
        }
    }
}

/// The addresses of one name, in order, each once: those of IPv4 first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(Box<[IpAddr]>);

impl Addresses {
    /// All of them.
    pub fn all(&self) -> &[IpAddr] {
        &self.0
    }

    /// Those of IPv4.
    pub fn v4(&self) -> &[IpAddr] {
        self.0.get(..self.split()).unwrap_or_default()
    }

    /// Those of IPv6.
    pub fn v6(&self) -> &[IpAddr] {
        self.0.get(self.split()..).unwrap_or_default()
    }

    fn split(&self) -> usize {
        self.0.partition_point(IpAddr::is_ipv4)
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        // The order of IpAddr has IPv4 before IPv6.
        let mut all: Vec<IpAddr> = addresses.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into())
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        addresses.into_iter().collect()
    }
}

/// A service on one network, as SRV questions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceNames {
    /// The service's name, as it was written.
    pub name: String,
    /// Its published ports.
    pub ports: Vec<ServicePort>,
    /// Its tasks that take connections, by name: what `tasks.<service>` stands for.
    pub tasks: BTreeMap<String, u16>,
}

/// One port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// The transport.
    pub protocol: Protocol,
    /// The port that clients outside use.
    pub published: u16,
    /// The port that the tasks listen on, and that clients on the network use.
    pub target: u16,
}

/// What one task may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskView {
    /// The networks that the task is on; the first one that knows a name answers.
    pub networks: Vec<Arc<NetworkNames>>,
    /// Whether unknown names are asked for outside; false where all networks are `--internal`.
    pub forward: bool,
    /// Whether addresses of unknown names of one label are not asked for outside, because the task's resolver was told by `ndots` that such names want a
    /// search domain.
    pub keep_single_labels: bool,
}
