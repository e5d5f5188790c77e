//! Processor time that the whole machine uses: kernel work on behalf of packets is accounted to no process.

use std::time::Instant;

use anyhow::{Context, Result};

/// `USER_HZ`, the unit of `/proc/stat` on every architecture that Linux still has users on.
const TICKS: f64 = 100.0;

/// A running measurement.
pub struct Busy {
    start: Instant,
    idle: Idle,
}

impl Busy {
    /// From now on.
    pub fn start() -> Result<Self> {
        Ok(Self { start: Instant::now(), idle: Idle::read()? })
    }

    /// Seconds of processor time that were not idle so far, of all processors together.
    ///
    /// What is not idle counts, rather than user and system time: those are sampled by the tick, idle time is not.
    pub fn seconds(&self) -> Result<f64> {
        let (idle, passed) = (Idle::read()?, self.start.elapsed().as_secs_f64());
        Ok((passed * f64::from(idle.processors) - (idle.seconds - self.idle.seconds)).max(0.0))
    }
}

#[derive(Debug, PartialEq)]
struct Idle {
    seconds: f64,
    processors: u32,
}

impl Idle {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text).context("/proc/stat is not as proc(5) has it")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let total: Vec<f64> =
            lines.next()?.strip_prefix("cpu ")?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let processors = lines.take_while(|line| line.starts_with("cpu")).count();
        // Idle, waiting for disks, and stolen by the hypervisor: not used by anything here.
        let seconds = (total.get(3)? + total.get(4)? + total.get(7)?) / TICKS;
        Some(Self { seconds, processors: u32::try_from(processors).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read() {
        let text = "cpu  10 0 20 300 40 1 2 60 0 0\ncpu0 5 0 10 150 20 0 1 30 0 0\ncpu1 5 0 10 150 20 1 1 30 0 0\nintr 1\n";
        assert_eq!(Idle::parse(text), Some(Idle { seconds: 4.0, processors: 2 }));
        assert_eq!(Idle::parse("cpu  10 0\n"), None);
        let now = Idle::read().unwrap();
        assert!(now.processors > 0 && now.seconds > 0.0, "{now:?}");
    }
}
