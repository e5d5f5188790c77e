//! TCP connections whose task is gone.

use mesh_abi::DropReason;

use crate::{parse::Packet, skb::Skb, verdict::Outcome};

/// What the sender of a packet for a task that is gone is told.
#[inline(always)]
pub fn answer(_skb: Skb, _packet: &Packet) -> Outcome {
    Err(DropReason::NoBackend)
}
