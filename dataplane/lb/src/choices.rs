//! Flows that are not established yet, as the programs keep them ([`mesh_abi::ChoiceSlot`]): found, added and forgotten in the
//! maps' own memory, by the same rules as the programs.

use std::{
    os::fd::AsFd,
    path::Path,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use aya::maps::MapData;
use mesh_abi::{
    ChoiceSet, ChoiceSlot, ChoiceValue, FlowKey, HEAD_STEP, Place, WAYS, flow_hash, flow_state, set_of,
};

use crate::{
    error::Error,
    maps::names::{CHOICE_HEADS, CHOICE_INDEX, CHOICES},
    sys::memory::{self, Memory},
    table::{check_shape, refused, unusable},
};

/// The flows of `CHOICES`.
pub struct Choices {
    slots: Memory,
    index: Memory,
    heads: Memory,
    mask: u32,
}

/// Words of a slot: its version, and the flow.
const WORDS: usize = size_of::<ChoiceSlot>() / 8;
const FLOW: usize = WORDS - 1;

impl Choices {
    /// The flows in these maps: `CHOICES`, `CHOICE_INDEX` and `CHOICE_HEADS`.
    pub fn new(slots: &MapData, index: &MapData, heads: &MapData) -> Result<Self, Error> {
        let len = check_shape::<u32, ChoiceSlot>(CHOICES, slots)?;
        let sets = check_shape::<u32, ChoiceSet>(CHOICE_INDEX, index)?;
        let head_len = check_shape::<u32, u64>(CHOICE_HEADS, heads)?;
        let map = |name, data: &MapData, stride, len| {
            Memory::map(data.fd().as_fd(), stride, len).map_err(|e| refused("map", name, e))
        };
        Ok(Self {
            slots: map(CHOICES, slots, size_of::<ChoiceSlot>(), len)?,
            index: map(CHOICE_INDEX, index, size_of::<ChoiceSet>(), sets)?,
            heads: map(CHOICE_HEADS, heads, size_of::<u64>(), head_len)?,
            mask: (len / 2).next_power_of_two().saturating_sub(1),
        })
    }

    /// The flows in maps that are pinned in a folder.
    pub fn pinned(folder: &Path) -> Result<Self, Error> {
        let open = |name: &'static str| MapData::from_pin(folder.join(name)).map_err(|e| unusable(name, e));
        Self::new(&open(CHOICES)?, &open(CHOICE_INDEX)?, &open(CHOICE_HEADS)?)
    }

    /// How many flows there is room for.
    pub fn capacity(&self) -> u32 {
        self.slots.len()
    }

    /// See [`mesh_abi::NodeConfig::choice_mask`].
    pub(crate) fn mask(&self) -> u32 {
        self.mask
    }

    /// What a flow was given.
    pub fn get(&self, key: &FlowKey) -> Option<ChoiceValue> {
        let hash = flow_hash(key);
        let entries = self.index.words(set_of(hash, self.mask)).iter();
        let places = entries.filter_map(|entry| Place::of(entry.load(Ordering::Acquire), hash));
        places.filter_map(|place| self.read(place)).find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Calls `each` with every flow. Concurrent writes may hide some.
    pub fn for_each(&self, mut each: impl FnMut(FlowKey, ChoiceValue)) {
        self.walk(&mut 0, u32::MAX, &mut each);
    }

    /// Calls `each` with the flows of some sets of the index from `position` on, which it moves: to 0 after the last one.
    pub(crate) fn walk(&self, position: &mut u32, sets: u32, mut each: impl FnMut(FlowKey, ChoiceValue)) {
        let end = position.saturating_add(sets).min(self.index.len());
        for set in *position..end {
            for entry in self.index.words(set) {
                let entry = entry.load(Ordering::Acquire);
                let place = Place::of(entry, (entry >> 32) as u32);
                if let Some((key, value)) = place.and_then(|place| self.read(place))
                    && flow_hash(&key) == (entry >> 32) as u32
                {
                    each(key, value);
                }
            }
        }
        *position = if end == self.index.len() { 0 } else { end };
    }

    /// How many sets the index has.
    pub(crate) fn sets(&self) -> u32 {
        self.index.len()
    }

    /// Adds a flow unless it is there; false when it is, or when somebody else writes in its place.
    pub fn add(&self, key: &FlowKey, value: &ChoiceValue) -> bool {
        if self.get(key).is_some() {
            return false;
        }
        let hash = flow_hash(key);
        let lives = value.state & flow_state::ANSWERED != 0 && value.state & ENDING == 0;
        let Some(head) = self.heads.words(if lives { HEAD_STEP } else { 0 }).first() else { return false };
        let place = Place::new(lives, head.fetch_add(1, Ordering::SeqCst) as u32);
        let Some((version, flow)) = self.slots.words(place.index(self.mask)).split_first() else {
            return false;
        };
        let now = version.load(Ordering::Relaxed);
        let claimed =
            |now: u64| version.compare_exchange(now, now + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if now & 1 != 0 || !claimed(now) {
            return false;
        }
        memory::write(flow, &words_of(key, value));
        version.store(now.wrapping_add(2), Ordering::Release);
        let set = self.index.words(set_of(hash, self.mask)).iter();
        let next =
            |ring| self.heads.words(ring).first().map_or(0, |head| head.load(Ordering::Relaxed) as u32);
        let heads = (next(0), next(HEAD_STEP));
        let spare = |entry: &&AtomicU64| Place::spare(entry.load(Ordering::Relaxed), heads, self.mask);
        let Some(entry) = set.max_by_key(spare) else { return false };
        entry.store(place.entry(hash), Ordering::Release);
        true
    }

    /// Forgets a flow.
    pub fn remove(&self, key: &FlowKey) {
        let hash = flow_hash(key);
        for entry in self.index.words(set_of(hash, self.mask)) {
            let seen = entry.load(Ordering::Acquire);
            let is_it =
                Place::of(seen, hash).and_then(|place| self.read(place)).is_some_and(|(k, _)| k == *key);
            if is_it {
                // Else another flow has been entered there.
                let _ = entry.compare_exchange(seen, 0, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    /// The flow in a place, unless it is being written.
    fn read(&self, place: Place) -> Option<(FlowKey, ChoiceValue)> {
        let (version, flow) = self.slots.words(place.index(self.mask)).split_first()?;
        let before = version.load(Ordering::Acquire);
        let flow: [u64; FLOW] = memory::read(flow)?;
        fence(Ordering::Acquire);
        let whole = before & 1 == 0 && version.load(Ordering::Relaxed) == before;
        whole.then(|| flow_of(&flow))
    }
}

const ENDING: u8 = flow_state::RESET | flow_state::CLIENT_FIN | flow_state::SERVER_FIN;
const _: () = assert!(size_of::<ChoiceSet>() == WAYS * 8 && size_of::<ChoiceSlot>() == WORDS * 8);

/// A slot behind its version, as words.
fn words_of(key: &FlowKey, value: &ChoiceValue) -> [u64; FLOW] {
    let slot = ChoiceSlot { version: 0, value: *value, key: *key, reserved: 0 };
    // SAFETY: the same size, and bytes without padding are words.
    let [_, flow @ ..] = unsafe { std::mem::transmute::<ChoiceSlot, [u64; WORDS]>(slot) };
    flow
}

fn flow_of(flow: &[u64; FLOW]) -> (FlowKey, ChoiceValue) {
    let mut words = [0; WORDS];
    words[1..].copy_from_slice(flow);
    // SAFETY: the same size, and a slot is integers and bytes.
    let slot = unsafe { std::mem::transmute::<[u64; WORDS], ChoiceSlot>(words) };
    (slot.key, slot.value)
}
