//! What clients asked and what they were told, in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is asked about one key; a key is a service, its value a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Make it.
    Create,
    /// Take it away.
    Remove,
    /// Give it a value.
    Write(u64),
    /// Tell its value.
    Read,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It was done.
    Done,
    /// It was refused since it is there, or since it is not.
    Refused,
    /// None: it is not there; 0: it has no value.
    Value(Option<u64>),
}

/// One question and its answer.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Which service.
    pub key: usize,
    /// What was asked.
    pub ask: Ask,
    /// When, on a clock that ticks with every question and answer.
    pub asked: u64,
    /// When the answer came and what it was; none if it is not known whether it was carried out.
    pub told: Option<(u64, Told)>,
}

/// Collects operations; clones share it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    clock: u64,
    operations: Vec<Operation>,
    refused_for_nothing: u64,
}

/// A question that was not answered yet.
#[derive(Debug, Clone, Copy)]
pub struct Asked(usize);

impl History {
    /// Somebody asks.
    pub fn ask(&self, key: usize, ask: Ask) -> Asked {
        let mut inner = self.lock();
        inner.clock += 1;
        let asked = inner.clock;
        inner.operations.push(Operation { key, ask, asked, told: None });
        Asked(inner.operations.len() - 1)
    }

    /// The answer. Whoever gets none says nothing.
    pub fn told(&self, Asked(at): Asked, told: Told) {
        let mut inner = self.lock();
        inner.clock += 1;
        inner.operations[at].told = Some((inner.clock, told));
    }

    /// It certainly was not carried out.
    pub fn never(&self, Asked(at): Asked) {
        let inner = &mut *self.lock();
        inner.refused_for_nothing += 1;
        // Reads without an answer say nothing.
        inner.operations[at].ask = Ask::Read;
    }

    /// All so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
