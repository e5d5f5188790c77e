//! Networks.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;
use mesh_ipam::{AddressPool, SubnetPool};
use mesh_types::{Family, Name, Network, NetworkId, PublishMode, Service, Subnet};

use super::{Change, Outcome, expect_version, free_name};
use crate::{
    Kind, NetworkChange, NewNetwork, Rejection, Response,
    state::{AddressUse, Cluster},
};

/// The MTUs that a network may be given, in bytes: what IPv4 hosts must accept (RFC 791), and what fits a packet
/// with VXLAN's 50 bytes.
pub const MTU_RANGE: RangeInclusive<u16> = 576..=65_485;
/// The least MTU of a network with IPv6, in bytes (RFC 8200, section 5).
pub const IPV6_MTU: u16 = 1280;

impl Cluster {
    pub(super) fn create_network(&mut self, new: NewNetwork, version: u64) -> Outcome {
        if self.networks.contains_key(&new.id) {
            return Err(Rejection::IdTaken { kind: Kind::Network, id: new.id.to_string() });
        }
        let replaced = self.networks.values().find(|network| new.ingress && network.ingress).cloned();
        if let Some(ingress) = &replaced {
            self.refuse_needed_ingress(ingress)?;
        }
        let stays = |network: &&Arc<Network>| replaced.as_ref().is_none_or(|gone| gone.id != network.id);
        let others = self.networks.values().filter(stays);
        free_name(Kind::Network, &new.name, others.map(|network| &network.name))?;
        if let Some(given) = new.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            return Err(Rejection::Mtu { network: new.name, given });
        }
        let subnets = self.subnets_for(&new)?;
        let has_ipv6 = subnets.iter().any(|subnet| subnet.family() == Family::V6);
        if let Some(given) = new.mtu.filter(|mtu| has_ipv6 && *mtu < IPV6_MTU) {
            return Err(Rejection::Mtu6 { network: new.name, given });
        }
        let pools = address_pools(&new, &subnets)?;
        let vni = self.vnis.pick().ok_or(Rejection::VnisExhausted)?;

        self.vnis.take(vni);
        if let Some(ingress) = replaced {
            self.vnis.release(ingress.vni);
            self.networks.remove(&ingress.id);
            self.pools.remove(&ingress.id);
        }
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
            ip_ranges: new.ip_ranges,
            aux_addresses: new.aux_addresses,
            version,
        };
        self.pools.insert(network.id, Arc::new(pools));
        self.networks.insert(network.id, Arc::new(network.clone()));
        Ok((Response::Network(network), Change::View))
    }

    pub(super) fn update_network(&mut self, id: NetworkId, change: NetworkChange, version: u64) -> Outcome {
        let before = self.known_network(id)?.network;
        expect_version(Kind::Network, &before.name, before.version, change.expected_version)?;
        let mut network = before.clone();
        network.attachable = change.attachable.unwrap_or(network.attachable);
        network.labels.retain(|key, _| !change.remove_labels.contains(key));
        network.labels.extend(change.set_labels);
        if network == *before {
            return Ok((Response::Network(network), Change::Nothing));
        }
        network.version = version;
        self.networks.insert(id, Arc::new(network.clone()));
        Ok((Response::Network(network), Change::View))
    }

    /// Refuses to let the ingress network go while services are on it, or have ports that it carries.
    fn refuse_needed_ingress(&self, ingress: &Network) -> Result<(), Rejection> {
        let needs = |service: &&Arc<Service>| {
            service.networks.iter().any(|on| on.network == ingress.id)
                || service.ports.iter().any(|port| port.mode == PublishMode::Ingress)
        };
        let mut services: Vec<Name> =
            self.services.values().filter(needs).map(|service| service.name.clone()).collect();
        if services.is_empty() {
            return Ok(());
        }
        services.sort();
        Err(Rejection::IngressInUse { network: ingress.name.clone(), services })
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Outcome {
        let network = self.known_network(id)?.network;
        if network.ingress {
            return Err(Rejection::IngressNeeded(network.name.clone()));
        }
        let on_it = self.services.values().filter(|s| s.networks.iter().any(|n| n.network == id));
        let mut services: Vec<Name> = on_it.map(|service| service.name.clone()).collect();
        if !services.is_empty() {
            services.sort();
            return Err(Rejection::NetworkInUse { network: network.name.clone(), services });
        }
        let vni = network.vni;
        self.vnis.release(vni);
        self.networks.remove(&id);
        self.pools.remove(&id);
        Ok((Response::Done, Change::View))
    }

    /// The subnets asked for, else a free one of the pool, IPv4 first. Subnets of other networks may overlap: networks
    /// never meet.
    fn subnets_for(&self, new: &NewNetwork) -> Result<Vec<Subnet>, Rejection> {
        let mut subnets: Vec<Subnet> = Vec::new();
        for (net, gateway) in &new.subnets {
            let subnet = Subnet::new(*net, *gateway)?;
            let family = subnet.family();
            if let Some(first) = subnets.iter().find(|first| first.family() == family) {
                let (network, first) = (new.name.clone(), first.net());
                return Err(Rejection::SubnetsOfOneFamily { network, family, first, second: *net });
            }
            subnets.push(subnet);
        }
        if subnets.is_empty() {
            subnets.push(self.free_subnet(&self.subnets)?);
        }
        if new.ipv6 && !subnets.iter().any(|subnet| subnet.family() == Family::V6) {
            subnets.push(self.free_subnet(&self.subnets6)?);
        }
        subnets.sort_by_key(Subnet::family);
        Ok(subnets)
    }

    /// A subnet of the pool that overlaps no network, nor any node's address: tasks would lose the way to that node.
    fn free_subnet(&self, pool: &SubnetPool) -> Result<Subnet, Rejection> {
        let networks = self.networks.values().flat_map(|network| &network.subnets).map(Subnet::net);
        let nodes = self.nodes.values().flat_map(|n| [n.advertise_addr, n.data_path_addr]).map(IpNet::from);
        let net = pool.pick(networks.chain(nodes));
        let net = net.ok_or(Rejection::SubnetsExhausted(pool.range()))?;
        Ok(Subnet::new(net, None)?)
    }
}

/// A pool per subnet, each of the range of its family, without the auxiliary addresses.
fn address_pools(new: &NewNetwork, subnets: &[Subnet]) -> Result<Vec<AddressPool<AddressUse>>, Rejection> {
    let mut ranges: BTreeMap<Family, IpNet> = BTreeMap::new();
    for range in &new.ip_ranges {
        let family = Family::of(range.addr());
        let network = || new.name.clone();
        if !subnets.iter().any(|subnet| subnet.family() == family) {
            return Err(Rejection::IpRangeFamily { network: network(), family, range: *range });
        }
        if let Some(first) = ranges.insert(family, *range) {
            return Err(Rejection::IpRangesOfOneFamily { network: network(), family, first, second: *range });
        }
    }
    let pool = |subnet: &Subnet| {
        AddressPool::new(*subnet, ranges.get(&subnet.family()).copied()).map_err(|e| Rejection::IpRange {
            network: new.name.clone(),
            range: e.range,
            subnet: e.subnet,
        })
    };
    let mut pools: Vec<_> = subnets.iter().map(pool).collect::<Result<_, _>>()?;
    for &address in new.aux_addresses.values() {
        let refused = || Rejection::AuxAddress { network: new.name.clone(), address };
        let pool =
            pools.iter_mut().find(|pool| pool.subnet().net().contains(&address)).ok_or_else(refused)?;
        pool.take(address, AddressUse::Auxiliary).map_err(|_| refused())?;
        if pool.free() == 0 {
            return Err(refused());
        }
    }
    Ok(pools)
}
