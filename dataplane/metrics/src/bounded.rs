//! A bound on series: the first so many keep theirs, what comes later is summed up.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

/// Numbers that only grow, added up field by field.
pub trait Growing: Copy + Default {
    /// What came since `before`; what went down has begun anew.
    fn since(&self, before: &Self) -> Self;
    /// Both together.
    fn plus(&self, other: &Self) -> Self;
}

/// Who has series of its own, and what the others counted together.
///
/// Who has one keeps it for as long as it is there, so that no series jumps when others come and go. The sum of the others
/// never goes down either: it adds what each of them counted from one look to the next.
#[derive(Debug)]
pub struct Bounded<K, N> {
    limit: usize,
    shown: HashSet<K>,
    before: HashMap<K, N>,
    others: N,
    /// Whether there ever were others.
    ever: bool,
}

/// Who is shown, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division<N> {
    /// For each that was given, in that order: whether it has series of its own.
    pub shown: Vec<bool>,
    /// How many have none.
    pub left_out: usize,
    /// What those without counted together, those that are gone included. None if there never were any.
    pub others: Option<N>,
}

impl<K: Eq + Hash + Clone, N: Growing> Bounded<K, N> {
    /// At most `limit` have series of their own.
    pub fn new(limit: usize) -> Self {
        Self { limit, shown: HashSet::new(), before: HashMap::new(), others: N::default(), ever: false }
    }

    /// Looks at all that are there now, and what each has counted.
    pub fn divide(&mut self, all: &[(K, N)]) -> Division<N> {
        let mut before = std::mem::take(&mut self.before);
        // Who had series and is there keeps them; only then is it known how much room there is for others.
        let mut shown: Vec<bool> = all.iter().map(|(key, _)| self.shown.contains(key)).collect();
        let kept = shown.iter().filter(|kept| **kept).count();
        if kept < self.shown.len() {
            self.shown =
                all.iter().zip(&shown).filter(|(_, kept)| **kept).map(|((key, _), _)| key.clone()).collect();
        }
        let mut left_out = 0;
        for ((key, now), own) in all.iter().zip(&mut shown) {
            if !*own && self.shown.len() < self.limit {
                *own = self.shown.insert(key.clone());
            } else if !*own {
                // One that is new counts from now on, as a series that begins would.
                let last = before.get(key).unwrap_or(now);
                self.others = self.others.plus(&now.since(last));
                left_out += 1;
            }
        }
        if left_out > 0 {
            before.clear();
            let others = all.iter().zip(&shown).filter(|(_, own)| !**own);
            before.extend(others.map(|((key, now), _)| (key.clone(), *now)));
            self.before = before;
        }
        self.ever |= left_out > 0;
        Division { shown, left_out, others: self.ever.then_some(self.others) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Growing for u64 {
        fn since(&self, before: &Self) -> Self {
            self.checked_sub(*before).unwrap_or(*self)
        }

        fn plus(&self, other: &Self) -> Self {
            self.wrapping_add(*other)
        }
    }

    struct Look(Bounded<&'static str, u64>);

    impl Look {
        fn at(&mut self, all: &[(&'static str, u64)]) -> (Vec<&'static str>, usize, Option<u64>) {
            let division = self.0.divide(all);
            let own = all.iter().zip(&division.shown).filter(|(_, shown)| **shown).map(|((key, _), _)| *key);
            (own.collect(), division.left_out, division.others)
        }
    }

    #[test]
    fn those_who_have_series_keep_them_and_sums_only_grow() {
        let mut look = Look(Bounded::new(2));
        assert_eq!(look.at(&[("b", 1), ("c", 5)]), (vec!["b", "c"], 0, None));
        // One that would come first does not push another out; what it counted before it was seen is not new.
        assert_eq!(look.at(&[("a", 100), ("b", 2), ("c", 6)]), (vec!["b", "c"], 1, Some(0)));
        assert_eq!(look.at(&[("a", 107), ("b", 2), ("c", 6)]), (vec!["b", "c"], 1, Some(7)));
        // Its task is replaced: it begins anew.
        assert_eq!(look.at(&[("a", 3), ("b", 2), ("c", 6)]), (vec!["b", "c"], 1, Some(10)));
        // A place is free: it gets it, and what it counted among the others stays there.
        assert_eq!(look.at(&[("a", 4), ("c", 6)]), (vec!["a", "c"], 0, Some(10)));
        assert_eq!(look.at(&[("a", 4), ("b", 50), ("c", 6)]), (vec!["a", "c"], 1, Some(10)));
        assert_eq!(look.at(&[]), (vec![], 0, Some(10)));
    }

    #[test]
    fn no_room_means_only_the_sum() {
        let mut look = Look(Bounded::new(0));
        assert_eq!(look.at(&[("a", 1)]), (vec![], 1, Some(0)));
        assert_eq!(look.at(&[("a", 9)]), (vec![], 1, Some(8)));
    }
}
