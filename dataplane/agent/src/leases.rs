//! Addresses that the managers leased to this node, and which of them tasks use. Pure; `docs/adr/0010-leases.md` says why
//! it is safe.
//!
//! An address is *sure* while the managers know that a task of this node uses it: it stays this node's however long they do
//! not hear of it. Any other may be given to a task only within the node's *term*, half the grace after which managers take
//! such addresses back, and its task loses it when the term ends before they have heard of it. Times are those since boot
//! ([`boot_time`]), which nobody sets.

mod messages;
mod term;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use mesh_types::NetworkId;
use serde::{Deserialize, Serialize};

use crate::planner::Family;

pub use messages::{Answer, NetworkChange, Renewal};
pub use term::{Term, boot_time};

/// The fewest addresses of a family that are asked for, and kept while tasks use any.
const FEWEST: usize = 4;
/// The most that are asked for at once.
const MOST: usize = 64;
/// How long a network without tasks keeps its lease.
const IDLE: Duration = Duration::from_secs(600);
/// How long addresses that others want are kept when no task uses them: an attach under way takes them.
const IDLE_SCARCE: Duration = Duration::from_secs(5);

/// What the managers say that this node holds of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether there is little left for others.
    pub scarce: bool,
}

/// The leases of a node. Freed addresses go to the end of the line, so that an address rests before it is used again.
#[derive(Debug, Clone, Default)]
pub struct Leases {
    networks: BTreeMap<NetworkId, Lease>,
    term: Term,
    /// What was said to the managers, until it is known whether they heard it.
    pending: Option<Renewal>,
    /// Whether the managers may count addresses as used that no task uses.
    unsettled: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    free: VecDeque<IpAddr>,
    #[serde(skip)]
    used: BTreeSet<IpAddr>,
    /// Those that the managers know to be used, whether they still are or not.
    sure: BTreeSet<IpAddr>,
    /// Being given back; what the managers say may not know of that yet.
    returning: BTreeSet<IpAddr>,
    /// Those that the kernel takes from their task at the end of the term, should this daemon not be there to do it.
    limited: BTreeSet<IpAddr>,
    scarce: bool,
    /// Since when it is as it is: no task came or went.
    #[serde(skip)]
    since: Duration,
}

/// Leases as a node keeps them on disk. What tasks use is kept with the tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLeases {
    networks: BTreeMap<NetworkId, Lease>,
    term: Term,
}

impl Leases {
    /// Goes on with what was kept. After a reboot nobody knows how long the node was away: its term is over.
    pub fn restore(kept: KeptLeases, same_boot: bool) -> Self {
        let KeptLeases { networks, mut term } = kept;
        if !same_boot {
            term.end();
        }
        Self { networks, term, pending: None, unsettled: true }
    }

    /// What to keep: before [`Leases::begin`]'s renewal is sent, and when the managers have said something new.
    pub fn kept(&self) -> KeptLeases {
        KeptLeases { networks: self.networks.clone(), term: self.term }
    }

    /// Takes over what the managers say this node holds, as of that version of the state. Addresses in use stay in use even
    /// where the managers no longer list them: [`Leases::end`] and [`Leases::expired`] end that.
    pub fn replace(&mut self, version: u64, held: &BTreeMap<NetworkId, Held>, now: Duration) {
        if self.term.knows_more_than(version) {
            return;
        }
        self.take_over(held, now);
    }

    fn take_over(&mut self, held: &BTreeMap<NetworkId, Held>, now: Duration) {
        self.networks.retain(|network, lease| held.contains_key(network) || !lease.used.is_empty());
        for (network, lease) in &mut self.networks {
            let listed = held.get(network).map(|h| h.addresses.as_slice()).unwrap_or_default();
            lease.free.retain(|address| listed.contains(address));
            lease.returning.retain(|address| listed.contains(address));
        }
        for (&network, held) in held {
            let lease = self.lease(network, now);
            lease.scarce = held.scarce;
            for &address in &held.addresses {
                lease.add(address);
            }
        }
    }

    /// Which term it is: [`Leases::add`] wants to know the one in which was asked.
    pub fn term(&self) -> u64 {
        self.term.number()
    }

    /// Adds newly leased addresses, asked for in that term.
    pub fn add(&mut self, term: u64, network: NetworkId, addresses: &[IpAddr], now: Duration) {
        if term != self.term.number() {
            return;
        }
        let pending =
            self.pending.as_ref().and_then(|p| p.changes.get(&network)).cloned().unwrap_or_default();
        let lease = self.lease(network, now);
        for &address in addresses {
            // What was said to be given back may still be on its way.
            if !pending.returned.contains(&address) {
                lease.returning.remove(&address);
            }
            lease.add(address);
        }
    }

    fn lease(&mut self, network: NetworkId, now: Duration) -> &mut Lease {
        self.networks.entry(network).or_insert_with(|| Lease { since: now, ..Lease::default() })
    }

    /// Whether there is something to be settled with the managers before they are asked for addresses.
    pub fn must_renew_first(&self, now: Duration) -> bool {
        self.pending.is_some() || !self.is_granted(now)
    }

    /// Whether addresses that are not sure may be given to tasks.
    pub fn is_granted(&self, now: Duration) -> bool {
        self.term.holds(now)
    }

    /// Whether a task may begin to use the address that it took.
    pub fn may_use(&self, network: NetworkId, address: IpAddr, now: Duration) -> bool {
        self.is_granted(now) || self.is_sure(network, address)
    }

    /// Whether a task that was there before the start may go on to use the address.
    pub fn may_go_on(&self, network: NetworkId, address: IpAddr, now: Duration) -> bool {
        self.term.never() || self.may_use(network, address, now)
    }

    /// Whether the managers know that this node's task uses the address.
    pub fn is_sure(&self, network: NetworkId, address: IpAddr) -> bool {
        self.networks.get(&network).is_some_and(|lease| lease.sure.contains(&address))
    }

    /// Takes a free address of that family of the network.
    pub fn take(&mut self, network: NetworkId, family: Family, now: Duration) -> Option<IpAddr> {
        let granted = self.is_granted(now);
        let lease = self.networks.get_mut(&network)?;
        let may = |a: &IpAddr| Family::of(*a) == family && (granted || lease.sure.contains(a));
        let place = lease.free.iter().position(may)?;
        let address = lease.free.remove(place)?;
        lease.since = now;
        lease.used.insert(address);
        Some(address)
    }

    /// Takes this address, if it is leased and free.
    pub fn take_address(&mut self, network: NetworkId, address: IpAddr, now: Duration) -> bool {
        let may = self.may_use(network, address, now);
        let Some(lease) = self.networks.get_mut(&network).filter(|_| may) else { return false };
        let Some(place) = lease.free.iter().position(|&a| a == address) else { return false };
        lease.free.remove(place);
        lease.since = now;
        lease.used.insert(address)
    }

    /// Whether a task of this node uses the address.
    pub fn is_used(&self, network: NetworkId, address: IpAddr) -> bool {
        self.networks.get(&network).is_some_and(|l| l.used.contains(&address))
    }

    /// Marks an address as used by a task that was there before the start, whether or not it is listed.
    pub fn adopt(&mut self, network: NetworkId, address: IpAddr, now: Duration) {
        let lease = self.lease(network, now);
        lease.free.retain(|&a| a != address);
        lease.used.insert(address);
    }

    /// Gives a taken address back to the line.
    pub fn put_back(&mut self, network: NetworkId, address: IpAddr, now: Duration) {
        if let Some(lease) = self.networks.get_mut(&network)
            && lease.used.remove(&address)
        {
            lease.limited.remove(&address);
            lease.since = now;
            lease.free.push_back(address);
        }
    }

    /// Gives the managers what is free of `addresses`, which somebody else may want by their numbers.
    pub fn give_back(&mut self, network: NetworkId, addresses: &[IpAddr]) {
        if let Some(lease) = self.networks.get_mut(&network) {
            lease.give_back(|a| addresses.contains(a));
        }
    }

    /// How many addresses of a family to ask for: as many as are in use.
    pub fn batch(&self, network: NetworkId, family: Family) -> u32 {
        let used = self.networks.get(&network).map_or(0, |lease| lease.used_of(family));
        // At most MOST, so it fits.
        used.clamp(FEWEST, MOST) as u32
    }

    /// The addresses of tasks that must not use them any more: the term is over, and the managers never heard of them.
    pub fn expired(&self, now: Duration) -> Vec<(NetworkId, IpAddr)> {
        // A node that never had a term gave its tasks addresses before there were terms.
        if self.is_granted(now) || self.term.never() {
            return Vec::new();
        }
        self.unsure()
    }

    /// The addresses of tasks that the managers have not heard of yet.
    pub fn unsure(&self) -> Vec<(NetworkId, IpAddr)> {
        let unsure = |(network, lease): (&NetworkId, &Lease)| {
            let network = *network;
            lease.used.difference(&lease.sure).map(|a| (network, *a)).collect::<Vec<_>>()
        };
        self.networks.iter().flat_map(unsure).collect()
    }

    /// Notes that the kernel takes the address away in time, or not any more.
    pub fn set_limited(&mut self, network: NetworkId, address: IpAddr, limited: bool) {
        if let Some(lease) = self.networks.get_mut(&network) {
            match limited {
                true => lease.limited.insert(address),
                false => lease.limited.remove(&address),
            };
        }
    }

    /// Whether the kernel takes the address away in time.
    pub fn is_limited(&self, network: NetworkId, address: IpAddr) -> bool {
        self.networks.get(&network).is_some_and(|lease| lease.limited.contains(&address))
    }

    /// The addresses that the kernel would take from their tasks, though the managers know of them.
    pub fn limited_in_vain(&self) -> Vec<(NetworkId, IpAddr)> {
        let sure = |(network, lease): (&NetworkId, &Lease)| {
            let network = *network;
            lease.limited.intersection(&lease.sure).map(|a| (network, *a)).collect::<Vec<_>>()
        };
        self.networks.iter().flat_map(sure).collect()
    }

    /// How long this node may still give addresses without a word from the managers.
    pub fn left(&self, now: Duration) -> Duration {
        self.term.left(now)
    }

    /// All leased addresses, used or not.
    pub fn held(&self) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        let all = |lease: &Lease| lease.free.iter().chain(&lease.used).copied().collect();
        self.networks.iter().map(|(&network, lease)| (network, all(lease))).collect()
    }

    /// Finds what to give back: all of a network without tasks after a while, or soon if others want it; and what is more
    /// than twice as much as is in use.
    fn tidy(&mut self, now: Duration) {
        for lease in self.networks.values_mut() {
            let rested = now.saturating_sub(lease.since);
            for family in Family::ALL {
                let used = lease.used_of(family);
                let keep = match (lease.scarce, lease.used.is_empty()) {
                    (true, _) if rested >= IDLE_SCARCE => 0,
                    (_, true) if rested >= IDLE => 0,
                    _ => used.max(FEWEST),
                };
                let free = lease.free.iter().filter(|a| Family::of(**a) == family).count();
                if keep == 0 || free > 2 * keep {
                    let mut spare = free.saturating_sub(keep);
                    lease.give_back(|a| {
                        let go = spare > 0 && Family::of(*a) == family;
                        spare -= usize::from(go);
                        go
                    });
                }
            }
        }
        self.networks.retain(|_, lease| *lease != Lease { since: lease.since, ..Lease::default() });
    }
}

impl Lease {
    fn used_of(&self, family: Family) -> usize {
        self.used.iter().filter(|a| Family::of(**a) == family).count()
    }

    fn add(&mut self, address: IpAddr) {
        let known = self.used.contains(&address) || self.returning.contains(&address);
        if !known && !self.free.contains(&address) {
            self.free.push_back(address);
        }
    }

    fn give_back(&mut self, mut which: impl FnMut(&IpAddr) -> bool) {
        let (go, stay): (Vec<IpAddr>, Vec<IpAddr>) = self.free.iter().partition(|a| which(a));
        self.free = stay.into();
        self.sure.retain(|a| !go.contains(a));
        self.returning.extend(go);
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
