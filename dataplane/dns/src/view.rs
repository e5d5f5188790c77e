//! What a task may see, as the agent builds it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use mesh_types::Name;

/// The names of one network, shared by all its tasks on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNames {
    /// The network's name: `<host>.<name>` is looked up here alone, and never forwarded.
    pub name: Name,
    /// Addresses by name, in lower case: services (their VIP, or their tasks' addresses without one), `tasks.<service>`,
    /// tasks and aliases. A name without addresses is known and answered empty.
    pub forward: BTreeMap<String, Vec<IpAddr>>,
    /// `<name>.<network>` by address.
    pub reverse: BTreeMap<IpAddr, String>,
    /// The network's subnets: an address in them that has no name is not asked for elsewhere.
    pub subnets: Vec<IpNet>,
}

impl NetworkNames {
    /// A network without any names yet.
    pub fn new(name: Name) -> Self {
        Self { name, forward: BTreeMap::new(), reverse: BTreeMap::new(), subnets: Vec::new() }
    }
}

/// What one task may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskView {
    /// The networks that the task is on; the first one that knows a name answers.
    pub networks: Vec<Arc<NetworkNames>>,
    /// Whether unknown names are asked for outside; false where all networks are `--internal`.
    pub forward: bool,
}
