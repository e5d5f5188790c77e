//! What the last call that succeeded was given, part by part: a part that is the same allocation again needs no look.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_abi::ServiceKey;
use mesh_types::{ServiceId, Vni};

use crate::{
    desired::{Desired, Frontend, NetworkPlan, PublishedOn, ServicePlan},
    encode,
};

/// A service's backends by id, and whether each drains.
pub(crate) type Backends = Vec<(u32, bool)>;

/// The parts that the maps agree with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records {
    networks: BTreeMap<Vni, Arc<NetworkPlan>>,
    services: BTreeMap<ServiceId, Record>,
    /// Which service each entry of `SERVICES` belongs to.
    claims: HashMap<ServiceKey, ServiceId>,
    /// By how many services each backend is used.
    usage: HashMap<u32, Usage>,
    /// How many services have a port at one address only.
    addressed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    plan: Arc<ServicePlan>,
    backends: Backends,
}

/// How many services use a backend, and for how many of them it drains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) users: u32,
    pub(crate) draining: u32,
}

impl Usage {
    pub(crate) fn add(&mut self, draining: bool) {
        self.users += 1;
        self.draining += u32::from(draining);
    }

    pub(crate) fn subtract(&mut self, draining: bool) {
        self.users = self.users.saturating_sub(1);
        self.draining = self.draining.saturating_sub(u32::from(draining));
    }
}

/// The parts of a [`Desired`] that must be looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Networks that are new or another allocation than before.
    pub(crate) networks: Vec<Vni>,
    /// Networks that are recorded and no more desired.
    gone_networks: Vec<Vni>,
    /// Services that are new or another allocation than before.
    pub(crate) services: Vec<ServiceId>,
    /// Services that are recorded and no more desired.
    pub(crate) gone_services: Vec<ServiceId>,
    /// Whether any service has a port at one address only.
    pub(crate) addressed: bool,
}

impl Records {
    /// What differs from the records.
    pub(crate) fn changes(&self, desired: &Desired) -> Changes {
        let (networks, gone_networks) = changed(&self.networks, &desired.networks, Arc::ptr_eq);
        let (mut services, gone_services) =
            changed(&self.services, &desired.services, |record, plan| Arc::ptr_eq(&record.plan, plan));
        self.add_clashing(desired, &mut services, &gone_services);
        let recorded = services.iter().chain(&gone_services).filter_map(|id| self.services.get(id));
        let leaving = recorded.filter(|record| addressed(&record.plan)).count();
        let coming = services.iter().filter_map(|id| desired.services.get(id)).any(|plan| addressed(plan));
        let addressed = self.addressed > leaving || coming;
        Changes { networks, gone_networks, services, gone_services, addressed }
    }

    /// Should two services have the same frontend against the rule, a look at one of them needs a look at the other:
    /// else one that goes could take along what the other needs.
    fn add_clashing(&self, desired: &Desired, services: &mut Vec<ServiceId>, gone: &[ServiceId]) {
        let mut looked_at: BTreeSet<ServiceId> = services.iter().chain(gone).copied().collect();
        let mut next = 0;
        while let Some(id) = services.get(next) {
            let keys = desired.services.get(id).into_iter().flat_map(|plan| plan.frontends.keys());
            let owners = keys.filter_map(|frontend| self.claims.get(&encode::service(frontend)));
            let others: Vec<ServiceId> = owners.filter(|owner| looked_at.insert(**owner)).copied().collect();
            services.extend(others);
            next += 1;
        }
        // The last one has it.
        services.sort_unstable();
    }

    /// The network as it was last written.
    pub(crate) fn network(&self, vni: Vni) -> Option<&NetworkPlan> {
        self.networks.get(&vni).map(AsRef::as_ref)
    }

    /// The service's frontends as they were last written.
    pub(crate) fn frontends(&self, id: ServiceId) -> impl Iterator<Item = &Frontend> {
        self.services.get(&id).into_iter().flat_map(|record| record.plan.frontends.keys())
    }

    /// The frontends of all services as they were last written, with the services.
    pub(crate) fn all_frontends(&self) -> impl Iterator<Item = (ServiceId, &Frontend)> {
        self.services.iter().flat_map(|(id, record)| record.plan.frontends.keys().map(|key| (*id, key)))
    }

    /// The service's backends as they were last written.
    pub(crate) fn backends(&self, id: ServiceId) -> &[(u32, bool)] {
        self.services.get(&id).map_or(&[], |record| &record.backends)
    }

    pub(crate) fn usage(&self, backend: u32) -> Usage {
        self.usage.get(&backend).copied().unwrap_or_default()
    }

    /// Forgets what is about to be written anew. `loose` gets the entries and backends that were vouched for.
    pub(crate) fn forget(&mut self, changes: &Changes, loose: &mut Loose) {
        for vni in changes.networks.iter().chain(&changes.gone_networks) {
            self.networks.remove(vni);
        }
        for id in changes.services.iter().chain(&changes.gone_services) {
            self.forget_service(*id, loose);
        }
    }

    fn forget_service(&mut self, id: ServiceId, loose: &mut Loose) {
        let Some(record) = self.services.remove(&id) else { return };
        for key in record.plan.frontends.keys().map(encode::service) {
            if self.claims.get(&key) == Some(&id) {
                self.claims.remove(&key);
                loose.services.insert(key);
            }
        }
        for (backend, draining) in record.backends {
            if let Some(usage) = self.usage.get_mut(&backend) {
                usage.subtract(draining);
                if usage.users == 0 {
                    self.usage.remove(&backend);
                }
            }
            loose.backends.insert(backend);
        }
        self.addressed -= usize::from(addressed(&record.plan));
    }

    /// Records what has been written, all of it. `backends` are those of the changed services, in their order.
    pub(crate) fn remember(
        &mut self,
        desired: &Desired,
        changes: &Changes,
        backends: Vec<Backends>,
        loose: &mut Loose,
    ) {
        *loose = Loose::default();
        for (vni, plan) in changes.networks.iter().filter_map(|vni| desired.networks.get_key_value(vni)) {
            self.networks.insert(*vni, plan.clone());
        }
        let mut clashing = BTreeSet::new();
        for (id, backends) in changes.services.iter().zip(backends) {
            let Some(plan) = desired.services.get(id) else { continue };
            for key in plan.frontends.keys().map(encode::service) {
                clashing.extend(self.claims.insert(key, *id).map(|other| [other, *id]).into_iter().flatten());
            }
            for (backend, draining) in &backends {
                self.usage.entry(*backend).or_default().add(*draining);
            }
            self.addressed += usize::from(addressed(plan));
            self.services.insert(*id, Record { plan: plan.clone(), backends });
        }
        // Both are planned each time.
        clashing.into_iter().for_each(|id| self.forget_service(id, loose));
    }
}

/// What the maps hold that no record vouches for: found at the start, or written by a call that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Loose {
    pub(crate) services: BTreeSet<ServiceKey>,
    pub(crate) backends: BTreeSet<u32>,
}

fn addressed(plan: &ServicePlan) -> bool {
    let at_one = |f: &Frontend| matches!(f, Frontend::Published { on: PublishedOn::Address(_), .. });
    plan.frontends.keys().any(at_one)
}

/// The keys of `now` that are new or not the same, and those of `before` that are gone.
fn changed<K: Ord + Copy, A, B>(
    before: &BTreeMap<K, A>,
    now: &BTreeMap<K, B>,
    same: impl Fn(&A, &B) -> bool,
) -> (Vec<K>, Vec<K>) {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    side_by_side(before, now, |key, before, now| match (before, now) {
        (Some(before), Some(now)) if same(before, now) => {}
        (_, Some(_)) => changed.push(*key),
        (_, None) => gone.push(*key),
    });
    (changed, gone)
}

/// Calls `each` with every key of both maps, in order, and what each map has for it.
pub(crate) fn side_by_side<'a, K: Ord, A, B>(
    one: &'a BTreeMap<K, A>,
    other: &'a BTreeMap<K, B>,
    mut each: impl FnMut(&'a K, Option<&'a A>, Option<&'a B>),
) {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let order = match (one.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let left = if order.is_le() { one.next() } else { None };
        let right = if order.is_ge() { other.next() } else { None };
        if let Some(key) = left.map(|(k, _)| k).or(right.map(|(k, _)| k)) {
            each(key, left.map(|(_, v)| v), right.map(|(_, v)| v));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_maps_are_walked_once(
            one in prop::collection::btree_map(0u8..20, any::<u8>(), 0..12),
            other in prop::collection::btree_map(0u8..20, any::<u8>(), 0..12),
        ) {
            let mut seen = Vec::new();
            side_by_side(&one, &other, |key, a, b| seen.push((*key, a.copied(), b.copied())));
            let keys: BTreeSet<u8> = one.keys().chain(other.keys()).copied().collect();
            let wanted: Vec<_> =
                keys.into_iter().map(|k| (k, one.get(&k).copied(), other.get(&k).copied())).collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
