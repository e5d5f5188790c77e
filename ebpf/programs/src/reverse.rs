//! How the replies of translated flows are translated back.
//!
//! The first packet of a flow towards a task writes the entry under which its replies will be looked up. Two clients'
//! flows can look the same to the task (one client port, through two nodes, to the same task): then the second one is
//! given another source port, found again by its packets among the same few candidates.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use mesh_abi::{DropReason, FlowKey, ReturnPath, ReverseValue};

use crate::{
    choose::TOUCH_NS,
    hash,
    maps::{REVERSE, REVERSE_KEPT},
    verifier::forget,
};

/// Source ports tried for one flow, its own included.
const CANDIDATES: u32 = 16;
/// When all are taken, one whose flow was silent for so long is given away.
const SILENT_NS: u64 = 120_000_000_000;
/// In place of a port: none found.
const NONE: u32 = 0x1_0000;
/// Ports below are left to services.
const FIRST_PORT: u32 = 1024;

/// Notes how the replies of a flow go back, and returns the source port that its packets must have at the task.
///
/// `reply` is the reply's key, its destination port the client's own; `value` is what replies become; `flags` is TCP's
/// flag byte of the packet towards the task, zero for other protocols.
#[inline(always)]
pub fn remember(reply: &mut FlowKey, value: &mut ReverseValue, _flags: u8) -> Result<[u8; 2], DropReason> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    value.last_seen = now;
    let mut free = forget(NONE);
    let mut silent = forget(NONE);
    let mut oldest = now.saturating_sub(SILENT_NS);
    let mut candidate = value.destination_port;
    for _ in 0..CANDIDATES {
        reply.destination_port = candidate;
        let key: &FlowKey = reply;
        match REVERSE.get_ptr_mut(key) {
            None => {
                if free >= NONE {
                    free = u16::from_be_bytes(candidate).into();
                }
            }
            Some(entry) => {
                // SAFETY: a map value, valid until the program ends.
                let entry = unsafe { &mut *entry };
                if same_flow(entry, value) {
                    refresh(entry, value, now);
                    return Ok(candidate);
                }
                if entry.last_seen < oldest {
                    oldest = entry.last_seen;
                    silent = u16::from_be_bytes(candidate).into();
                }
            }
        }
        candidate = next_candidate(candidate, value);
        (free, silent) = (forget(free), forget(silent));
    }
    let (port, flags) = match (free, silent) {
        (port @ ..NONE, _) => (port, BPF_NOEXIST),
        (_, port @ ..NONE) => (port, BPF_ANY),
        _ => return Err(DropReason::NoFreePort),
    };
    let port = (port as u16).to_be_bytes();
    reply.destination_port = port;
    let (key, value): (&FlowKey, &ReverseValue) = (reply, value);
    // NOEXIST fails too when another CPU was faster, with this flow or another: the client's next packet finds out.
    REVERSE.insert(key, value, u64::from(flags)).map_err(|_| DropReason::FlowTableFull)?;
    Ok(port)
}

/// The entry for a reply as a task sent it, with these TCP flags.
#[inline(always)]
pub fn find(reply: &FlowKey, _flags: u8) -> Option<&'static ReverseValue> {
    let entry = REVERSE.get_ptr_mut(reply)?;
    // SAFETY: a map value, valid until the program ends.
    unsafe {
        let now = bpf_ktime_get_ns();
        if now.wrapping_sub((*entry).last_seen) > TOUCH_NS {
            (*entry).last_seen = now;
        }
        Some(&*entry)
    }
}

/// The source port that the packets of a flow have at the task, if the flow is known. Arguments as for [`remember`];
/// nothing is noted.
#[inline(always)]
pub fn search(reply: &mut FlowKey, value: &ReverseValue) -> Option<[u8; 2]> {
    let mut candidate = value.destination_port;
    for _ in 0..CANDIDATES {
        reply.destination_port = candidate;
        let key: &FlowKey = reply;
        if let Some(entry) = REVERSE_KEPT.get_ptr(key).or_else(|| REVERSE.get_ptr(key)) {
            // SAFETY: a map value, valid until the program ends.
            if same_flow(unsafe { &*entry }, value) {
                return Some(candidate);
            }
        }
        candidate = next_candidate(candidate, value);
    }
    None
}

/// A flow is known by both its ends; the node it comes through may change.
#[inline(always)]
fn same_flow(a: &ReverseValue, b: &ReverseValue) -> bool {
    a.source_port == b.source_port
        && a.destination_port == b.destination_port
        && a.destination == b.destination
        && a.source == b.source
        && (a.path == ReturnPath::Network as u8) == (b.path == ReturnPath::Network as u8)
}

#[inline(always)]
fn refresh(entry: &mut ReverseValue, value: &ReverseValue, now: u64) {
    if entry.path != value.path || entry.vtep != value.vtep {
        entry.vtep = value.vtep;
        entry.path = value.path;
    }
    if now.wrapping_sub(entry.last_seen) > TOUCH_NS {
        entry.last_seen = now;
    }
}

/// The candidate after `port`: depends on both ends of the flow, so that colliding flows part ways.
#[inline(always)]
fn next_candidate(port: [u8; 2], value: &ReverseValue) -> [u8; 2] {
    let s = &value.source;
    let front = u32::from_le_bytes([s[12], s[13], s[14], s[15]]);
    let ports = u32::from_le_bytes([port[0], port[1], value.source_port[0], value.source_port[1]]);
    let number = FIRST_PORT + hash::again(front ^ ports) % (65536 - FIRST_PORT);
    (number as u16).to_be_bytes()
}
