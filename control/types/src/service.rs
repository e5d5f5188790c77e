//! Services: a name, the networks it is on, and the ports it publishes.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{Name, NetworkId, PortConfig, ServiceId};

/// How a service's name is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EndpointMode {
    /// One virtual address per network, balanced by the data path.
    #[default]
    Vip,
    /// DNS answers with the tasks' own addresses.
    Dnsrr,
}

impl fmt::Display for EndpointMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EndpointMode::Vip => "vip",
            EndpointMode::Dnsrr => "dnsrr",
        })
    }
}

/// A service's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// The network.
    pub network: NetworkId,
    /// One virtual address per family of the network; empty with `dnsrr`.
    pub vips: Vec<IpAddr>,
    /// Further names on this network.
    pub aliases: Vec<Name>,
}

/// A service. Its tasks are those that nodes announce for it; no scheduler places them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its unique name.
    pub name: Name,
    /// The networks its tasks join, in this order.
    pub networks: Vec<ServiceNetwork>,
    /// How its name is answered.
    pub endpoint_mode: EndpointMode,
    /// Its published ports.
    pub ports: Vec<PortConfig>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub created_at: u64,
}
