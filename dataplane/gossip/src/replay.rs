//! Tells packets that were seen before, or are too old to know.

/// Sequence numbers this far below the highest one are too old.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// A sliding window over the sequence numbers of one sender (as RFC 4303, section 3.4.3, has it).
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Whether `sequence` is new; marks it as seen. Sequences count from 1.
    pub(crate) fn accept(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let first = self.highest.saturating_add(1).max(sequence.saturating_sub(WINDOW - 1));
            for passed in first..=sequence {
                self.set(passed, false);
            }
            self.highest = sequence;
        } else if self.highest - sequence >= WINDOW || self.is_set(sequence) {
            return false;
        }
        self.set(sequence, true);
        sequence > 0
    }

    fn is_set(&self, sequence: u64) -> bool {
        self.seen[(sequence % WINDOW / 64) as usize] & (1 << (sequence % 64)) != 0
    }

    fn set(&mut self, sequence: u64, value: bool) {
        let word = &mut self.seen[(sequence % WINDOW / 64) as usize];
        let bit = 1 << (sequence % 64);
        if value { *word |= bit } else { *word &= !bit }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn old_and_repeated_numbers_are_refused() {
        let mut w = Window::default();
        assert!(w.accept(5) && w.accept(3) && !w.accept(3) && !w.accept(5) && !w.accept(0));
        assert!(w.accept(5 + WINDOW));
        assert!(!w.accept(5) && w.accept(6) && !w.accept(6));
        assert!(w.accept(u64::MAX) && !w.accept(u64::MAX) && w.accept(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(sequences in proptest::collection::vec(1u64..3000, 0..600)) {
            let (mut w, mut seen, mut highest) = (Window::default(), BTreeSet::new(), 0u64);
            for s in sequences {
                let new = s + WINDOW > highest && seen.insert(s);
                highest = highest.max(s);
                prop_assert_eq!(w.accept(s), new);
            }
        }
    }
}
