//! What happened, for whoever has to find out why.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use crate::world::lock;

/// Lines kept.
const KEPT: usize = 200;

/// Collects lines; clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    begin: Instant,
    live: bool,
    last: VecDeque<String>,
    digest: blake3::Hasher,
}

impl Trace {
    /// An empty one; `live` prints each line at once.
    pub fn new(live: bool) -> Self {
        let (begin, last, digest) = (Instant::now(), VecDeque::new(), blake3::Hasher::new());
        Self(Arc::new(Mutex::new(Inner { begin, live, last, digest })))
    }

    /// One more line.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let mut inner = lock(&self.0);
        let line = format!("{:10.3} {}", inner.begin.elapsed().as_secs_f64(), what());
        inner.digest.update(line.as_bytes());
        if inner.live {
            println!("{line}");
        }
        inner.last.push_back(line);
        if inner.last.len() > KEPT {
            inner.last.pop_front();
        }
    }

    /// The last lines.
    pub fn last(&self) -> String {
        lock(&self.0).last.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The same for equal traces.
    pub fn digest(&self) -> String {
        lock(&self.0).digest.finalize().to_hex()[..16].to_owned()
    }
}
