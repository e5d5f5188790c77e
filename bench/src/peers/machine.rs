//! A machine of the underlay without meshd.

use std::net::Ipv4Addr;

use anyhow::Result;
use mesh_tests::{GATEWAY, NetNs, TestNet};

/// A namespace that is plugged into the underlay like a node; removed on drop.
#[derive(Debug)]
pub struct Machine {
    /// The namespace.
    pub namespace: NetNs,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Machine {
    /// Plugs in machine `number`, counted from 1.
    pub fn plug(net: &TestNet, number: u8) -> Result<Self> {
        let role = format!("m{number}");
        let namespace = NetNs::create(&net.prefix().namespace(&role))?;
        let [a, b, c, _] = GATEWAY.octets();
        // Beyond the nodes' and the client's addresses.
        let address = Ipv4Addr::new(a, b, c, 200 + number);
        let name = namespace.name();
        net.hub().ip(&format!(
            "link add {role} type veth peer name eth0 netns {name}\nlink set {role} master br0 up"
        ))?;
        namespace.ip(&format!(
            "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}"
        ))?;
        Ok(Self { namespace, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::{Prefix, succeed};

    #[test]
    fn a_machine_is_on_the_underlay() {
        let net = TestNet::create(Prefix::unique(), 1).unwrap();
        let machine = Machine::plug(&net, 1).unwrap();
        let ping = |to: Ipv4Addr| {
            let mut ping = machine.namespace.command("ping")?;
            succeed(ping.args(["-c1", "-W1", "-n", "-q", &to.to_string()]))
        };
        ping(net.address(0)).unwrap();
        ping(net.client_address()).unwrap();
    }
}
