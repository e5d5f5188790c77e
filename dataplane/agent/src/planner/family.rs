//! The two families of addresses.

use std::net::IpAddr;

use mesh_types::{Network, Subnet};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether the address is of this family.
    pub fn has(self, address: IpAddr) -> bool {
        Self::of(address) == self
    }

    /// The network's subnet of this family.
    pub fn subnet_of(self, network: &Network) -> Option<&Subnet> {
        network.subnets.iter().find(|s| Self::of(s.gateway()) == self)
    }

    /// Whether the network has a subnet of this family.
    pub fn is_on(self, network: &Network) -> bool {
        self.subnet_of(network).is_some()
    }
}
