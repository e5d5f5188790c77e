//! The peer: a Linux bridge and a VXLAN device on two machines, as one would set it up by hand.

use std::net::Ipv4Addr;

use anyhow::Result;
use mesh_tests::{NetNs, Prefix};

use super::Machine;

/// Two namespaces joined by bridges and VXLAN over the underlay of two machines.
#[derive(Debug)]
pub struct VxlanBridge {
    /// A namespace on the first machine.
    pub first: NetNs,
    /// A namespace on the second machine.
    pub second: NetNs,
}

impl VxlanBridge {
    /// The address of the second namespace.
    pub const SECOND: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

    /// Sets it up between two machines.
    pub fn create(prefix: &Prefix, machines: [&Machine; 2]) -> Result<Self> {
        let first = NetNs::create(&prefix.namespace("peer1"))?;
        let second = NetNs::create(&prefix.namespace("peer2"))?;
        for (index, inside) in [&first, &second].into_iter().enumerate() {
            let (machine, other) = (machines[index], machines[1 - index]);
            let (local, remote, name) = (machine.address, other.address, inside.name());
            machine.namespace.ip(&format!(
                "link add peerbr type bridge\n\
                 link add peervx type vxlan id 99 local {local} remote {remote} dstport 4789\n\
                 link add peer0 type veth peer name eth0 netns {name}\n\
                 link set peervx master peerbr up\n\
                 link set peer0 master peerbr up\n\
                 link set peer0 mtu 1450\n\
                 link set peerbr up"
            ))?;
            inside.ip(&format!(
                "link set eth0 mtu 1450\naddr add 10.99.0.{}/24 dev eth0\nlink set eth0 up",
                index + 1
            ))?;
        }
        Ok(Self { first, second })
    }
}
