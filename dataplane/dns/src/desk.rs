//! What answers the queries of one task, whichever way they come.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use tokio::sync::watch;

use crate::{
    TaskForwarder, TaskView,
    prepared::Prepared,
    respond::{Outcome, Transport, respond},
    stats::{Counters, count},
};

/// See the module.
pub(crate) struct Desk {
    view: watch::Receiver<Arc<TaskView>>,
    forwarder: Arc<TaskForwarder>,
    pub(crate) counters: Arc<Counters>,
    prepared: Mutex<Prepared>,
    /// Whose turn it is, by a hash of the name and by family: with one counter for all, a client that asks for two names
    /// (or A and AAAA) in turn would always see the same address first.
    turns: [[AtomicUsize; 2]; 256],
    hasher: RandomState,
}

/// The view as it is for one turn, and the replies that are made from it.
pub(crate) struct Turn<'a> {
    desk: &'a Desk,
    view: Arc<TaskView>,
    prepared: MutexGuard<'a, Prepared>,
}

/// What is left to do with a query.
#[derive(Debug)]
pub(crate) enum Left {
    /// Nothing: the reply is written, if there is one.
    Nothing,
    /// It was no query; the reply is written, if there is one.
    Malformed,
    /// The name servers are to be asked; `limit` is what the client takes in bytes, `failure` what it is told otherwise.
    Forward {
        /// See above.
        limit: usize,
        /// See above.
        failure: Vec<u8>,
    },
}

impl Desk {
    pub(crate) fn new(
        view: watch::Receiver<Arc<TaskView>>,
        forwarder: Arc<TaskForwarder>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            view,
            forwarder,
            counters,
            prepared: Mutex::default(),
            turns: [const { [const { AtomicUsize::new(0) }; 2] }; 256],
            hasher: RandomState::new(),
        }
    }

    /// To answer some queries that have come already. Not to be kept while waiting.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let view = Arc::clone(&self.view.borrow());
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.follow(&view);
        Turn { desk: self, view, prepared }
    }

    /// The response of the name servers, or `failure`.
    pub(crate) async fn forward(&self, query: &[u8], limit: usize, failure: Vec<u8>) -> Vec<u8> {
        let begun = Instant::now();
        let response = self.forwarder.forward(query, limit).await;
        self.counters.outside.observe(begun.elapsed(), 1);
        count(if response.is_some() { &self.counters.relayed } else { &self.counters.failed });
        response.unwrap_or(failure)
    }

    fn whose_turn(&self, name: &Name, qtype: RecordType) -> usize {
        let slot = self.hasher.hash_one(name) as usize % self.turns.len();
        let family = usize::from(qtype == RecordType::AAAA);
        let turn = self.turns.get(slot).and_then(|families| families.get(family));
        turn.map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed))
    }
}

impl Turn<'_> {
    /// Appends the reply to `query` to `out`, unless others are to be asked for it.
    pub(crate) fn answer(&mut self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> Left {
        let counters = &self.desk.counters;
        if self.prepared.give(query, transport, out) {
            count(&counters.answered);
            return Left::Nothing;
        }
        let mut turned = false;
        let whose_turn = |name: &Name, qtype| {
            turned = true;
            self.desk.whose_turn(name, qtype)
        };
        let outcome = respond(&self.view, query, transport, whose_turn);
        self.prepared.keep(query, transport, &outcome, turned);
        match outcome {
            Outcome::Reply { bytes, code, truncated } => {
                count(&counters.answered);
                if code == ResponseCode::NXDomain {
                    count(&counters.unknown);
                }
                if truncated {
                    count(&counters.truncated);
                }
                out.extend_from_slice(&bytes);
                Left::Nothing
            }
            Outcome::Malformed(reply) => {
                count(&counters.malformed);
                out.extend_from_slice(&reply.unwrap_or_default());
                Left::Malformed
            }
            Outcome::Forward { limit, failure } => {
                count(&counters.forwarded);
                if let Some(known) = self.desk.forwarder.cached(query, limit) {
                    count(&counters.kept);
                    out.extend_from_slice(&known);
                    return Left::Nothing;
                }
                Left::Forward { limit, failure }
            }
        }
    }
}
