//! Established flows that just passed: for a moment this CPU knows what `CHOICES_KEPT` says of them, without a call into the
//! kernel for each packet.

use mesh_abi::{ChoiceValue, FlowKey};

use crate::{choose, key, maps::PASSING};

/// Length of `PASSING`.
pub const SLOTS: u32 = 2048;
/// How long an entry is believed: user space that forgets a flow, and another CPU that begins it anew, are noticed so much
/// later.
const TRUST_NS: u64 = 10_000_000;

/// Element of `PASSING`.
#[repr(C)]
pub struct Passing {
    /// When the map was asked; 0 when nothing is known.
    asked: u64,
    choice: ChoiceValue,
    key: FlowKey,
    reserved: u32,
}

impl Passing {
    /// The place of a flow with that hash.
    #[inline(always)]
    pub fn at(hash: u32) -> Option<&'static mut Self> {
        let slot = PASSING.get_ptr_mut(hash % SLOTS)?;
        // SAFETY: this CPU's own slot.
        Some(unsafe { &mut *slot })
    }

    /// The entry of an established flow.
    #[inline(always)]
    pub fn established(&mut self, key: &FlowKey, now: u64) -> Option<&ChoiceValue> {
        if now.wrapping_sub(self.asked) > TRUST_NS || !key::same_flow(&self.key, key) {
            self.asked = 0;
            key::copy(&mut self.choice, choose::established(key)?);
            key::copy(&mut self.key, key);
            self.asked = now;
        }
        Some(&self.choice)
    }

    /// What is known of the flow that is here is not so any more.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.asked = 0;
    }
}
