//! In which of two stages of a table a flow was found last: `CHOICES` and `REVERSE`, or those of established flows. That one is
//! asked first, so that flows of either stage are mostly found by one look. It is no more than a hint: what is not found there
//! is looked for in the other.

use mesh_abi::FlowKey;

use crate::{hash, key, maps::STAGES};

/// Length of `STAGES`.
pub const SLOTS: u32 = 4096;

/// In the stage of new flows.
pub const NEW: u32 = 1;
/// In that of established ones; also where nothing is known.
pub const KEPT: u32 = 0;

/// The hint for flows like this one.
#[inline(always)]
pub fn of(key: &FlowKey) -> Option<&'static mut u32> {
    let (source, destination) = (key::words(&key.source)[3], key::words(&key.destination)[3]);
    let (s, d) = (key.source_port, key.destination_port);
    let ports = u32::from_ne_bytes([s[0], s[1], d[0], d[1]]);
    let slot = STAGES.get_ptr_mut(hash::again(source ^ destination.rotate_left(16) ^ ports) % SLOTS)?;
    // SAFETY: this CPU's own slot.
    Some(unsafe { &mut *slot })
}
