//! The other nodes, as the rules of this one's firewall see them.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use mesh_firewall::{Base, Packet};
use mesh_types::VXLAN_PORT;

use crate::doctor::{Told, routes};

/// What stands for the nodes' addresses where nobody knows them yet.
const NODES: &str = "NODES";

/// Who the others are; nobody where this node is in no cluster.
#[derive(Debug, Default)]
pub struct Others {
    here: Option<Addresses>,
    there: Vec<(String, Addresses)>,
    /// The network that all of them are in, where there is one.
    net: Option<IpNet>,
}

/// By which a node is reached.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    daemon: IpAddr,
    data_path: IpAddr,
}

impl Addresses {
    fn at(&self, port: u16) -> IpAddr {
        if port == VXLAN_PORT { self.data_path } else { self.daemon }
    }
}

impl Others {
    /// Those of the cluster that this node is in.
    pub fn of(told: &Told) -> Self {
        let Some(view) = &told.view else { return Self::default() };
        let (mut here, mut there) = (None, Vec::new());
        for node in view.nodes.values() {
            let addresses = Addresses { daemon: node.advertise_addr, data_path: node.data_path_addr };
            match node.id.to_string() == told.status.node_id {
                true => here = Some(addresses),
                false => there.push((node.name.to_string(), addresses)),
            }
        }
        let others = Self { here, there, net: None };
        let holds_all = |net: &IpNet| {
            net.prefix_len() > 0
                && others.addresses().chain(others.own()).all(|address| net.contains(&address))
        };
        let nets = routes::networks().into_iter().filter(holds_all);
        let net = nets.max_by_key(IpNet::prefix_len).filter(|_| !others.there.is_empty());
        Self { net, ..others }
    }

    fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.here.iter().flat_map(|here| [here.daemon, here.data_path])
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.there.iter().flat_map(|(_, there)| [there.daemon, there.data_path])
    }

    /// The first packet to a port that passes a chain, from each of the others, or to each where it passes what leaves; with
    /// the other's name. One of which nothing is known where nobody is known.
    pub fn packets<'a>(
        &'a self,
        base: &Base<'_>,
        port: u16,
        protocol: &'a str,
    ) -> Vec<(&'a str, Packet<'a>)> {
        let any = Packet::to_port(protocol, port);
        let Some(here) = &self.here else { return vec![("", any)] };
        let (way_in, family) = (base.is_way_in(), base.family);
        let fits = |address: &IpAddr| match family {
            "ip" => address.is_ipv4(),
            "ip6" => address.is_ipv6(),
            _ => true,
        };
        let there = self.there.iter().map(|(name, there)| (name.as_str(), there.at(port)));
        let packet = |(name, there)| {
            let (here, there) = (Some(here.at(port)), Some(there));
            let (source, destination) = if way_in { (there, here) } else { (here, there) };
            (name, Packet { source, destination, ..any })
        };
        there.filter(|(_, address)| fits(address)).map(packet).collect()
    }

    /// Where packets are to be let in from: the network that all are in, else each address.
    pub fn sources(&self) -> Vec<String> {
        if let Some(net) = self.net {
            return vec![net.trunc().to_string()];
        }
        let all: BTreeSet<IpAddr> = self.addresses().collect();
        if all.is_empty() { vec![NODES.to_owned()] } else { all.iter().map(IpAddr::to_string).collect() }
    }

    /// Nodes n2, n3, ... of these addresses, beside this one.
    #[cfg(test)]
    pub fn known(here: &str, there: &[&str]) -> Self {
        let addresses = |text: &str| {
            let address = text.parse().unwrap();
            Addresses { daemon: address, data_path: address }
        };
        let there = (2..).zip(there).map(|(number, text)| (format!("n{number}"), addresses(text))).collect();
        Self { here: Some(addresses(here)), there, net: None }
    }
}
