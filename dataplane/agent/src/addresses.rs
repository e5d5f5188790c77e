//! Addresses for tasks: out of the node's leases, and from the managers when those are used up.

use std::net::IpAddr;

use mesh_types::{Network, NetworkId};
use tracing::warn;

use crate::{Agent, AttachError, LocalTask, SessionError, planner::Family};

/// How many addresses of a family are asked for when a network's lease of it is used up.
const LEASE_BATCH: u32 = 8;
/// How many unused addresses of a family a network's lease keeps, for attaches that no manager is asked for.
const KEEP_FREE: usize = LEASE_BATCH as usize;

/// The addresses of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The network.
    pub network: NetworkId,
    /// One for each family of the network, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Those of them that somebody asked for.
    pub fixed: Vec<IpAddr>,
}

impl Agent {
    /// An address of each family on each network, `fixed` on the only one; none on an error.
    pub(crate) async fn take_addresses(
        &self,
        networks: &[Network],
        fixed: &[IpAddr],
    ) -> Result<Vec<Taken>, AttachError> {
        let mut all: Vec<Taken> = Vec::new();
        for network in networks {
            let mut taken = Taken { network: network.id, addresses: Vec::new(), fixed: fixed.to_vec() };
            let done = self.take_on(network, fixed, &mut taken.addresses).await;
            all.push(taken);
            if let Err(error) = done {
                self.give_back(all).await;
                return Err(error);
            }
        }
        Ok(all)
    }

    async fn take_on(
        &self,
        network: &Network,
        fixed: &[IpAddr],
        taken: &mut Vec<IpAddr>,
    ) -> Result<(), AttachError> {
        for family in Family::ALL {
            let asked = fixed.iter().copied().find(|a| Family::of(*a) == family);
            if family.is_on(network) || asked.is_some() {
                taken.push(self.take_address(network, family, asked).await?);
            }
        }
        Ok(())
    }

    async fn take_address(
        &self,
        network: &Network,
        family: Family,
        fixed: Option<IpAddr>,
    ) -> Result<IpAddr, AttachError> {
        let lease_error = |source| AttachError::Lease { network: network.name.clone(), source };
        let take = |address: Option<IpAddr>| {
            let mut state = self.lock();
            match address {
                Some(a) => state.leases.take_address(network.id, a).then_some(a),
                None => state.leases.take(network.id, family),
            }
        };
        // Another attach may take what was leased for this one, hence a few turns.
        for _ in 0..4 {
            if let Some(address) = take(fixed) {
                return Ok(address);
            }
            if let Some(address) = fixed {
                self.check_static(network, address)?;
            }
            let leased = self.inner.session.lease(network.id, LEASE_BATCH, family, fixed).await;
            self.lock().leases.add(network.id, &leased.map_err(lease_error)?);
        }
        Err(lease_error(SessionError::Failed("every leased address was taken at once by other tasks".into())))
    }

    fn check_static(&self, network: &Network, address: IpAddr) -> Result<(), AttachError> {
        if !network.subnet_of(address).is_some_and(|s| s.is_host(address)) {
            let subnets: Vec<_> = network.subnets.iter().map(|s| s.net().to_string()).collect();
            let (network, subnets) = (network.name.clone(), subnets.join(", "));
            return Err(AttachError::AddressOutside { address, network, subnets });
        }
        let state = self.lock();
        let on = |t: &&LocalTask| {
            t.attachments.iter().any(|a| a.network == network.id && a.addresses.contains(&address))
        };
        match state.tasks.iter().find(on) {
            Some(task) => {
                let (network, task) = (network.name.clone(), task.name.clone());
                Err(AttachError::AddressTaken { address, network, task })
            }
            None => Ok(()),
        }
    }

    /// Puts back what tasks had, and gives the managers what is unused then: addresses that were asked for by number,
    /// and what is too much. Where that fails, this node keeps them.
    pub(crate) async fn give_back(&self, had: Vec<Taken>) {
        for Taken { network, addresses, fixed } in had {
            let unused: Vec<_> = {
                let mut state = self.lock();
                addresses.iter().for_each(|a| state.leases.put_back(network, *a));
                let fixed: Vec<_> = fixed.into_iter().filter(|a| addresses.contains(a)).collect();
                state.leases.give_back(network, &fixed, KEEP_FREE)
            };
            if unused.is_empty() {
                continue;
            }
            match self.inner.session.return_lease(network, &unused).await {
                Ok(()) => {}
                // Whether they are given back is not known: the managers' next word tells.
                Err(SessionError::Failed(error)) => warn!(%network, error, "return leased addresses"),
                Err(SessionError::NoManager(_) | SessionError::Refused(_)) => {
                    self.lock().leases.add(network, &unused);
                }
            }
        }
    }
}
