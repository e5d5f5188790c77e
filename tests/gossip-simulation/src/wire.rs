//! The network between the nodes: how long a message takes, and whether it comes at all.
//!
//! - **Delay** of a datagram: a fixed share plus an exponential one. Two datagrams overtake each other as they fall.
//! - **Loss** is independent for each datagram. A TCP message takes a round trip more for its connection, and 200 ms more
//!   for each of its three trips that is lost.
//! - **Cuts**: groups that do not reach each other, and single ways that are closed in one direction.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};

use crate::names::Number;

/// What of Ethernet's payload a datagram is besides its own: IPv4 and UDP headers.
pub const DATAGRAM_HEADERS: u64 = 28;
/// The same for a TCP message besides its bytes: some segments to open and close, and one for each 1,400 bytes.
const SEGMENT_HEADERS: u64 = 52;
/// The first retransmission timeout of Linux on a fast network.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// How the network behaves.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The least that a datagram takes.
    pub least: Duration,
    /// The mean of what it takes beyond.
    pub spread: Duration,
    /// The share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub twice: f64,
    /// Parts that do not reach each other: the part of each node, 0 unless said.
    parts: BTreeMap<Number, u8>,
    /// Ways closed: from, to.
    closed: BTreeSet<(Number, Number)>,
}

impl Wire {
    /// Everything arrives at once: what networkdb's convergence test runs on.
    pub fn instant() -> Self {
        Self::of(Duration::ZERO, Duration::ZERO, 0.0)
    }

    /// A data centre: 100 us at least, 250 us in the mean, one in 30 over 600 us.
    pub fn lan() -> Self {
        Self::of(Duration::from_micros(100), Duration::from_micros(150), 0.0)
    }

    /// Another network.
    pub fn of(least: Duration, spread: Duration, loss: f64) -> Self {
        Self { least, spread, loss, twice: 0.0, parts: BTreeMap::new(), closed: BTreeSet::new() }
    }

    /// Cuts `island` off from all others.
    pub fn part(&mut self, island: impl IntoIterator<Item = Number>) {
        self.parts = island.into_iter().map(|n| (n, 1)).collect();
    }

    /// Closes the way from one node to another, not the way back.
    pub fn close(&mut self, from: Number, to: Number) {
        self.closed.insert((from, to));
    }

    /// Opens all ways.
    pub fn heal(&mut self) {
        self.parts.clear();
        self.closed.clear();
    }

    /// Whether anything is cut.
    pub fn is_whole(&self) -> bool {
        self.parts.is_empty() && self.closed.is_empty()
    }

    /// Whether `from` reaches `to`.
    pub fn reaches(&self, from: Number, to: Number) -> bool {
        self.is_whole()
            || (self.parts.get(&from) == self.parts.get(&to) && !self.closed.contains(&(from, to)))
    }

    /// After how long datagrams sent once arrive: none, one, or two.
    pub fn datagram(&self, from: Number, to: Number, rng: &mut StdRng) -> [Option<Duration>; 2] {
        if !self.reaches(from, to) || self.chance(self.loss, rng) {
            return [None, None];
        }
        let again = self.chance(self.twice, rng).then(|| self.delay(rng));
        [Some(self.delay(rng)), again]
    }

    /// After how long a TCP message arrives, if it does.
    pub fn stream(&self, from: Number, to: Number, rng: &mut StdRng) -> Option<Duration> {
        if !self.reaches(from, to) || !self.reaches(to, from) {
            return None;
        }
        let mut took = Duration::ZERO;
        for _ in 0..3 {
            took += self.delay(rng);
            while self.chance(self.loss, rng) {
                took += RETRANSMIT;
            }
        }
        Some(took)
    }

    /// What a TCP message of so many bytes is on the wire.
    pub fn stream_bytes(len: u64) -> u64 {
        len + SEGMENT_HEADERS * (6 + 2 * len / 1400)
    }

    fn delay(&self, rng: &mut StdRng) -> Duration {
        if self.spread.is_zero() {
            return self.least;
        }
        let share: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
        self.least + self.spread.mul_f64(-share.ln())
    }

    fn chance(&self, share: f64, rng: &mut StdRng) -> bool {
        share > 0.0 && rng.random_bool(share.min(1.0))
    }
}
