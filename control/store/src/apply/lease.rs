//! Address leases.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_ipam::{AddressError, AddressPool};
use mesh_types::{Family, Name, Network, NetworkId, NodeId, Subnet};

use super::{Change, Outcome};
use crate::{
    Holder, LeaseChange, Leased, Rejection, Renewal, Response,
    state::{AddressUse, Cluster},
};

/// The most addresses of a family that one [`crate::Command::Lease`] gives; nodes ask for as many as they use.
///
/// It gives no more than a fair share either: what is free, divided by the nodes and one more for those that come,
/// but at least one. So three nodes can share a /29, and the first ones do not starve the last.
pub const MAX_LEASE: u32 = 64;
/// How long a node is silent before its unused addresses are taken back, unless set, in seconds: a weekend.
pub const DEFAULT_LEASE_GRACE: u32 = 72 * 3600;
/// The least it can be set to: a node gives out no address after half of it.
pub const MIN_LEASE_GRACE: u32 = 10;

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
                return Err(self.exhausted(entry.network, pool));
            }
            let fair = (pool.free() / (self.nodes.len() as u128 + 1)).clamp(1, u128::from(MAX_LEASE));
            // At most MAX_LEASE, so it fits.
            addresses.extend(pool.pick(u128::from(count.max(1)).min(fair) as usize));
        }
        if let (Some(family), []) = (family, addresses.as_slice()) {
            let network = entry.network.name.clone();
            return Err(Rejection::NoSuchFamily { network, family });
        }

        for pool in self.pools_mut(id) {
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
        let entry = self.known_network(id)?;
        let network = entry.network.name.clone();
        let subnets = entry.network.subnets.iter().map(Subnet::net).collect();
        let Some(pool) = self.pool_of(id, address) else {
            return Err(Rejection::AddressOutside { address, network, subnets });
        };
        let change = match pool.take(address, AddressUse::Lease(node)) {
            Ok(()) => Change::Hidden,
            Err(AddressError::Taken { holder, .. }) if holder.node() == Some(node) => Change::Nothing,
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

    pub(super) fn renew_leases(
        &mut self,
        node: NodeId,
        after: u64,
        changes: BTreeMap<NetworkId, LeaseChange>,
        full: bool,
        version: u64,
    ) -> Outcome {
        self.known_node(node)?;
        let before = self.renewals.get(&node).copied().unwrap_or_default();
        let grace_secs = self.lease_grace_secs;
        if before.count != after {
            let (renewal, lost, held) = (before.count, Vec::new(), None);
            let response =
                Response::Renewed { renewal, done: false, grace_secs, lost, held, version: version - 1 };
            return Ok((response, Change::Nothing));
        }
        let mut lost = Vec::new();
        let (task, spare) = (AddressUse::Task(node), AddressUse::Lease(node));
        for (id, change) in changes {
            if !self.networks.contains_key(&id) {
                continue;
            }
            for address in change.returned {
                self.pool_of(id, address)
                    .map(|pool| pool.release(address, &spare) || pool.release(address, &task));
            }
            for address in change.unused {
                self.pool_of(id, address).map(|pool| pool.change(address, &task, spare));
            }
            for address in change.used {
                let its_own = self.pool_of(id, address).is_some_and(|pool| {
                    pool.held().get(&address) == Some(&task)
                        || pool.change(address, &spare, task)
                        || pool.take(address, task).is_ok()
                });
                if !its_own {
                    lost.push((id, address));
                }
            }
        }
        let renewal = before.count + 1;
        self.renewals.insert(node, Renewal { count: renewal, grace_secs });
        let held = full.then(|| self.leases_of(node));
        Ok((Response::Renewed { renewal, done: true, grace_secs, lost, held, version }, Change::Hidden))
    }

    pub(super) fn take_back_leases(&mut self, node: NodeId, after: u64) -> Outcome {
        self.known_node(node)?;
        let renewal = self.renewals.get(&node).copied().unwrap_or_default();
        let mut returned = Vec::new();
        if renewal.count != after {
            return Ok((Response::Returned(returned), Change::Nothing));
        }
        let spare = AddressUse::Lease(node);
        for pool in self.pools.values().flat_map(|pools| pools.iter()) {
            returned.extend(pool.held().iter().filter(|(_, used)| **used == spare).map(|(a, _)| *a));
        }
        self.release_everywhere(&[spare]);
        // A renewal that is on its way speaks of leases that are no more.
        self.renewals.insert(node, Renewal { count: renewal.count + 1, ..renewal });
        Ok((Response::Returned(returned), Change::Hidden))
    }

    pub(super) fn set_lease_grace(&mut self, secs: u32) -> Outcome {
        if secs < MIN_LEASE_GRACE {
            return Err(Rejection::LeaseGrace(secs));
        }
        let before = std::mem::replace(&mut self.lease_grace_secs, secs);
        Ok((Response::Done, if before == secs { Change::Nothing } else { Change::Hidden }))
    }

    /// The rejection for a network without a free address in one of its pools, with who has them.
    pub(super) fn exhausted(&self, network: &Network, pool: &AddressPool<AddressUse>) -> Rejection {
        let mut vips = 0;
        let mut leases: BTreeMap<Name, Leased> = BTreeMap::new();
        for held in pool.held().values() {
            // Leases end with their node, so it is there.
            match held.node().and_then(|node| self.nodes.get(&node)) {
                None => vips += 1,
                Some(node) => {
                    let leased = leases.entry(node.name.clone()).or_default();
                    leased.held += 1;
                    leased.used += u64::from(matches!(held, AddressUse::Task(_)));
                }
            }
        }
        Rejection::AddressesExhausted {
            network: network.name.clone(),
            subnet: pool.subnet().net(),
            vips,
            leases: leases.into_iter().collect(),
        }
    }

    /// The pool of a network whose subnet the address is of, to be changed.
    fn pool_of(&mut self, network: NetworkId, address: IpAddr) -> Option<&mut AddressPool<AddressUse>> {
        self.pools_mut(network).iter_mut().find(|pool| pool.subnet().net().contains(&address))
    }

    fn holder(&self, used: AddressUse) -> Result<Holder, Rejection> {
        Ok(match used {
            AddressUse::Vip(service) => Holder::Vip(self.known_service(service)?.name.clone()),
            AddressUse::Lease(node) | AddressUse::Task(node) => {
                Holder::Node(self.known_node(node)?.name.clone())
            }
            AddressUse::Auxiliary => Holder::Auxiliary,
        })
    }
}
