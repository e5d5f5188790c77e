//! What each packet tells of its flow, and when a flow counts as established.
//!
//! The maps have two stages. A flow begins in an LRU map, where a flood of others may push it out. Once it is confirmed
//! (both sides have spoken and the one that began has spoken again) and has lived for [`TOUCH_NS`] since, it moves to a
//! hash map from which only time (user space) or its end removes it: so a short connection is written down in one map and
//! taken out of none. When that one is full it stays where it is, and tries again once a second. User space moves
//! connections that say nothing more (`dataplane/lb/src/ageing.rs`).
//!
//! Entries are changed in place and without locks, a byte or a word at a time. When two CPUs handle packets of one flow at
//! once, the last one to write wins: what may be lost is one bit (two FINs that cross, and the flow is half closed for as
//! long as user space lets those be), or a choice, which the flow's next packet makes again.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use mesh_abi::{
    ChoiceValue, ReverseValue,
    flow_state::{ANSWERED, CLIENT_FIN, CONFIRMED, DIRECT, RESET, SERVER_FIN},
};

use crate::{
    maps::CLOCK,
    parse::{ACK, FIN, RST, SYN},
};

/// Entries note the time of their last packet no more often than this, so that packets seldom dirty them.
pub const TOUCH_NS: u64 = 1_000_000_000;

/// A reading of the clock, believed until the kernel's tick.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Clock {
    tick: u64,
    now: u64,
}

/// The kernel's monotonic clock, exact to a tick (a few milliseconds). The tick is read without a call.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    let tick = unsafe { bpf_jiffies64() };
    let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own slot.
    let clock = unsafe { &mut *clock };
    if clock.tick != tick {
        clock.tick = tick;
        // SAFETY: as above.
        clock.now = unsafe { bpf_ktime_get_coarse_ns() };
    }
    clock.now
}

/// Whether a packet is the first of a TCP connection (RFC 9293, section 3.5).
#[inline(always)]
pub fn opens(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// A flow's state after a packet of the side that began it. `tcp` says that `flags` means something.
#[inline(always)]
pub fn asked(state: u8, tcp: bool, flags: u8) -> u8 {
    let mut next = state;
    if tcp {
        next |= if flags & RST != 0 { RESET } else { 0 };
        next |= if flags & FIN != 0 { CLIENT_FIN } else { 0 };
    }
    // Who resets what was answered, or opens again, has not agreed to the answer: its address may have been forged.
    let agrees = !tcp || flags & (SYN | RST | ACK) == ACK;
    if agrees && next & RESET == 0 && state & (ANSWERED | DIRECT) != 0 {
        next |= CONFIRMED;
    }
    next
}

/// A flow's state after a packet of the side that was spoken to.
#[inline(always)]
pub fn answered(state: u8, tcp: bool, flags: u8) -> u8 {
    let mut next = state | ANSWERED;
    if tcp {
        next |= if flags & RST != 0 { RESET } else { 0 };
        next |= if flags & FIN != 0 { SERVER_FIN } else { 0 };
    }
    next
}

/// Whether a flow of the first stage has lived long enough for the second: it has for [`TOUCH_NS`] been what it is, and
/// does not end with the packet that makes its state `next`.
#[inline(always)]
pub fn settles((state, last_seen): (u8, u64), next: u8, now: u64) -> bool {
    state & CONFIRMED != 0 && !closing(next) && now.wrapping_sub(last_seen) > TOUCH_NS
}

/// Whether a connection has ended, or is about to.
#[inline(always)]
pub fn closing(state: u8) -> bool {
    state & (RESET | CLIENT_FIN | SERVER_FIN) != 0
}

/// Whether a connection's end is complete.
#[inline(always)]
pub fn closed(state: u8) -> bool {
    state & RESET != 0 || state & (CLIENT_FIN | SERVER_FIN) == CLIENT_FIN | SERVER_FIN
}

/// An entry of either kind.
pub trait Flow: Copy {
    /// Its state's bits, and when it was last seen.
    fn told(&self) -> (u8, u64);

    /// Writes both.
    ///
    /// # Safety
    ///
    /// `entry` is a map value of the running program.
    unsafe fn tell(entry: *mut Self, told: (u8, u64));

    /// Whether a packet that makes the state `next` must be written down.
    #[inline(always)]
    fn is_news(&self, next: u8, now: u64) -> bool {
        let (state, last_seen) = self.told();
        next != state || now.wrapping_sub(last_seen) > TOUCH_NS
    }
}

impl Flow for ChoiceValue {
    #[inline(always)]
    fn told(&self) -> (u8, u64) {
        (self.state, self.last_seen)
    }

    #[inline(always)]
    unsafe fn tell(entry: *mut Self, (state, last_seen): (u8, u64)) {
        // SAFETY: the caller's promise.
        unsafe {
            (*entry).state = state;
            (*entry).last_seen = last_seen;
        }
    }
}

impl Flow for ReverseValue {
    #[inline(always)]
    fn told(&self) -> (u8, u64) {
        (self.state, self.last_seen)
    }

    #[inline(always)]
    unsafe fn tell(entry: *mut Self, (state, last_seen): (u8, u64)) {
        // SAFETY: the caller's promise.
        unsafe {
            (*entry).state = state;
            (*entry).last_seen = last_seen;
        }
    }
}
