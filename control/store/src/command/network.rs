//! Networks, as they are asked for.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use mesh_types::{Name, NetworkId};
use serde::{Deserialize, Serialize};

/// A new network, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNetwork {
    /// A fresh random id.
    pub id: NetworkId,
    /// Its name.
    pub name: Name,
    /// Its subnets, at most one per family, each with the gateway asked for; empty: the next free one of the cluster's
    /// IPv4 pool.
    pub subnets: Vec<(IpNet, Option<IpAddr>)>,
    /// If there is no IPv6 subnet among them, the next free one of the cluster's IPv6 pool too.
    pub ipv6: bool,
    /// Parts of the subnets that addresses are given out of, at most one per family; addresses asked for by number may
    /// lie outside.
    pub ip_ranges: Vec<IpNet>,
    /// Free-standing tasks may join.
    pub attachable: bool,
    /// No way out of the network.
    pub internal: bool,
    /// The one network that carries published ports: takes the place of the one there is, which goes.
    pub ingress: bool,
    /// The tasks' MTU in bytes; follows the uplink unless set.
    pub mtu: Option<u16>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
    /// Addresses of the subnets that are never given out, by what they are for.
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// What to change of a network; `None` leaves a thing as it is. Its subnets stay for its life: tasks live in them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkChange {
    /// Refuse the change unless the network has this version.
    pub expected_version: Option<u64>,
    /// Whether free-standing tasks may join; those that are there stay.
    pub attachable: Option<bool>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
}
