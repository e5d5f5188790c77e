//! Networks.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use mesh_ipam::AddressPool;
use mesh_types::{Name, Network, NetworkId, Subnet};

use super::{Change, Outcome, free_name};
use crate::{
    Kind, NewNetwork, Rejection, Response,
    state::{Cluster, NetworkEntry},
};

/// The MTUs that a network may be given, in bytes: what IPv4 hosts must accept (RFC 791), and what fits a packet
/// with VXLAN's 50 bytes.
pub const MTU_RANGE: RangeInclusive<u16> = 576..=65_485;

impl Cluster {
    pub(super) fn create_network(&mut self, new: NewNetwork) -> Outcome {
        if self.networks.contains_key(&new.id) {
            return Err(Rejection::IdTaken { kind: Kind::Network, id: new.id.to_string() });
        }
        free_name(Kind::Network, &new.name, self.networks.values().map(|entry| &entry.network.name))?;
        if let Some(given) = new.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            return Err(Rejection::Mtu { network: new.name, given });
        }
        let ingress = self.networks.values().find(|entry| new.ingress && entry.network.ingress);
        if let Some(entry) = ingress {
            return Err(Rejection::IngressExists(entry.network.name.clone()));
        }
        let subnets = self.subnets_for(&new.name, &new.subnets)?;
        let pools = subnets.iter().map(|subnet| address_pool(&new.name, *subnet, new.ip_range));
        let pools = pools.collect::<Result<Vec<_>, _>>()?;
        let vni = self.vnis.pick().ok_or(Rejection::VnisExhausted)?;

        self.vnis.take(vni);
        let network = Network {
            id: new.id,
            name: new.name,
            vni,
            subnets,
            attachable: new.attachable,
            internal: new.internal,
            ingress: new.ingress,
            mtu: new.mtu,
            labels: new.labels,
            created_at: new.now,
        };
        self.networks.insert(network.id, NetworkEntry { network: network.clone(), pools });
        Ok((Response::Network(network), Change::View))
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Outcome {
        let network = &self.known_network(id)?.network;
        if network.ingress {
            return Err(Rejection::IngressNeeded(network.name.clone()));
        }
        let on_it = self.services.values().filter(|s| s.networks.iter().any(|n| n.network == id));
        let mut services: Vec<Name> = on_it.map(|service| service.name.clone()).collect();
        if !services.is_empty() {
            services.sort();
            return Err(Rejection::NetworkInUse { network: network.name.clone(), services });
        }
        self.vnis.release(network.vni);
        self.networks.remove(&id);
        Ok((Response::Done, Change::View))
    }

    /// The subnets asked for, else a free one of the pool. Subnets of other networks may overlap: networks never meet.
    fn subnets_for(
        &self,
        network: &Name,
        asked: &[(IpNet, Option<IpAddr>)],
    ) -> Result<Vec<Subnet>, Rejection> {
        if asked.is_empty() {
            return Ok(vec![self.free_subnet()?]);
        }
        let mut subnets: Vec<Subnet> = Vec::new();
        for (net, gateway) in asked {
            refuse_ipv6(*net)?;
            let subnet = Subnet::new(*net, *gateway)?;
            if let Some(first) = subnets.iter().map(Subnet::net).find(|first| overlap(first, net)) {
                return Err(Rejection::OwnSubnetsOverlap { network: network.clone(), first, second: *net });
            }
            subnets.push(subnet);
        }
        // All are IPv4 until IPv6 is let in.
        if let [first, second, ..] = subnets.as_slice() {
            let (first, second) = (first.net(), second.net());
            return Err(Rejection::SubnetsOfOneFamily { network: network.clone(), first, second });
        }
        Ok(subnets)
    }

    /// A subnet of the pool that overlaps no network, nor any node's address: tasks would lose the way to that node.
    fn free_subnet(&self) -> Result<Subnet, Rejection> {
        let networks = self.networks.values().flat_map(|entry| &entry.network.subnets).map(Subnet::net);
        let nodes = self.nodes.values().flat_map(|n| [n.advertise_addr, n.data_path_addr]).map(IpNet::from);
        let net = self.subnets.pick(networks.chain(nodes));
        let net = net.ok_or(Rejection::SubnetsExhausted(self.subnets.range()))?;
        Ok(Subnet::new(net, None)?)
    }
}

/// The one place that keeps IPv6 out of overlays, for as long as the data path has none.
pub(super) fn refuse_ipv6(net: IpNet) -> Result<(), Rejection> {
    if net.addr().is_ipv6() { Err(Rejection::Ipv6Overlay(net)) } else { Ok(()) }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn address_pool<H: Clone + PartialEq>(
    network: &Name,
    subnet: Subnet,
    range: Option<IpNet>,
) -> Result<AddressPool<H>, Rejection> {
    AddressPool::new(subnet, range).map_err(|e| Rejection::IpRange {
        network: network.clone(),
        range: e.range,
        subnet: e.subnet,
    })
}
