//! Networks and services as files declare them: read, compared with what there is, and written.
//!
//! All of it is pure; `apply` and `export` drive it. A file is read to its end, so that all that is wrong with it is told
//! at once, with lines.

mod calls;
mod compose;
mod diff;
mod health;
mod mesh;
mod write;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use mesh_types::{Affinity, EndpointMode, HealthCheck, Name, PortConfig};

pub use calls::{Call, Calls};
pub use diff::{Action, Change, Plan, plan};
pub use write::write;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intent {
    /// Networks to be there, by name.
    pub networks: BTreeMap<Name, WantedNetwork>,
    /// Services to be there, by name.
    pub services: BTreeMap<Name, WantedService>,
    /// Networks that somebody else makes.
    pub external: BTreeSet<Name>,
    /// What was read over, and why.
    pub ignored: Vec<Remark>,
}

/// A word about a line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The line, from 1.
    pub line: usize,
    /// The word.
    pub text: String,
}

/// A network, as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedNetwork {
    /// Where the file says so.
    pub line: usize,
    /// Its subnets; none: whatever the cluster chooses.
    pub subnets: Vec<WantedSubnet>,
    /// Whether it has an IPv6 subnet, of the cluster's choice if none is said.
    pub ipv6: bool,
    /// Whether tasks of no service may join.
    pub attachable: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// The tasks' MTU in bytes; follows the uplink unless set.
    pub mtu: Option<u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A subnet, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSubnet {
    /// The range.
    pub net: IpNet,
    /// Its gateway; the first address unless set.
    pub gateway: Option<IpAddr>,
    /// The part that addresses are given out of.
    pub ip_range: Option<IpNet>,
    /// Addresses that are never given out.
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// A service, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedService {
    /// Where the file says so.
    pub line: usize,
    /// Its networks and its further names there; none: the ingress network.
    pub networks: BTreeMap<Name, Vec<Name>>,
    /// Its published ports; 0 for any free one.
    pub ports: Vec<PortConfig>,
    /// How its name is answered.
    pub endpoint_mode: EndpointMode,
    /// What keeps a client with one task.
    pub affinity: Option<Affinity>,
    /// Whether nodes send to their own tasks first.
    pub prefer_local: bool,
    /// How long a draining task may keep its connections, in seconds.
    pub drain_timeout_secs: u32,
    /// How its tasks are checked.
    pub health: Option<HealthCheck>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Which kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `mesh.yaml`.
    Mesh,
    /// A Compose file, of which networks and published ports count.
    Compose,
}

/// Reads a file; or all that is wrong with it.
pub fn read(text: &str, dialect: Dialect) -> Result<Intent, Vec<Remark>> {
    let root = yaml::load(text).map_err(|remark| vec![remark])?;
    let mut reader = yaml::Reader::default();
    let mut intent = match dialect {
        Dialect::Mesh => mesh::read(&mut reader, &root),
        Dialect::Compose => compose::read(&mut reader, &root),
    };
    reader.problems.sort();
    reader.ignored.sort();
    intent.ignored = reader.ignored;
    if reader.problems.is_empty() { Ok(intent) } else { Err(reader.problems) }
}

#[cfg(test)]
mod tests;
