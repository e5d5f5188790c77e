//! Services that keep a client with the task that it was given first.

use aya_ebpf::bindings::BPF_ANY;
use mesh_abi::{
    AffinityKey, AffinityValue, BackendValue, FlowKey, PUBLISHED, ServiceValue, backend_flags, service_flags,
};

use crate::maps::{AFFINITY, BACKENDS};

const SECOND: u64 = 1_000_000_000;

/// Whether all flows of one address go to one task.
#[inline(always)]
pub fn is_asked_for(service: &ServiceValue) -> bool {
    service.flags & service_flags::AFFINITY != 0
}

/// Whether that task is kept even when the table changes.
#[inline(always)]
pub fn is_remembered(service: &ServiceValue) -> bool {
    is_asked_for(service) && service.affinity_secs() != 0
}

/// The task that the client of a flow was given before, if it still takes new flows.
#[inline(always)]
pub fn recall(flow: &FlowKey, service: &ServiceValue, now: u64) -> Option<(u32, &'static BackendValue)> {
    // SAFETY: an entry that is evicted meanwhile gives another client's task of the same service, and nothing worse.
    let last = unsafe { AFFINITY.get(key(flow, service)) }?;
    if now.wrapping_sub(last.last_seen) > u64::from(service.affinity_secs()) * SECOND {
        return None;
    }
    // SAFETY: values of a map without preallocation stay as they were until the program ends.
    let backend = unsafe { BACKENDS.get(last.backend) }?;
    // Equal addresses on two networks of one service are two clients.
    let reachable = flow.scope == PUBLISHED || flow.scope == backend.vni;
    if !reachable || backend.flags & backend_flags::DRAINING != 0 {
        return None;
    }
    Some((last.backend, backend))
}

/// Notes the task that a new flow was given.
#[inline(always)]
pub fn note(flow: &FlowKey, service: &ServiceValue, backend: u32, now: u64) {
    let value = AffinityValue { last_seen: now, backend, reserved: 0 };
    // One that cannot be noted is chosen by the table next time, alike while that does not change.
    let _ = AFFINITY.insert(key(flow, service), value, u64::from(BPF_ANY));
}

#[inline(always)]
fn key(flow: &FlowKey, service: &ServiceValue) -> AffinityKey {
    AffinityKey { client: flow.source, service: service.number }
}
