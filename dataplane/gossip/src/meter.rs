//! How much passed lately.

use std::{collections::VecDeque, time::Duration};

use crate::{Rates, Stats};

const PAUSE: Duration = Duration::from_secs(1);
const SAMPLES: usize = 10;

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    datagrams: [u64; 2],
    bytes: [u64; 2],
}

impl Sample {
    fn new(at: Duration, stats: &Stats) -> Self {
        Self {
            at,
            datagrams: [stats.datagrams_in, stats.datagrams_out],
            bytes: [stats.bytes_in + stats.stream_bytes_in, stats.bytes_out + stats.stream_bytes_out],
        }
    }
}

/// Counters as they were in each of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    samples: VecDeque<Sample>,
}

impl Meter {
    /// Takes note, unless it did a moment ago.
    pub(crate) fn measure(&mut self, now: Duration, stats: impl FnOnce() -> Stats) {
        if self.samples.back().is_none_or(|last| now.saturating_sub(last.at) >= PAUSE) {
            if self.samples.len() > SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(Sample::new(now, &stats()));
        }
    }

    pub(crate) fn rates(&self, now: Duration, stats: Stats) -> Rates {
        let last = Sample::new(now, &stats);
        let Some(first) = self.samples.front() else { return Rates::default() };
        let seconds = now.saturating_sub(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        Rates {
            datagrams_in: rate(first.datagrams[0], last.datagrams[0]),
            datagrams_out: rate(first.datagrams[1], last.datagrams[1]),
            bytes_in: rate(first.bytes[0], last.bytes[0]),
            bytes_out: rate(first.bytes[1], last.bytes[1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(PAUSE, Stats::default()), Rates::default());
        // A hundred a second for a while, then ten.
        let stats = |second: u64| Stats {
            datagrams_in: second.min(60) * 100 + second.saturating_sub(60) * 10,
            bytes_out: second * 7,
            stream_bytes_out: second * 3,
            ..Stats::default()
        };
        for tenth in 0..900u64 {
            meter.measure(Duration::from_millis(tenth * 100), || stats(tenth / 10));
        }
        assert!(meter.samples.len() <= SAMPLES + 1);
        let rates = meter.rates(Duration::from_secs(90), stats(90));
        assert_eq!((rates.datagrams_in, rates.bytes_out, rates.bytes_in), (10.0, 10.0, 0.0));
    }
}
