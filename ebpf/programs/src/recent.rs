//! Flows that have begun a moment ago: how `CHOICES` is read and written ([`mesh_abi::ChoiceSlot`]).
//!
//! Nobody waits: a slot that somebody else is writing is left alone, and then the choice is made again for the next packet,
//! alike. Two CPUs that write the same place in the index lose one of the two flows in the same way.

use mesh_abi::{
    ChoiceSet, ChoiceSlot, ChoiceValue, FlowKey, HEAD_STEP, Place, WAYS, flow_state::ANSWERED, set_of,
};

use crate::{
    atomic, conntrack, hash, key,
    maps::{CHOICE_BLOCKS, CHOICE_HEADS, CHOICE_INDEX, CHOICES, RECENT, node},
    verifier::{alone, forget},
};

/// Places that a CPU is given at once.
const BLOCK: u32 = 16;

/// Places of a ring that a CPU has been given.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    next: u32,
    left: u32,
}

/// The entry of a flow, as it was at one moment: a copy, in this CPU's own room until the next call.
#[inline(always)]
pub fn find(key: &FlowKey) -> Option<&'static mut ChoiceValue> {
    let room = RECENT.get_ptr_mut(0)?;
    // SAFETY: this CPU's own room, which nobody else uses before the next call.
    let room = unsafe { &mut *room };
    if found(key, room) == 0 { None } else { Some(room) }
}

/// Writes down a flow that begins, in place of the oldest.
#[inline(always)]
pub fn insert(key: &FlowKey, value: &ChoiceValue) {
    // A result that nobody looks at is left out by the compiler, and then the register for it holds what the verifier may
    // refuse.
    forget(inserted(key, value));
}

/// Writes down what became of a flow, if it is there still.
#[inline(always)]
pub fn change(key: &FlowKey, value: &ChoiceValue) {
    if forget(changed(key, value)) == MOVES {
        forget(inserted(key, value));
    }
}

/// Forgets a flow.
#[inline(always)]
pub fn remove(key: &FlowKey) {
    if find(key).is_some() {
        forget(removed(key));
    }
}

alone! {
    /// 0 when there is no such flow.
    fn found[recent_found](key: &FlowKey, room: &mut ChoiceValue) -> u32, or 0; {
        let Some(mask) = node().map(|node| node.choice_mask) else { return 0 };
        let hash = hash::flow(key);
        let Some(set) = CHOICE_INDEX.get_ptr_mut(set_of(hash, mask)) else { return 0 };
        let Some(place) = Place::of(entry(set, way(set, hash)), hash) else { return 0 };
        let Some(slot) = CHOICES.get_ptr_mut(place.index(mask)) else { return 0 };
        // SAFETY: a map's value. What others write meanwhile is found out by the version.
        unsafe {
            let version = read_version(slot);
            key::copy(room, &(*slot).value);
            let same = key::same_flow(&(*slot).key, key);
            if !same || version & 1 != 0 || read_version(slot) != version {
                return 0;
            }
        }
        1
    }
}

alone! {
    /// 0 when that can't be just now.
    fn inserted[recent_inserted](key: &FlowKey, value: &ChoiceValue) -> u32, or 0; {
        let Some(mask) = node().map(|node| node.choice_mask) else { return 0 };
        let Some(place) = next_place(lives(value), mask) else { return 0 };
        let Some(slot) = CHOICES.get_ptr_mut(place.index(mask)) else { return 0 };
        let Some(version) = claim(slot) else { return 0 };
        // SAFETY: a map's value, which is this program's own until it is given back.
        unsafe {
            key::copy(&mut (*slot).key, key);
            key::copy(&mut (*slot).value, value);
        }
        give_back(slot, version);
        // No sooner than now: what is not needed any more takes nothing of the stack.
        let hash = hash::flow(key);
        let Some(set) = CHOICE_INDEX.get_ptr_mut(set_of(hash, mask)) else { return 0 };
        let Some(way) = spare_way(set, hash, mask) else { return 0 };
        // SAFETY: a map's value; `way` is within it.
        unsafe { (*set)[way] = place.entry(hash) };
        1
    }
}

/// It belongs into the other ring. What calls the one function calls the other: calls within calls take of the stack.
const MOVES: u32 = 2;

alone! {
    /// 0 when that can't be just now, or [`MOVES`].
    fn changed[recent_changed](key: &FlowKey, value: &ChoiceValue) -> u32, or 0; {
        let Some(mask) = node().map(|node| node.choice_mask) else { return 0 };
        let hash = hash::flow(key);
        let Some(set) = CHOICE_INDEX.get_ptr_mut(set_of(hash, mask)) else { return 0 };
        let Some(place) = Place::of(entry(set, way(set, hash)), hash) else { return 0 };
        if lives(value) && !place.answered() {
            return MOVES;
        }
        let Some(slot) = CHOICES.get_ptr_mut(place.index(mask)) else { return 0 };
        let Some(version) = claim(slot) else { return 0 };
        // SAFETY: see `insert`.
        unsafe {
            if key::same_flow(&(*slot).key, key) {
                key::copy(&mut (*slot).value, value);
            }
        }
        give_back(slot, version);
        1
    }
}

alone! {
    /// Takes out the entry that was found; 0 when it cannot be. It does not look for itself: calls within calls take of the stack.
    fn removed[recent_removed](key: &FlowKey) -> u32, or 0; {
        let Some(mask) = node().map(|node| node.choice_mask) else { return 0 };
        let hash = hash::flow(key);
        let Some(set) = CHOICE_INDEX.get_ptr_mut(set_of(hash, mask)) else { return 0 };
        let way = way(set, hash);
        // SAFETY: a map's value; the mask changes nothing. Should another flow be written there meanwhile, its choice is made
        // again.
        unsafe { (*set)[way] = 0 };
        1
    }
}

/// Whether a flow was answered and has not ended.
#[inline(always)]
fn lives(value: &ChoiceValue) -> bool {
    value.state & ANSWERED != 0 && !conntrack::closing(value.state)
}

#[inline(always)]
fn next_place(answered: bool, mask: u32) -> Option<Place> {
    let blocks = CHOICE_BLOCKS.get_ptr_mut(0)?;
    let ring = if answered { 1 } else { 0 };
    // SAFETY: this CPU's own.
    let block = unsafe { &mut (*blocks)[ring] };
    let head = CHOICE_HEADS.get_ptr_mut(ring as u32 * HEAD_STEP)?;
    // SAFETY: a map's value.
    let now = unsafe { head.read_volatile() } as u32;
    // What others have left behind by half a ring is not used up: it would be the next to make room.
    if block.left == 0 || now.wrapping_sub(block.next) > mask >> 1 {
        // SAFETY: as above.
        block.next = unsafe { atomic::add(head, BLOCK.into()) } as u32;
        block.left = BLOCK;
    }
    let place = Place::new(answered, block.next);
    block.next = block.next.wrapping_add(1);
    block.left -= 1;
    Some(place)
}

/// Where in a set the entry for this hash is; any, if there is none.
#[inline(always)]
fn way(set: *mut ChoiceSet, hash: u32) -> usize {
    let mut found = 0;
    for way in 0..WAYS {
        if Place::of(entry(set, way), hash).is_some() {
            found = way as u32;
        }
    }
    forget(found) as usize & (WAYS - 1)
}

/// Where in a set a flow is to be entered.
#[inline(always)]
fn spare_way(set: *mut ChoiceSet, hash: u32, mask: u32) -> Option<usize> {
    let heads = (*CHOICE_HEADS.get(0)? as u32, *CHOICE_HEADS.get(HEAD_STEP)? as u32);
    let (mut found, mut most) = (0, 0);
    for way in 0..WAYS {
        let entry = entry(set, way);
        let own = Place::of(entry, hash).is_some();
        let spare = if own { u32::MAX } else { Place::spare(entry, heads, mask) };
        if spare >= most {
            (found, most) = (way as u32, spare);
        }
    }
    Some(forget(found) as usize & (WAYS - 1))
}

#[inline(always)]
fn entry(set: *mut ChoiceSet, way: usize) -> u64 {
    // SAFETY: a map's value; the mask changes nothing.
    unsafe { (&raw const (*set)[way & (WAYS - 1)]).read_volatile() }
}

/// Takes a slot to write it.
#[inline(always)]
fn claim(slot: *mut ChoiceSlot) -> Option<u64> {
    // SAFETY: a word of a map's value, aligned to eight.
    unsafe {
        let version = &raw mut (*slot).version;
        let now = version.read_volatile();
        if now & 1 == 0 && atomic::compare_exchange(version, now, now + 1) == now { Some(now) } else { None }
    }
}

/// Lets others read it.
#[inline(always)]
fn give_back(slot: *mut ChoiceSlot, claimed: u64) {
    // SAFETY: see `claim`.
    forget(unsafe { atomic::exchange(&raw mut (*slot).version, claimed + 2) } as u32);
}

#[inline(always)]
fn read_version(slot: *mut ChoiceSlot) -> u64 {
    // SAFETY: see `claim`. An addition of nothing, since BPF has no other read on all kernels that keeps the order.
    unsafe { atomic::add(&raw mut (*slot).version, 0) }
}
