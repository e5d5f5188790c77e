//! Which backend a flow is given: the one it has, else the one that every node would choose.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_ns};
use mesh_abi::{BackendValue, ChoiceValue, Counter, DropReason, FlowKey, ServiceValue};

use crate::{
    hash,
    maps::{BACKENDS, CHOICES, CHOICES_KEPT, MAGLEV},
    parse::{ACK, SYN},
    verdict::count,
};

/// Flow entries note the time of their last packet no more often than this, so that packets seldom dirty them.
pub const TOUCH_NS: u64 = 1_000_000_000;

/// What a flow is given.
pub enum Choice {
    /// A task.
    Backend(&'static BackendValue),
    /// Nothing any more: a TCP connection whose task is gone.
    Gone,
}

/// The packet for which a choice is made.
pub struct Chooser {
    /// TCP's flag byte; zero for other protocols.
    pub flags: u8,
    /// See [`ChoiceValue::client`].
    pub client: u32,
    /// See [`ChoiceValue::ifindex`].
    pub ifindex: u32,
}

/// The backend of the flow `key`.
#[inline(always)]
pub fn choose(key: &FlowKey, service: &ServiceValue, by: &Chooser) -> Result<Choice, DropReason> {
    let opens = by.flags & (SYN | ACK) == SYN;
    let client = by.client;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let kept = kept(key, now, client);
    // A new connection asks the table: what an earlier one on the same ports was given may be draining, or belong to
    // another service that had the port then.
    if let Some(backend) = kept
        && !opens
    {
        return Ok(Choice::Backend(backend));
    }
    match from_table(key, service) {
        Some((id, backend)) => {
            let choice = ChoiceValue {
                last_seen: now,
                backend: id,
                client,
                ifindex: by.ifindex,
                state: 0,
                reserved: [0; 3],
            };
            // A choice that cannot be kept is made again, alike, for the next packet.
            let _ = CHOICES.insert(key, choice, u64::from(BPF_ANY));
            count(Counter::NewFlow);
            Ok(Choice::Backend(backend))
        }
        // Only draining tasks are left: better one of those than none.
        None => kept.map(Choice::Backend).ok_or(DropReason::NoBackend),
    }
}

/// The choice for the flow that a returned packet answers, noting the answer; `flags` as in [`Chooser`].
#[inline(always)]
pub fn answered(key: &FlowKey, _flags: u8) -> Option<&'static ChoiceValue> {
    known(key)
}

/// The choice for a flow, as it stands.
#[inline(always)]
pub fn known(key: &FlowKey) -> Option<&'static ChoiceValue> {
    // SAFETY: an entry that is evicted meanwhile gives another flow's choice to one packet, and nothing worse.
    unsafe { CHOICES_KEPT.get(key).or_else(|| CHOICES.get(key)) }
}

#[inline(always)]
fn kept(key: &FlowKey, now: u64, client: u32) -> Option<&'static BackendValue> {
    let choice = CHOICES.get_ptr_mut(key)?;
    // SAFETY: a map value, valid until the program ends; racing writers write the same kind of time.
    let id = unsafe {
        if now.wrapping_sub((*choice).last_seen) > TOUCH_NS {
            (*choice).last_seen = now;
        }
        if (*choice).client != client {
            (*choice).client = client;
        }
        (*choice).backend
    };
    // SAFETY: values of a map without preallocation stay as they were until the program ends.
    unsafe { BACKENDS.get(id) }
}

#[inline(always)]
fn from_table(key: &FlowKey, service: &ServiceValue) -> Option<(u32, &'static BackendValue)> {
    if service.table_len == 0 {
        return None;
    }
    let id = *MAGLEV.get(service.table_base + hash::flow(key) % service.table_len)?;
    // SAFETY: see `kept`.
    unsafe { BACKENDS.get(id) }.map(|backend| (id, backend))
}
