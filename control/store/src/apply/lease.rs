//! Address leases.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_ipam::{AddressError, AddressPool};
use mesh_types::{Family, Name, NetworkId, NodeId, Subnet};

use super::{Change, Outcome};
use crate::{
    Holder, Rejection, Response,
    state::{AddressUse, Cluster, NetworkEntry},
};

/// The most addresses of a family that one [`crate::Command::Lease`] gives.
///
/// It gives no more than a fair share either: what is free, divided by the nodes and one more for those that come,
/// but at least one. So three nodes can share a /29, and the first ones do not starve the last.
pub const MAX_LEASE: u32 = 8;

impl Cluster {
    pub(super) fn lease(
        &mut self,
        node: NodeId,
        id: NetworkId,
        count: u32,
        family: Option<Family>,
    ) -> Outcome {
        self.known_node(node)?;
        let entry = self.known_network(id)?;
        let wanted = |pool: &AddressPool<AddressUse>| family.is_none_or(|f| f == pool.subnet().family());
        let mut addresses = Vec::new();
        for pool in entry.pools.iter().filter(|pool| wanted(pool)) {
            if pool.free() == 0 {
                return Err(self.exhausted(entry, pool));
            }
            let fair = (pool.free() / (self.nodes.len() as u128 + 1)).clamp(1, u128::from(MAX_LEASE));
            // At most MAX_LEASE, so it fits.
            addresses.extend(pool.pick(u128::from(count.max(1)).min(fair) as usize));
        }
        if let (Some(family), []) = (family, addresses.as_slice()) {
            let network = entry.network.name.clone();
            return Err(Rejection::NoSuchFamily { network, family });
        }

        for pool in self.networks.get_mut(&id).into_iter().flat_map(|entry| &mut entry.pools) {
            let net = pool.subnet().net();
            for address in addresses.iter().filter(|a| net.contains(*a)) {
                // Chosen as free above, each once.
                let _ = pool.take_picked(*address, AddressUse::Lease(node));
            }
        }
        Ok((Response::Leased(addresses), Change::Hidden))
    }

    pub(super) fn lease_address(&mut self, node: NodeId, id: NetworkId, address: IpAddr) -> Outcome {
        self.known_node(node)?;
        let entry = self.networks.get_mut(&id).ok_or(Rejection::UnknownNetwork(id))?;
        let network = entry.network.name.clone();
        let subnets = entry.network.subnets.iter().map(Subnet::net).collect();
        let pool = entry.pools.iter_mut().find(|pool| pool.subnet().net().contains(&address));
        let Some(pool) = pool else {
            return Err(Rejection::AddressOutside { address, network, subnets });
        };
        let change = match pool.take(address, AddressUse::Lease(node)) {
            Ok(()) => Change::Hidden,
            Err(AddressError::Taken { holder: AddressUse::Lease(holder), .. }) if holder == node => {
                Change::Nothing
            }
            Err(AddressError::Taken { holder, .. }) => {
                let holder = self.holder(holder)?;
                return Err(Rejection::AddressTaken { address, network, holder });
            }
            Err(AddressError::Gateway(_)) => {
                return Err(Rejection::AddressTaken { address, network, holder: Holder::Gateway });
            }
            Err(AddressError::Outside(_)) => {
                return Err(Rejection::AddressOutside { address, network, subnets });
            }
        };
        Ok((Response::Leased(vec![address]), change))
    }

    pub(super) fn return_lease(
        &mut self,
        node: NodeId,
        id: NetworkId,
        addresses: &[IpAddr],
    ) -> (Response, Change) {
        let mut returned = Vec::new();
        for pool in self.networks.get_mut(&id).into_iter().flat_map(|entry| &mut entry.pools) {
            returned.extend(addresses.iter().filter(|a| pool.release(**a, &AddressUse::Lease(node))));
        }
        let change = if returned.is_empty() { Change::Nothing } else { Change::Hidden };
        (Response::Returned(returned), change)
    }

    /// The rejection for a network without a free address in one of its pools, with who has them.
    pub(super) fn exhausted(&self, entry: &NetworkEntry, pool: &AddressPool<AddressUse>) -> Rejection {
        let mut vips = 0;
        let mut leases: BTreeMap<Name, u64> = BTreeMap::new();
        for used in pool.held().values() {
            match used {
                AddressUse::Vip(_) => vips += 1,
                AddressUse::Lease(node) => {
                    // Leases end with their node, so it is there.
                    let name = self.nodes.get(node).map(|node| node.name.clone());
                    name.into_iter().for_each(|name| *leases.entry(name).or_default() += 1);
                }
            }
        }
        Rejection::AddressesExhausted {
            network: entry.network.name.clone(),
            subnet: pool.subnet().net(),
            vips,
            leases: leases.into_iter().collect(),
        }
    }

    fn holder(&self, used: AddressUse) -> Result<Holder, Rejection> {
        Ok(match used {
            AddressUse::Vip(service) => Holder::Vip(self.known_service(service)?.name.clone()),
            AddressUse::Lease(node) => Holder::Node(self.known_node(node)?.name.clone()),
        })
    }
}
