//! Nodes.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Name, NodeId};

/// What a node may do in the cluster; the organizational unit of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Runs tasks, and decides with the other managers.
    Manager,
}

impl Role {
    /// The word for it, as certificates and lists have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "worker" => Ok(Role::Worker),
            "manager" => Ok(Role::Manager),
            _ => Err(()),
        }
    }
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Availability {
    /// Takes new tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Gives its tasks up.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        })
    }
}

/// A member of the cluster as the managers know it. Whether it is alive is gossip's to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its host name; unique.
    pub name: Name,
    /// What its certificate lets it do.
    pub role: Role,
    /// Where other nodes reach its manager API and gossip.
    pub advertise_addr: IpAddr,
    /// Where its VXLAN packets come from and go to (its VTEP); the advertised address unless set.
    pub data_path_addr: IpAddr,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub joined_at: u64,
    /// The version of the cluster's state that changed it last.
    pub version: u64,
}
