//! For how long this node may act without a word from the managers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a renewal is due at the least, whatever the grace.
const OFTEN: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// How often this node has renewed, as the managers count.
    pub(super) count: u64,
    /// Until when it holds.
    until: Duration,
    /// When it is time for the next renewal.
    due: Duration,
    /// The version of the state with which it began; what is known of leases from before is void. 0: none has begun.
    begun: u64,
    /// The version of the state as of the managers' last answer; what they said before that is old.
    known: u64,
}

impl Term {
    /// Whether it holds.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.begun > 0 && now < self.until
    }

    /// How long it still holds.
    pub(super) fn left(&self, now: Duration) -> Duration {
        if self.begun > 0 { self.until.saturating_sub(now) } else { Duration::ZERO }
    }

    /// Which term it is.
    pub(super) fn number(&self) -> u64 {
        self.begun
    }

    /// Whether the managers have answered since that version of the state.
    pub(super) fn knows_more_than(&self, version: u64) -> bool {
        version < self.known
    }

    /// Whether there was none yet.
    pub(super) fn never(&self) -> bool {
        self.count == 0
    }

    /// The managers answered.
    pub(super) fn answered(&mut self, count: u64, version: u64) {
        self.count = count;
        self.known = self.known.max(version);
    }

    /// The managers' state is one of before, out of a backup: what they answered since counts for nothing.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.begun == 0 || now >= self.due
    }

    /// Ends it; only a renewal begins another one.
    pub(super) fn end(&mut self) {
        self.begun = 0;
    }

    /// The managers know since `asked` that this node is there. Half their grace is this node's: the rest is for clocks that
    /// do not run alike.
    pub(super) fn renew(&mut self, asked: Duration, grace: Duration, begins_at: Option<u64>) {
        self.until = asked + grace / 2;
        self.due = asked + (grace / 6).min(OFTEN);
        if let Some(version) = begins_at {
            self.begun = version;
        }
    }
}

/// The time since the machine booted, time in which it slept included. Nobody can set it.
pub fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
