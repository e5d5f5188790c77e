//! What becomes of a packet, and its translation into the kernel's terms.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
};
use mesh_abi::{Counter, DropReason};

use crate::maps::{COUNTERS, DROPS};

/// Where a packet goes.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// On to the kernel, as if the program were not there.
    Pass,
    /// Nowhere, and that is no error.
    Consume,
    /// To the task behind this host-side interface.
    Task(u32),
    /// To a socket of the node, as if it had arrived on this interface.
    Host(u32),
    /// Out of this interface; the kernel finds the next hop's Ethernet address.
    Out(u32),
    /// Out of this interface, the VXLAN device, which adds the outer headers.
    Tunnel(u32),
}

/// Every step of the data path ends like this.
pub type Outcome = Result<Verdict, DropReason>;

/// The kernel verdict of a program on the ingress side.
#[inline(always)]
pub fn at_ingress(outcome: Outcome) -> i32 {
    match outcome {
        // Straight into the task's namespace, past the host side's egress hook.
        // SAFETY: plain helper call.
        Ok(Verdict::Task(ifindex)) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        other => anywhere(other),
    }
}

/// The kernel verdict of a program on the egress side, where the kernel allows no redirection into a peer.
#[inline(always)]
pub fn at_egress(outcome: Outcome) -> i32 {
    match outcome {
        // SAFETY: plain helper call.
        Ok(Verdict::Task(ifindex)) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        other => anywhere(other),
    }
}

#[inline(always)]
fn anywhere(outcome: Outcome) -> i32 {
    match outcome {
        Ok(Verdict::Pass) => TC_ACT_UNSPEC,
        Ok(Verdict::Consume | Verdict::Task(_)) => TC_ACT_SHOT,
        // SAFETY: plain helper call.
        Ok(Verdict::Host(ifindex)) => unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 },
        // SAFETY: plain helper call; a null parameter lets the kernel's routing choose the next hop.
        Ok(Verdict::Out(ifindex)) => unsafe {
            bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32
        },
        // SAFETY: plain helper call.
        Ok(Verdict::Tunnel(ifindex)) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        Err(reason) => {
            count_drop(reason);
            TC_ACT_SHOT
        }
    }
}

/// Counts a packet that was dropped.
#[inline(always)]
pub fn count_drop(reason: DropReason) {
    if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own slot.
        unsafe { *count += 1 };
    }
}

/// Counts a packet that went this way.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(count) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's own slot.
        unsafe { *count += 1 };
    }
}
