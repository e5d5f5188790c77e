//! Networks and their subnets.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Family, Name, NetworkId, Vni};

/// Where IPv4 subnets come from when none is asked for, cut into /24.
pub const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Where IPv6 subnets come from when none is asked for, cut into /64: unique local addresses (RFC 4193) whose global
/// ID says `meshd`.
pub const DEFAULT_POOL6: &str = "fd6d:6573:6800::/48";
/// The name of the network that every node is on, made with the cluster.
pub const INGRESS_NETWORK: &str = "ingress";

/// A subnet of a network and the address of its gateway, which is the data path itself on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subnet {
    net: IpNet,
    gateway: IpAddr,
}

/// Why a subnet cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SubnetError {
    /// Bits are set below the prefix.
    #[error("subnet {given} has host bits set; did you mean {meant}?")]
    HostBits {
        /// What was asked for.
        given: IpNet,
        /// The same with the host bits cleared.
        meant: IpNet,
    },
    /// No room for a gateway and a task.
    #[error(
        "subnet {0} is too small: it must hold a gateway and at least one task (/29 or larger is sensible)"
    )]
    TooSmall(IpNet),
    /// Loopback, link-local, multicast, unspecified or broadcast space.
    #[error("subnet {0} is not a unicast range that tasks can use")]
    NotUnicast(IpNet),
    /// The gateway is no usable host address of the subnet.
    #[error("gateway {gateway} is not a usable address of subnet {net}")]
    Gateway {
        /// The subnet.
        net: IpNet,
        /// The gateway asked for.
        gateway: IpAddr,
    },
}

impl Subnet {
    /// Checks the range; the gateway is the first host address unless given.
    pub fn new(net: IpNet, gateway: Option<IpAddr>) -> Result<Self, SubnetError> {
        if net.trunc() != net {
            return Err(SubnetError::HostBits { given: net, meant: net.trunc() });
        }
        if net.max_prefix_len() - net.prefix_len() < 2 {
            return Err(SubnetError::TooSmall(net));
        }
        let reserved = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
        // The last two are for addresses within a node: those of tasks on their way out, and of the host link.
        let reserved6 = ["::/127", "ff00::/8", "fe80::/10", "fd6d:6573:6864::/64", "fd6d:6573:6863::/64"];
        let reserved = reserved.into_iter().chain(reserved6);
        let reserved = reserved.filter_map(|r| r.parse::<IpNet>().ok());
        for range in reserved {
            if range.contains(&net) || net.contains(&range) {
                return Err(SubnetError::NotUnicast(net));
            }
        }
        let subnet = Self { net, gateway: gateway.unwrap_or_else(|| first_host(net)) };
        if !subnet.is_host(subnet.gateway) {
            return Err(SubnetError::Gateway { net, gateway: subnet.gateway });
        }
        Ok(subnet)
    }

    /// The range.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.gateway)
    }

    /// The gateway's address.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether `address` may be given to a host of the subnet (the gateway included): in range, neither the network's
    /// own address nor, for IPv4, the broadcast address.
    pub fn is_host(&self, address: IpAddr) -> bool {
        let broadcast = self.net.addr().is_ipv4() && address == self.net.broadcast();
        self.net.contains(&address) && address != self.net.network() && !broadcast
    }
}

fn first_host(net: IpNet) -> IpAddr {
    match net.network() {
        IpAddr::V4(a) => IpAddr::V4((u32::from(a) + 1).into()),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) + 1).into()),
    }
}

/// A network: one L2/L3 segment that tasks on any node share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its unique name.
    pub name: Name,
    /// What separates its packets from those of other networks.
    pub vni: Vni,
    /// At most one subnet per family and at least one; IPv4 first.
    pub subnets: Vec<Subnet>,
    /// Free-standing tasks (of no service) may join.
    pub attachable: bool,
    /// No way out of the network.
    pub internal: bool,
    /// The one network that carries published ports.
    pub ingress: bool,
    /// The tasks' MTU in bytes, if set by hand; otherwise it follows the uplink.
    pub mtu: Option<u16>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub created_at: u64,
    /// Parts of the subnets that addresses are given out of, at most one per family; all of a subnet without one.
    pub ip_ranges: Vec<IpNet>,
    /// Addresses that are never given out, by what they are for.
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// The version of the cluster's state that changed it last.
    pub version: u64,
}

impl Network {
    /// The subnet that holds `address`.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.net().contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Result<Subnet, SubnetError> {
        Subnet::new(text.parse().unwrap(), None)
    }

    #[test]
    fn gateway_defaults_to_the_first_host() {
        assert_eq!(subnet("10.10.3.0/24").unwrap().gateway(), "10.10.3.1".parse::<IpAddr>().unwrap());
        assert_eq!(subnet("fd00:1::/64").unwrap().gateway(), "fd00:1::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn refuses_unusable_ranges() {
        assert!(matches!(subnet("10.10.3.7/24"), Err(SubnetError::HostBits { .. })));
        assert!(matches!(subnet("10.10.3.0/31"), Err(SubnetError::TooSmall(_))));
        for bad in ["127.0.0.0/24", "224.0.0.0/8", "0.0.0.0/0", "::/0", "ff00::/16", "fd6d:6573:6864::/64"] {
            assert!(matches!(subnet(bad), Err(SubnetError::NotUnicast(_))), "{bad}");
        }
        let net = "10.10.3.0/24".parse().unwrap();
        for gateway in ["10.10.3.0", "10.10.3.255", "10.10.4.1"] {
            assert!(Subnet::new(net, Some(gateway.parse().unwrap())).is_err(), "{gateway}");
        }
    }
}
