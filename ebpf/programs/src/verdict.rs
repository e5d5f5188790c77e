//! What becomes of a packet, and its translation into the kernel's terms.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_redirect, bpf_redirect_peer},
};
use mesh_abi::{Counter, DropReason, EntryPoint, Sight};

use crate::{
    events,
    maps::{COUNTERS, DROPS},
    skb::Skb,
    skb_next_hop,
};

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
    /// Out of this interface, with the next hop's Ethernet address.
    Out(u32),
    /// Out of this interface as the packet is: it has its Ethernet addresses, or, to the VXLAN device, needs none.
    Addressed(u32),
}

/// Every step of the data path ends like this.
pub type Outcome = Result<Verdict, DropReason>;

/// An outcome in one number, as functions with a stack frame of their own return it.
#[inline(always)]
pub fn pack(outcome: Outcome) -> u64 {
    let (kind, value) = match outcome {
        Ok(Verdict::Pass) => (PASS, 0),
        Ok(Verdict::Consume) => (CONSUME, 0),
        Ok(Verdict::Task(ifindex)) => (TASK, ifindex),
        Ok(Verdict::Host(ifindex)) => (HOST, ifindex),
        Ok(Verdict::Out(ifindex)) => (OUT, ifindex),
        Ok(Verdict::Addressed(ifindex)) => (ADDRESSED, ifindex),
        Err(reason) => (DROP, reason as u32),
    };
    kind << 32 | u64::from(value)
}

/// The outcome behind a number made by [`pack`].
#[inline(always)]
pub fn unpack(code: u64) -> Outcome {
    let value = code as u32;
    match code >> 32 {
        PASS => Ok(Verdict::Pass),
        CONSUME => Ok(Verdict::Consume),
        TASK => Ok(Verdict::Task(value)),
        HOST => Ok(Verdict::Host(value)),
        OUT => Ok(Verdict::Out(value)),
        ADDRESSED => Ok(Verdict::Addressed(value)),
        _ => Err(reason(value)),
    }
}

/// The same for what either works or fails: zero, or one more than the reason.
#[inline(always)]
pub fn code(result: Result<(), DropReason>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u64 + 1,
    }
}

/// The number that [`code`] makes of [`DropReason::HelperFailed`].
pub const FAILED: u64 = DropReason::HelperFailed as u64 + 1;

/// The result behind a number made by [`code`].
#[inline(always)]
pub fn ok(code: u64) -> Result<(), DropReason> {
    if code == 0 { Ok(()) } else { Err(reason(code as u32 - 1)) }
}

const PASS: u64 = 0;
const CONSUME: u64 = 1;
const TASK: u64 = 2;
const HOST: u64 = 3;
const OUT: u64 = 4;
const ADDRESSED: u64 = 5;
const DROP: u64 = 6;

/// The reason with that number.
#[inline(always)]
pub fn reason(number: u32) -> DropReason {
    if number >= DropReason::COUNT {
        return DropReason::HelperFailed;
    }
    // SAFETY: `DropReason` is a `u32` with every value below `COUNT`.
    unsafe { core::mem::transmute::<u32, DropReason>(number) }
}

/// The kernel verdict of a program on the ingress side.
#[inline(always)]
pub fn at_ingress(skb: Skb, program: EntryPoint, outcome: Outcome) -> i32 {
    match outcome {
        Ok(Verdict::Task(ifindex)) => {
            events::seen(skb, Sight::ToTask, program as u32, ifindex);
            // Straight into the task's namespace, past the host side's egress hook.
            // SAFETY: plain helper call.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        other => anywhere(skb, program, other),
    }
}

/// The kernel verdict of a program on the egress side, where the kernel allows no redirection into a peer.
#[inline(always)]
pub fn at_egress(skb: Skb, program: EntryPoint, outcome: Outcome) -> i32 {
    match outcome {
        Ok(Verdict::Task(ifindex)) => {
            events::seen(skb, Sight::ToTask, program as u32, ifindex);
            // SAFETY: plain helper call.
            unsafe { bpf_redirect(ifindex, 0) as i32 }
        }
        other => anywhere(skb, program, other),
    }
}

#[inline(always)]
fn anywhere(skb: Skb, program: EntryPoint, outcome: Outcome) -> i32 {
    match outcome {
        Ok(Verdict::Pass) => TC_ACT_UNSPEC,
        Ok(Verdict::Consume | Verdict::Task(_)) => TC_ACT_SHOT,
        // SAFETY: plain helper call.
        Ok(Verdict::Host(ifindex)) => unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 },
        Ok(Verdict::Out(ifindex)) => skb_next_hop::out(skb, ifindex),
        // SAFETY: plain helper call.
        Ok(Verdict::Addressed(ifindex)) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        Err(reason) => {
            count_drop(reason);
            events::dropped(skb, reason, program);
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
