//! TCP connections whose task is gone.

use mesh_abi::DropReason;

use crate::{family::Family, parse::Packet, skb::Skb, verdict::Outcome};

/// What the sender of a packet for a task that is gone is told.
#[inline(always)]
pub fn answer<F: Family>(_skb: Skb, _packet: &Packet<F>) -> Outcome {
    Err(DropReason::NoBackend)
}
