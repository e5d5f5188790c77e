//! Where services are counted: an index for each of their entries.

use std::{cell::OnceCell, collections::HashSet};

use crate::held::Held;

/// As many as entries can name, and the one that is nobody's.
pub(super) const MOST_COUNTERS: usize = 1 << 16;

/// Gives indexes that nobody has. One that was given back comes last: for a moment flows still name it.
pub(super) struct Counters<'a> {
    held: &'a Held,
    room: u32,
    last: u16,
    /// Those in use, once one is asked for.
    used: OnceCell<HashSet<u16>>,
}

impl<'a> Counters<'a> {
    /// `room`: how many there are, with the one that is nobody's.
    pub(super) fn new(held: &'a Held, room: u32) -> Self {
        Self { held, room, last: held.last_counter, used: OnceCell::new() }
    }

    /// An index; 0, which is not counted, when all are in use.
    pub(super) fn next(&mut self) -> u16 {
        let of_held = || self.held.services.values().map(|service| service.counter()).collect();
        self.used.get_or_init(of_held);
        let Some(used) = self.used.get_mut() else { return 0 };
        let end = u16::try_from(self.room.saturating_sub(1)).unwrap_or(u16::MAX);
        let free = (self.last.saturating_add(1)..=end).chain(1..=end).find(|index| !used.contains(index));
        let Some(index) = free else { return 0 };
        used.insert(index);
        self.last = index;
        index
    }
}

#[cfg(test)]
mod tests {
    use mesh_abi::{ServiceKey, ServiceValue};

    use super::*;

    fn held(counters: &[u16], last_counter: u16) -> Held {
        let entry = |counter: &u16| {
            let key = ServiceKey { port: counter.to_be_bytes(), ..ServiceKey::default() };
            (key, ServiceValue::default().with(0, *counter))
        };
        let mut held = Held::new(64);
        held.services = counters.iter().map(entry).collect();
        held.last_counter = last_counter;
        held
    }

    #[test]
    fn indexes_are_given_once_and_those_given_back_last() {
        let held = held(&[0, 2, 4], 4);
        let mut counters = Counters::new(&held, 7);
        let given: Vec<_> = (0..6).map(|_| counters.next()).collect();
        assert_eq!(given, [5, 6, 1, 3, 0, 0]);
    }
}
