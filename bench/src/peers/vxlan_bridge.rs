//! The peer: a Linux bridge and a VXLAN device on two machines, as one would set it up by hand.

use std::{fs, io, net::Ipv4Addr};

use anyhow::{Context, Result};
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
            plain_bridges(&machine.namespace)?;
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

/// Keeps the packets of a namespace's bridges out of its netfilter, as on machines where nothing has loaded
/// `br_netfilter`. Kernels that have it built in pass them through.
pub fn plain_bridges(namespace: &NetNs) -> Result<()> {
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = format!("/proc/sys/net/bridge/{name}");
        match namespace.run(|| fs::write(&path, "0"))? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(path),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_of_a_namespace_are_plain() {
        let namespace = NetNs::create(&Prefix::unique().namespace("plain")).unwrap();
        plain_bridges(&namespace).unwrap();
        let read = || fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
        // No such file: nothing to be switched off.
        let value = namespace.run(read).unwrap().unwrap_or_else(|_| "0".to_owned());
        assert_eq!(value.trim(), "0");
    }
}
