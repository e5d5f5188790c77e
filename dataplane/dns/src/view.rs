//! What a task may see, as the agent builds it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use mesh_types::{Name, Protocol, SharedMap};

/// The names of one network, shared by all its tasks on a node. A copy shares with its original what is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNames {
    /// The network's name: `<host>.<name>` is looked up here alone, and never forwarded.
    pub name: Name,
    /// Addresses by name, in lower case: services (their VIP, or their tasks' addresses without one), `tasks.<service>`,
    /// tasks, host names and aliases. A name without addresses is known and answered empty.
    pub forward: SharedMap<String, Addresses>,
    /// `<name>.<network>` by address.
    pub reverse: SharedMap<IpAddr, String>,
    /// What SRV questions find, by the lower-case names of services and their aliases.
    pub services: SharedMap<String, Arc<ServiceNames>>,
    /// The network's subnets: an address in them that has no name is not asked for elsewhere.
    pub subnets: Vec<IpNet>,
}

impl NetworkNames {
    /// A network without any names yet.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            forward: SharedMap::default(),
            reverse: SharedMap::default(),
            services: SharedMap::default(),
            subnets: Vec::new(),
        }
    }
}

/// The addresses of one name, in order, each once: those of IPv4 first. Who else has the name, or one of the addresses by it, is
/// counted, so that one of several who have it can be taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    all: Box<[IpAddr]>,
    /// Those that are there more than once, each as often as beyond the first time.
    again: Box<[IpAddr]>,
    holders: u32,
}

impl Addresses {
    /// Those that so many holders of the name have together.
    pub fn of(mut addresses: Vec<IpAddr>, holders: u32) -> Self {
        // The order of IpAddr has IPv4 before IPv6.
        addresses.sort_unstable();
        let again: Vec<IpAddr> =
            addresses.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[1]).collect();
        addresses.dedup();
        Self { all: addresses.into(), again: again.into(), holders }
    }

    /// All of them.
    pub fn all(&self) -> &[IpAddr] {
        &self.all
    }

    /// Those of IPv4.
    pub fn v4(&self) -> &[IpAddr] {
        self.all.get(..self.split()).unwrap_or_default()
    }

    /// Those of IPv6.
    pub fn v6(&self) -> &[IpAddr] {
        self.all.get(self.split()..).unwrap_or_default()
    }

    fn split(&self) -> usize {
        self.all.partition_point(IpAddr::is_ipv4)
    }

    /// How many have the name.
    pub fn holders(&self) -> u32 {
        self.holders
    }

    /// One more has the name, with these addresses.
    pub fn add(&mut self, addresses: &[IpAddr]) {
        self.holders += 1;
        for address in addresses {
            match self.all.binary_search(address) {
                Ok(_) => {
                    let place = self.again.partition_point(|known| known < address);
                    put(&mut self.again, place, *address);
                }
                Err(place) => put(&mut self.all, place, *address),
            }
        }
    }

    /// One of those who have the name, with these addresses, has it no more. `false` if there is no such: then what is here is
    /// not to be used any more.
    #[must_use]
    pub fn remove(&mut self, addresses: &[IpAddr]) -> bool {
        let Some(left) = self.holders.checked_sub(1) else { return false };
        self.holders = left;
        addresses.iter().all(|address| {
            let from = match self.again.binary_search(address) {
                Ok(place) => (&mut self.again, place),
                Err(_) => match self.all.binary_search(address) {
                    Ok(place) => (&mut self.all, place),
                    Err(_) => return false,
                },
            };
            take(from.0, from.1);
            true
        })
    }
}

fn put(list: &mut Box<[IpAddr]>, place: usize, address: IpAddr) {
    let mut all = std::mem::take(list).into_vec();
    all.reserve_exact(1);
    all.insert(place, address);
    *list = all.into();
}

fn take(list: &mut Box<[IpAddr]>, place: usize) {
    let mut all = std::mem::take(list).into_vec();
    all.remove(place);
    *list = all.into();
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        Self::of(addresses.into_iter().collect(), 1)
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self::of(addresses, 1)
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
    pub tasks: SharedMap<String, u16>,
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
