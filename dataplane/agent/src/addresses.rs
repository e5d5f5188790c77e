//! Addresses for tasks: out of the node's leases, and from the managers when those are used up.

use std::net::IpAddr;

use mesh_types::{Network, NetworkId};
use tracing::warn;

use crate::{Agent, AttachError, LocalTask, SessionError};

/// How many addresses are asked for when a network's lease is used up.
const LEASE_BATCH: u32 = 8;
/// How many unused addresses a network's lease keeps, for attaches that no manager is asked for.
const KEEP_FREE: usize = LEASE_BATCH as usize;

impl Agent {
    /// An address on each network, `fixed` on the only one; none on an error.
    pub(crate) async fn take_addresses(
        &self,
        networks: &[Network],
        fixed: Option<IpAddr>,
    ) -> Result<Vec<IpAddr>, AttachError> {
        let mut taken: Vec<IpAddr> = Vec::new();
        for network in networks {
            match self.take_address(network, fixed).await {
                Ok(address) => taken.push(address),
                Err(error) => {
                    self.give_back(networks.iter().zip(taken).map(|(n, a)| (n.id, a, false)).collect()).await;
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    async fn take_address(&self, network: &Network, fixed: Option<IpAddr>) -> Result<IpAddr, AttachError> {
        let lease_error = |source| AttachError::Lease { network: network.name.clone(), source };
        let take = |address: Option<IpAddr>| {
            let mut state = self.lock();
            match address {
                Some(a) => state.leases.take_address(network.id, a).then_some(a),
                None => state.leases.take(network.id),
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
            let leased =
                self.inner.session.lease(network.id, LEASE_BATCH, fixed).await.map_err(lease_error)?;
            self.lock().leases.add(network.id, &leased);
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
        let on =
            |t: &&LocalTask| t.attachments.iter().any(|a| a.network == network.id && a.address == address);
        match state.tasks.iter().find(on) {
            Some(task) => {
                let (network, task) = (network.name.clone(), task.name.clone());
                Err(AttachError::AddressTaken { address, network, task })
            }
            None => Ok(()),
        }
    }

    /// Puts back what tasks had, and gives the managers what is unused then: addresses that were asked for by number
    /// (`true`), and what is too much. Where that fails, this node keeps them.
    pub(crate) async fn give_back(&self, had: Vec<(NetworkId, IpAddr, bool)>) {
        for (network, address, fixed) in had {
            let unused = {
                let mut state = self.lock();
                state.leases.put_back(network, address);
                state.leases.give_back(network, fixed.then_some(address), KEEP_FREE)
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
