//! Histories are linearizable: each operation seems to happen at one moment between question and answer.
//!
//! The search is Wing and Gong's with Lowe's memory of what was tried (Testing for linearizability, 2017), for one key
//! at a time. An operation without an answer may happen at any moment after its question, or never.

use std::collections::HashSet;

use anyhow::{Result, bail};

use crate::history::{Ask, Operation, Told};

/// Tried orders after which the search gives up.
const PATIENCE: usize = 2_000_000;

/// Checks all keys; how many could not be decided for want of patience.
pub fn check(operations: &[Operation]) -> Result<usize> {
    let keys = operations.iter().map(|operation| operation.key).max().map_or(0, |key| key + 1);
    let mut undecided = 0;
    for key in 0..keys {
        let of_key = operations.iter().filter(|operation| operation.key == key);
        let told = of_key.filter(|operation| operation.told.is_some() || operation.ask != Ask::Read);
        let operations: Vec<&Operation> = told.collect();
        match search(&operations) {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Not(furthest) => {
                bail!("key {key} is not linearizable:\n{}", describe(&operations, furthest))
            }
        }
    }
    Ok(undecided)
}

enum Verdict {
    Linearizable,
    Undecided,
    /// The most operations that could be put in order.
    Not(usize),
}

/// What a key may be: absent, or there with a value.
type Value = Option<u64>;

/// The value after the operation if its answer fits.
fn step(value: Value, operation: &Operation) -> Option<Value> {
    let told = operation.told.as_ref().map(|(_, told)| told);
    let (after, answer) = match (&operation.ask, value) {
        (Ask::Read, value) => (value, Told::Value(value)),
        (Ask::Create, None) => (Some(0), Told::Done),
        (Ask::Create, Some(_)) => (value, Told::Refused),
        (Ask::Remove, Some(_)) => (None, Told::Done),
        (Ask::Write(new), Some(_)) => (Some(*new), Told::Done),
        (Ask::Remove | Ask::Write(_), None) => (None, Told::Refused),
    };
    told.is_none_or(|told| *told == answer).then_some(after)
}

/// Depth first over the operations that may come next: those asked before the first answer that is still to come.
fn search(operations: &[&Operation]) -> Verdict {
    let answer = |operation: &Operation| operation.told.as_ref().map_or(u64::MAX, |(at, _)| *at);
    let mut done = Set::new(operations.len());
    let mut tried: HashSet<(Set, Value)> = HashSet::new();
    // What was chosen, with the value before.
    let mut chosen: Vec<(usize, Value)> = Vec::new();
    let (mut value, mut from, mut furthest) = (None, 0, 0);
    loop {
        let open = || (0..operations.len()).filter(|at| !done.has(*at));
        let horizon = open().map(|at| answer(operations[at])).min().unwrap_or(u64::MAX);
        if horizon == u64::MAX {
            // Who got no answer may never have been heard.
            return Verdict::Linearizable;
        }
        let candidates = open().filter(|at| *at >= from && operations[*at].asked < horizon);
        let mut next = None;
        for at in candidates {
            if let Some(after) = step(value, operations[at]) {
                let mut with = done.clone();
                with.add(at);
                if tried.insert((with.clone(), after)) {
                    next = Some((at, with, after));
                    break;
                }
            }
        }
        if tried.len() > PATIENCE {
            return Verdict::Undecided;
        }
        match next {
            Some((at, with, after)) => {
                chosen.push((at, value));
                (done, value, from) = (with, after, 0);
                furthest = furthest.max(chosen.len());
            }
            None => match chosen.pop() {
                Some((at, before)) => {
                    done.remove(at);
                    (value, from) = (before, at + 1);
                }
                None => return Verdict::Not(furthest),
            },
        }
    }
}

/// A set of small numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn new(length: usize) -> Self {
        Self(vec![0; length.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn add(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn remove(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }
}

fn describe(operations: &[&Operation], furthest: usize) -> String {
    let from = furthest.saturating_sub(10);
    let lines = operations.iter().skip(from).take(30).map(|operation| {
        let told = match &operation.told {
            Some((at, told)) => format!("{told:?} at {at}"),
            None => "no answer".to_owned(),
        };
        format!("  {:?} asked at {}: {told}\n", operation.ask, operation.asked)
    });
    format!(
        "at most {furthest} of {} fit, from the {from}th on:\n{}",
        operations.len(),
        lines.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(ask: Ask, asked: u64, told: Option<(u64, Told)>) -> Operation {
        Operation { key: 0, ask, asked, told }
    }

    fn fits(operations: &[Operation]) -> bool {
        check(operations).is_ok()
    }

    #[test]
    fn what_is_read_was_written_before() {
        let made = operation(Ask::Create, 1, Some((2, Told::Done)));
        let written = operation(Ask::Write(7), 3, Some((6, Told::Done)));
        let read = |value, asked, told| operation(Ask::Read, asked, Some((told, Told::Value(Some(value)))));
        assert!(fits(&[made.clone(), written.clone(), read(7, 4, 5)]), "seen before it was acknowledged");
        assert!(fits(&[made.clone(), written.clone(), read(0, 4, 5)]));
        assert!(!fits(&[made.clone(), written.clone(), read(0, 7, 8)]), "stale");
        assert!(!fits(&[made.clone(), written.clone(), read(7, 4, 5), read(0, 5, 8)]), "back again");
        assert!(!fits(&[made, written, read(9, 4, 5)]), "from nowhere");
    }

    #[test]
    fn without_an_answer_it_may_come_later_or_never() {
        let made = operation(Ask::Create, 1, Some((2, Told::Done)));
        let lost = operation(Ask::Write(7), 3, None);
        let read = |value, asked, told| operation(Ask::Read, asked, Some((told, Told::Value(Some(value)))));
        assert!(fits(&[made.clone(), lost.clone(), read(0, 4, 5), read(0, 8, 9)]));
        assert!(fits(&[made.clone(), lost.clone(), read(0, 4, 5), read(7, 8, 9)]));
        assert!(!fits(&[made, lost, read(7, 4, 5), read(0, 8, 9)]));
    }

    #[test]
    fn refusals_count() {
        let made = operation(Ask::Create, 1, Some((2, Told::Done)));
        let again = operation(Ask::Create, 3, Some((4, Told::Done)));
        let refused = operation(Ask::Create, 3, Some((4, Told::Refused)));
        assert!(!fits(&[made.clone(), again.clone()]));
        assert!(fits(&[made.clone(), refused.clone()]));
        let removed = operation(Ask::Remove, 2, Some((5, Told::Done)));
        assert!(fits(&[made.clone(), removed.clone(), again]));
        let written = operation(Ask::Write(3), 6, Some((7, Told::Done)));
        assert!(!fits(&[made, removed, refused, written]), "it was gone");
    }
}
