//! `CHOICES`: flows that are not established yet. They are written one behind the other, so that a new one takes the place of
//! the oldest, into one of two rings: those that somebody has answered do not make room for those that nobody has. An index
//! of small sets (`CHOICE_INDEX`) finds them by their hash ([`crate::flow_hash`]). It is not much larger than a processor's
//! nearest cache, and the slots are written in a row, so that a new flow costs little however many there are.
//!
//! Each slot has a version, odd while somebody writes it. Who writes makes it odd by a compare-and-swap, or leaves the slot
//! alone; who reads believes what it copied if the version is even and the same before and after. An entry of the index says
//! where a flow may be; that it is there is seen by its key.

use crate::{ChoiceValue, FlowKey};

/// Entries of the index in a set.
pub const WAYS: usize = 8;
/// Element of `CHOICE_INDEX`: entries as [`Place::entry`] makes them, 0 for none.
pub type ChoiceSet = [u64; WAYS];

/// Element of `CHOICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoiceSlot {
    /// Odd while the slot is written.
    pub version: u64,
    /// What the flow was given.
    pub value: ChoiceValue,
    /// The flow.
    pub key: FlowKey,
    /// Zero.
    pub reserved: u32,
}

/// Elements of `CHOICE_HEADS` from one ring's to the other's: lines of the processor's cache are no longer.
pub const HEAD_STEP: u32 = 8;

/// Where a flow is: its number among all that were written into its ring, and in the highest bit which ring that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u32);

impl Place {
    const ANSWERED: u32 = 1 << 31;
    /// Other CPUs may be so far ahead.
    const AHEAD: u32 = 1 << 16;

    /// The place with that number in a ring.
    #[inline(always)]
    pub fn new(answered: bool, number: u32) -> Self {
        Self(if answered { number | Self::ANSWERED } else { number & !Self::ANSWERED })
    }

    /// Whether it is in the ring of flows that were answered.
    #[inline(always)]
    pub fn answered(self) -> bool {
        self.0 & Self::ANSWERED != 0
    }

    /// Its element of `CHOICES`, of which each ring has one more than `mask`.
    #[inline(always)]
    pub fn index(self, mask: u32) -> u32 {
        (self.0 & mask) + if self.answered() { mask + 1 } else { 0 }
    }

    /// What the index says for a flow with this hash.
    #[inline(always)]
    pub fn entry(self, hash: u32) -> u64 {
        (hash as u64) << 32 | self.0 as u64
    }

    /// The place in an entry of the index, if that is one for this hash.
    #[inline(always)]
    pub fn of(entry: u64, hash: u32) -> Option<Self> {
        if entry != 0 && (entry >> 32) as u32 == hash { Some(Self(entry as u32)) } else { None }
    }

    /// How little an entry of the index would be missed: those first whose place has been given to others, then those that
    /// nobody has answered. `heads` are the next numbers of both rings, that of answered flows second.
    #[inline(always)]
    pub fn spare(entry: u64, heads: (u32, u32), mask: u32) -> u32 {
        // What is higher is left for the entry of the very flow that is to be entered.
        if entry == 0 {
            return u32::MAX - 1;
        }
        let place = Self(entry as u32);
        let next = if place.answered() { heads.1 } else { heads.0 };
        let age = next.wrapping_sub(place.0).wrapping_add(Self::AHEAD) & !Self::ANSWERED;
        if age > mask.wrapping_add(Self::AHEAD) {
            u32::MAX - 2
        } else if place.answered() {
            age
        } else {
            age | 1 << 30
        }
    }
}

/// The set of the index for a hash; the index has a quarter as many sets as a ring has slots.
#[inline(always)]
pub fn set_of(hash: u32, mask: u32) -> u32 {
    hash & (mask >> 2)
}
