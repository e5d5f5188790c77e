//! Addresses that somebody keeps before, between and after the tasks that have them: Docker's address manager asks for one
//! when there is no namespace yet.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_types::{Network, NetworkId, Owner};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    Agent, AgentError, AttachError, addresses::Taken, leases::boot_time, planner::Family, state::State,
};

/// An address that is kept for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its network.
    pub network: NetworkId,
    /// The address.
    pub address: IpAddr,
    /// For whom.
    pub owner: Owner,
    /// Whether it was asked for by its number.
    pub fixed: bool,
    /// Whether a task has it now.
    #[serde(skip)]
    pub used: bool,
}

/// What to keep.
#[derive(Debug, Clone)]
pub struct HoldSpec {
    /// The network, by name, id or prefix.
    pub network: String,
    /// The address; any of the family when there is none.
    pub address: Option<IpAddr>,
    /// The family when there is no address.
    pub ipv6: bool,
    /// For whom.
    pub owner: Owner,
}

/// A kept address and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The network.
    pub network: NetworkId,
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The subnet's gateway.
    pub gateway: IpAddr,
}

/// Which addresses to let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// All of an owner.
    Of(Owner),
    /// One.
    Address {
        /// The network, by name, id or prefix.
        network: String,
        /// The address.
        address: IpAddr,
    },
}

impl Agent {
    /// Keeps an address for somebody; it survives a restart. Asking again answers what is kept.
    pub async fn hold_address(&self, spec: HoldSpec) -> Result<Held, AttachError> {
        self.wait_for_news(|view| view.network(&spec.network).is_ok()).await;
        let network = self.view().network(&spec.network)?.clone();
        let family = match spec.address {
            Some(address) => Family::of(address),
            None if spec.ipv6 => Family::V6,
            None => Family::V4,
        };
        if family.subnet_of(&network).is_none() {
            let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
            return Err(AttachError::NoSubnet { network: network.name.clone(), family });
        }
        if let Some(address) = self.kept(&spec, network.id, family) {
            return held(&network, address);
        }
        let address = self.take_address(&network, family, spec.address).await?;
        let hold = Hold {
            network: network.id,
            address,
            owner: spec.owner,
            fixed: spec.address.is_some(),
            used: false,
        };
        self.lock().holds.push(hold);
        if let Err(error) = self.save_tasks() {
            self.lock().holds.retain(|h| (h.network, h.address) != (network.id, address));
            self.lock().leases.put_back(network.id, address, boot_time());
            return Err(error.into());
        }
        // The managers have to know that it is in use.
        self.inner.renewing.soon();
        held(&network, address)
    }

    fn kept(&self, spec: &HoldSpec, network: NetworkId, family: Family) -> Option<IpAddr> {
        let state = self.lock();
        let mut holds = state.holds.iter().filter(|h| h.network == network && h.owner == spec.owner);
        let same = |h: &&Hold| spec.address.map_or(Family::of(h.address) == family, |a| a == h.address);
        holds.find(same).map(|h| h.address)
    }

    /// Lets addresses go and tells how many; one that a task has stays with it until it ends.
    pub async fn release_addresses(&self, which: &Release) -> Result<usize, AgentError> {
        let network = match which {
            // One that is not known (any more) keeps nothing.
            Release::Address { network, .. } => self.view().network(network).ok().map(|n| n.id),
            Release::Of(_) => None,
        };
        let concerned = |hold: &Hold| match which {
            Release::Of(owner) => hold.owner == *owner,
            Release::Address { address, .. } => hold.address == *address && Some(hold.network) == network,
        };
        let released: Vec<Hold> = {
            let mut state = self.lock();
            let (go, stay) = std::mem::take(&mut state.holds).into_iter().partition(concerned);
            state.holds = stay;
            go
        };
        if released.is_empty() {
            return Ok(0);
        }
        let saved = self.save_tasks();
        let free = released.iter().filter(|hold| !hold.used).map(|hold| Taken {
            network: hold.network,
            addresses: vec![hold.address],
            fixed: if hold.fixed { vec![hold.address] } else { Vec::new() },
        });
        self.give_back(free.collect()).await;
        saved.map(|()| released.len())
    }

    /// The addresses that are kept.
    pub fn holds(&self) -> Vec<Hold> {
        self.lock().holds.clone()
    }

    /// Goes on to keep the addresses of before the start, but those that may be others' by now.
    pub(crate) fn adopt_holds(&self, holds: Vec<Hold>, same_boot: bool) {
        let (mut state, now) = (self.lock(), boot_time());
        for hold in holds {
            let (network, address) = (hold.network, hold.address);
            let may = match same_boot {
                true => state.leases.may_go_on(network, address, now),
                false => state.leases.is_sure(network, address),
            };
            if !may {
                warn!(owner = %hold.owner, %address, "no manager confirmed the address in time; it is not kept any more");
                continue;
            }
            state.leases.adopt(network, address, now);
            state.holds.push(hold);
        }
    }
}

impl State {
    /// The kept address that an attach gets: the one it asks for, or one of its owner.
    pub(crate) fn take_held(
        &mut self,
        network: NetworkId,
        family: Family,
        asked: Option<IpAddr>,
        owner: Option<&Owner>,
    ) -> Option<IpAddr> {
        let fits = |hold: &&mut Hold| {
            let of_kind = !hold.used && hold.network == network && Family::of(hold.address) == family;
            of_kind && asked.map_or(owner == Some(&hold.owner), |address| address == hold.address)
        };
        let hold = self.holds.iter_mut().find(fits)?;
        hold.used = true;
        Some(hold.address)
    }

    /// Keeps these addresses no more: they may be others'.
    pub(crate) fn let_go_of(&mut self, addresses: &[(NetworkId, IpAddr)]) {
        let lost = |hold: &Hold| addresses.contains(&(hold.network, hold.address));
        let (lost, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.holds).into_iter().partition(lost);
        self.holds = stay;
        for hold in lost {
            warn!(owner = %hold.owner, address = %hold.address, "the address is not this node's any more");
            if !hold.used {
                self.leases.put_back(hold.network, hold.address, boot_time());
            }
        }
    }

    /// Notes that a task has the address, or no more; false when nobody keeps it.
    pub(crate) fn use_held(&mut self, network: NetworkId, address: IpAddr, used: bool) -> bool {
        let hold = self.holds.iter_mut().find(|h| (h.network, h.address) == (network, address));
        hold.map(|hold| hold.used = used).is_some()
    }
}

fn held(network: &Network, address: IpAddr) -> Result<Held, AttachError> {
    let outside = || AttachError::AddressOutside {
        address,
        network: network.name.clone(),
        subnets: network.subnets.iter().map(|s| s.net().to_string()).collect::<Vec<_>>().join(", "),
    };
    let subnet = network.subnet_of(address).ok_or_else(outside)?;
    let address = IpNet::new(address, subnet.net().prefix_len()).map_err(|_| outside())?;
    Ok(Held { network: network.id, address, gateway: subnet.gateway() })
}
