//! Small datagrams one way, as many as arrive.
//!
//! A sender that is not held back shows how much a receiver suffers from what it has no time for, which says little
//! about the way there. So no more than [`WINDOW`] datagrams are under way: the slowest stage sets the pace, and
//! nothing is lost in queues.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Sample, sockets};
use crate::{
    cpu::Busy,
    path::Path,
    pinning::{Processors, pin},
};

const SIZE: usize = 64;
/// Less than the kernel queues for a processor (`net.core.netdev_max_backlog`, 1000), and more than is sent while the
/// sender sleeps.
const WINDOW: u64 = 512;
const BURST: u64 = 32;
const PAUSE: Duration = Duration::from_micros(50);
/// What has not arrived after such a silence is lost.
const SILENCE: Duration = Duration::from_millis(20);
const WARM_UP: Duration = Duration::from_millis(200);

/// Thousands of datagrams a second that the receiver saw.
pub fn run(path: &Path, length: Duration, processors: Processors) -> Result<Sample> {
    let (client, server) = sockets::udp(path, |ports| ports.sink)?;
    let (received, done) = (AtomicU64::new(0), AtomicBool::new(false));
    // So that the receiver sees the end.
    server.set_read_timeout(Some(Duration::from_millis(100))).context("a socket's timeout")?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| -> Result<()> {
            pin(processors.server)?;
            let mut buffer = [0; SIZE];
            while !done.load(Relaxed) {
                if server.recv(&mut buffer).is_ok() {
                    received.fetch_add(1, Relaxed);
                }
            }
            Ok(())
        });
        let sender = scope.spawn(|| -> Result<()> {
            pin(processors.client)?;
            let mut window = Window::new(&received);
            while !done.load(Relaxed) {
                window.wait(&done);
                for _ in 0..BURST {
                    client.send(&[7; SIZE]).context("sending")?;
                }
                window.sent += BURST;
            }
            Ok(())
        });
        thread::sleep(WARM_UP);
        let (start, before, busy) = (Instant::now(), received.load(Relaxed), Busy::start());
        thread::sleep(length);
        let (passed, after) = (start.elapsed().as_secs_f64(), received.load(Relaxed));
        let busy = busy.and_then(|busy| busy.seconds());
        done.store(true, Relaxed);
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        let count = (after - before) as f64;
        ensure!(count > 0.0, "nothing is received");
        Ok(Sample { value: count / passed / 1e3, cpu: busy? / count })
    })
}

struct Window<'a> {
    received: &'a AtomicU64,
    sent: u64,
    lost: u64,
}

impl<'a> Window<'a> {
    fn new(received: &'a AtomicU64) -> Self {
        Self { received, sent: 0, lost: 0 }
    }

    /// What is neither received nor lost. What was given up and comes late was not lost after all: counted as both it
    /// would let more and more through.
    fn under_way(&mut self) -> u64 {
        let rest = self.sent.saturating_sub(self.received.load(Relaxed));
        self.lost = self.lost.min(rest);
        rest - self.lost
    }

    /// Until there is room for a burst.
    fn wait(&mut self, done: &AtomicBool) {
        let mut last = (self.received.load(Relaxed), Instant::now());
        while self.under_way() + BURST > WINDOW && !done.load(Relaxed) {
            thread::sleep(PAUSE);
            let now = self.received.load(Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > SILENCE {
                self.lost += self.under_way();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_does_not_hold_the_sender_back() {
        let received = AtomicU64::new(0);
        let mut window = Window { received: &received, sent: WINDOW, lost: 0 };
        assert_eq!(window.under_way(), WINDOW);
        window.wait(&AtomicBool::new(false));
        assert_eq!((window.lost, window.under_way()), (WINDOW, 0));
        received.store(WINDOW - 1, Relaxed);
        window.sent += BURST;
        assert_eq!((window.under_way(), window.lost), (0, 1 + BURST), "late ones are not lost");
    }
}
