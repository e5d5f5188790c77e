//! The same test runs in quick alternation: while nobody watches what the programs tell, and while somebody does.
//!
//! A few hundred runs of each kind follow each other, so that a mood of the machine meets them all, and of each lot the mean
//! of the quickest quarter counts, which what interrupts a run does not reach.

use anyhow::{Context, Result};
use mesh_lb::{WatchFor, Watcher};
use mesh_types::LocalEndpointId;

use super::{Host, How, Programs, Row, alone, nodes::DROPPED, packets::udp, runs};
use crate::{datapath::World, pinning, programs::nodes::Seat, programs::packets::End, stats::median};

/// Lots of each kind in a round, and the runs of a lot.
const LOTS: usize = 30;
const LOT: u16 = 300;
/// Events a second on each processor that `meshctl monitor` and `capture` ask for.
const EVENTS: u32 = 2_000;
const PACKETS: u32 = 20_000;

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looking {
    /// Nobody.
    Nobody,
    /// `meshctl monitor`.
    Monitor,
    /// `meshctl capture`, of another task.
    Capture,
}

impl Looking {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nobody, Self::Monitor, Self::Capture];

    /// For programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Monitor => "monitor",
            Self::Capture => "capture",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nobody => "nobody watches",
            Self::Monitor => "`meshctl monitor` watches",
            Self::Capture => "another task's packets are captured",
        }
    }

    fn begin(self, watcher: &mut Watcher) -> Result<(), mesh_lb::Error> {
        let what = match self {
            Self::Nobody => return watcher.stop(),
            Self::Monitor => {
                WatchFor { new: true, closed: true, drops: true, rate: EVENTS, ..WatchFor::default() }
            }
            Self::Capture => WatchFor {
                packets: true,
                endpoint: Some(LocalEndpointId(u32::MAX)),
                snaplen: 2048,
                rate: PACKETS,
                ..WatchFor::default()
            },
        };
        watcher.watch(&what).map(drop)
    }
}

impl Programs {
    /// As [`Programs::prepare`], without XDP, and with a packet that is dropped.
    pub fn prepare_watched(world: &World, processor: usize) -> Result<Self> {
        let mut programs = Self::prepare(world, processor)?;
        programs.rows.retain(|row| matches!(row.how, How::Alone { .. }));
        let asker = Seat::of(&world.asker)?;
        let end = |address, port| End { mac: asker.mac, address, port };
        // Nobody has the last address of the network.
        let nobody = end([10, 10, 3, 254].into(), 4001);
        let packet = udp(end(asker.address, 4000), nobody, super::FRAME)?;
        programs.alone(World::ASKER, "from_task", "dropped, no endpoint", asker.ifindex, packet);
        programs.set_verdict(DROPPED);
        Ok(programs)
    }

    /// Nanoseconds of each row for each of [`Looking::ALL`].
    pub fn watched(&mut self) -> Result<Vec<(String, [f64; 3])>> {
        let Self { hosts, empty, processor, rows, .. } = self;
        let mut all = Vec::new();
        for row in rows {
            mesh_tests::interrupt::check()?;
            let host = hosts.get(row.host).context("no such node")?;
            let title = format!("{}: {}", row.program, row.what);
            let taken = host.inside(|| {
                pinning::pin(*processor)?;
                let How::Alone { ifindex, packet, .. } = &mut row.how else { return Ok(None) };
                let floor = alone(empty, *ifindex, packet, 0, &mut None)?;
                take(row, host, floor).map(Some)
            });
            all.extend(taken?.with_context(|| title.clone())?.map(|taken| (title, taken)));
        }
        Ok(all)
    }
}

fn take(row: &mut Row, host: &Host, floor: f64) -> Result<[f64; 3]> {
    let program = host.program(row.program).with_context(|| format!("{} is not loaded", row.program))?;
    let How::Alone { ifindex, packet, verdict, fresh } = &mut row.how else {
        return Ok([f64::NAN; 3]);
    };
    let mut watcher = host.watcher()?;
    let mut lots: [Vec<f64>; 3] = Default::default();
    for lot in 0..LOTS {
        // Each of them comes first as often as the others.
        for turn in 0..Looking::ALL.len() {
            let which = (lot + turn) % Looking::ALL.len();
            Looking::ALL[which].begin(&mut watcher)?;
            let times = runs(program, *ifindex, packet, *verdict, fresh, LOT)?;
            lots[which].push(quickest(times) - floor);
            while watcher.next_event().is_some() {}
        }
    }
    Ok(lots.map(|lot| median(&lot)))
}

/// The mean of the quickest quarter.
pub(super) fn quickest(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.truncate(times.len().div_ceil(4));
    times.iter().sum::<f64>() / times.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_does_not_count() {
        assert_eq!(quickest(vec![900.0, 10.0, 30.0, 20.0, 40.0, 50.0, 60.0, 12_000.0]), 15.0);
        assert_eq!(quickest(vec![7.0]), 7.0);
    }
}
