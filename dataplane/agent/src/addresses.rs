//! Addresses for tasks: out of the node's leases, and from the managers when those are used up.

use std::net::IpAddr;

use mesh_types::{Network, NetworkId, Owner};
use tracing::warn;

use crate::{Agent, AttachError, LocalTask, SessionError, SessionState, leases::boot_time, planner::Family};

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
        owner: Option<&Owner>,
    ) -> Result<Vec<Taken>, AttachError> {
        let mut all: Vec<Taken> = Vec::new();
        for network in networks {
            let mut taken = Taken { network: network.id, addresses: Vec::new(), fixed: fixed.to_vec() };
            let done = self.take_on(network, fixed, owner, &mut taken.addresses).await;
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
        owner: Option<&Owner>,
        taken: &mut Vec<IpAddr>,
    ) -> Result<(), AttachError> {
        for family in Family::ALL {
            let asked = fixed.iter().copied().find(|a| Family::of(*a) == family);
            if family.is_on(network) || asked.is_some() {
                let held = self.lock().take_held(network.id, family, asked, owner);
                taken.push(match held {
                    Some(address) => address,
                    None => self.take_address(network, family, asked).await?,
                });
            }
        }
        Ok(())
    }

    pub(crate) async fn take_address(
        &self,
        network: &Network,
        family: Family,
        fixed: Option<IpAddr>,
    ) -> Result<IpAddr, AttachError> {
        let lease_error = |source| AttachError::Lease { network: network.name.clone(), source };
        let take = |address: Option<IpAddr>| {
            let (mut state, now) = (self.lock(), boot_time());
            match address {
                Some(a) => state.leases.take_address(network.id, a, now).then_some(a),
                None => state.leases.take(network.id, family, now),
            }
        };
        if let SessionState::Removed(why) = self.inner.session.state() {
            return Err(lease_error(SessionError::Refused(why)));
        }
        // Another attach may take what was leased for this one, hence a few turns.
        for _ in 0..4 {
            if let Some(address) = take(fixed) {
                return Ok(address);
            }
            if let Some(address) = fixed {
                self.check_static(network, address)?;
            }
            let turn = self.inner.renewing.turn().await;
            if let Some(address) = take(fixed) {
                return Ok(address);
            }
            if self.lock().leases.must_renew_first(boot_time()) {
                self.renew(&turn).await.map_err(lease_error)?;
                continue;
            }
            let (term, count) = {
                let state = self.lock();
                (state.leases.term(), state.leases.batch(network.id, family))
            };
            let leased = self.inner.session.lease(network.id, count, family, fixed);
            let leased = mesh_trace::within("lease addresses", leased).await;
            let leased = leased.map_err(lease_error)?;
            self.lock().leases.add(term, network.id, &leased, boot_time());
            drop(turn);
            if let Err(error) = self.save_leases() {
                warn!(%error, "keep leases");
            }
        }
        Err(lease_error(SessionError::Failed("every leased address was taken at once by other tasks".into())))
    }

    fn check_static(&self, network: &Network, address: IpAddr) -> Result<(), AttachError> {
        let Some(subnet) = network.subnet_of(address) else {
            let subnets: Vec<_> = network.subnets.iter().map(|s| s.net().to_string()).collect();
            let (network, subnets) = (network.name.clone(), subnets.join(", "));
            return Err(AttachError::AddressOutside { address, network, subnets });
        };
        if !subnet.is_host(address) {
            let (network, subnet) = (network.name.clone(), subnet.net());
            return Err(AttachError::AddressOfSubnet { address, network, subnet });
        }
        let state = self.lock();
        if let Some(hold) =
            state.holds.iter().find(|h| !h.used && (h.network, h.address) == (network.id, address))
        {
            let (network, owner) = (network.name.clone(), hold.owner.clone());
            return Err(AttachError::AddressHeld { address, network, owner });
        }
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

    /// Puts back what tasks had. Addresses that were asked for by number go back to the managers at once: somebody else
    /// may want them.
    pub(crate) async fn give_back(&self, had: Vec<Taken>) {
        let mut wanted = false;
        {
            let (mut state, now) = (self.lock(), boot_time());
            for Taken { network, mut addresses, fixed } in had {
                // What somebody keeps stays in use.
                addresses.retain(|address| !state.use_held(network, *address, false));
                addresses.iter().for_each(|a| state.leases.put_back(network, *a, now));
                let fixed: Vec<_> = fixed.into_iter().filter(|a| addresses.contains(a)).collect();
                state.leases.give_back(network, &fixed);
                wanted |= !fixed.is_empty();
            }
        }
        match wanted {
            true => self.return_now().await,
            false => self.inner.renewing.soon(),
        }
    }
}
