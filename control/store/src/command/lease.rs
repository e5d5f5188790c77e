//! What nodes say of their leases.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a node does with leased addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseChange {
    /// Tasks use these now: they stay the node's, however long it is silent. One that nobody holds (any more) is leased
    /// anew.
    pub used: Vec<IpAddr>,
    /// No task uses these any more.
    pub unused: Vec<IpAddr>,
    /// It gives these back.
    pub returned: Vec<IpAddr>,
}
