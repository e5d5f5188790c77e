//! Tells packets that were seen before, or are too old to know.

/// Sequence numbers this far below the highest one are too old.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// So many of them are remembered one by one; of more, a bit each.
const FEW: usize = 6;

/// A sliding window over the sequence numbers of one sender (as RFC 4303, section 3.4.3, has it).
///
/// A sender counts what it sends to all, so that most of a large cluster sends a few in a window's length: those are listed, in a
/// sixth of the room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    highest: u64,
    seen: Seen,
}

/// Which numbers within the window were seen, the highest not among them.
#[derive(Debug, Clone)]
enum Seen {
    /// How far below the highest.
    Few { len: u8, ages: [u16; FEW] },
    /// A bit for each, by the number's remainder.
    Many(Box<[u64; WORDS]>),
}

impl Default for Seen {
    fn default() -> Self {
        Self::Few { len: 0, ages: [0; FEW] }
    }
}

impl Window {
    /// Whether `sequence` is new; marks it as seen. Sequences count from 1.
    pub(crate) fn accept(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let before = std::mem::replace(&mut self.highest, sequence);
            self.seen.advance(before, sequence);
            return true;
        }
        let age = self.highest - sequence;
        if age == 0 || age >= WINDOW || sequence == 0 || self.seen.contains(sequence, age) {
            return false;
        }
        self.seen.add(sequence, self.highest);
        true
    }
}

impl Seen {
    /// The highest was `before` and is `now`.
    fn advance(&mut self, before: u64, now: u64) {
        let by = now - before;
        if by >= WINDOW || before == 0 {
            *self = Self::default();
            return;
        }
        match self {
            Self::Few { len, ages } => {
                let listed = usize::from(*len);
                *len = 0;
                for place in 0..listed {
                    let age = u64::from(ages[place]) + by;
                    if age < WINDOW {
                        ages[usize::from(*len)] = age as u16;
                        *len += 1;
                    }
                }
            }
            Self::Many(bits) => {
                // The place of what is the highest now is that of a number just out of the window.
                for passed in before + 1..=now {
                    set(bits, passed, false);
                }
                if by >= WINDOW / 8 {
                    self.list_few(now);
                }
            }
        }
        self.add(before, now);
    }

    fn contains(&self, sequence: u64, age: u64) -> bool {
        match self {
            Self::Few { len, ages } => ages[..usize::from(*len)].iter().any(|known| u64::from(*known) == age),
            Self::Many(bits) => bits[(sequence % WINDOW / 64) as usize] & (1 << (sequence % 64)) != 0,
        }
    }

    /// Adds a number below `highest`, within the window.
    fn add(&mut self, sequence: u64, highest: u64) {
        match self {
            Self::Few { len, ages } if usize::from(*len) < FEW => {
                ages[usize::from(*len)] = (highest - sequence) as u16;
                *len += 1;
            }
            Self::Few { ages, .. } => {
                let mut bits = Box::new([0; WORDS]);
                ages.iter().for_each(|age| set(&mut bits, highest - u64::from(*age), true));
                set(&mut bits, sequence, true);
                *self = Self::Many(bits);
            }
            Self::Many(bits) => set(bits, sequence, true),
        }
    }

    /// Goes back to a list if there is room to spare in one.
    fn list_few(&mut self, highest: u64) {
        let Self::Many(bits) = self else { return };
        if bits.iter().map(|word| word.count_ones() as usize).sum::<usize>() > FEW / 2 {
            return;
        }
        let below = (1..WINDOW).filter(|age| *age <= highest).map(|age| highest - age);
        let seen: Vec<u64> =
            below.filter(|s| bits[(s % WINDOW / 64) as usize] & (1 << (s % 64)) != 0).collect();
        *self = Self::default();
        seen.into_iter().for_each(|sequence| self.add(sequence, highest));
    }
}

fn set(bits: &mut [u64; WORDS], sequence: u64, value: bool) {
    let word = &mut bits[(sequence % WINDOW / 64) as usize];
    let bit = 1 << (sequence % 64);
    if value { *word |= bit } else { *word &= !bit }
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
        fn agrees_with_a_set(steps in proptest::collection::vec((0u64..900, 0u64..1200, 0u8..12), 0..600)) {
            let (mut w, mut seen, mut highest) = (Window::default(), BTreeSet::new(), 0u64);
            for (forth, back, kind) in steps {
                // A few steps forth, most of them small, and repeated or late ones.
                let s = match kind {
                    0 => highest + forth,
                    1..=4 => highest + 1 + forth % 8,
                    _ => highest.saturating_sub(back / u64::from(kind)),
                };
                if s == 0 {
                    prop_assert!(!w.accept(s));
                    continue;
                }
                let new = s + WINDOW > highest && seen.insert(s);
                highest = highest.max(s);
                prop_assert_eq!(w.accept(s), new);
            }
        }
    }
}
