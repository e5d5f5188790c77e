//! The same test runs in quick alternation: by the programs as they are and by those that count nothing of tasks and services,
//! each loaded twice: where in memory a program lies makes a per cent or two, and each round loads them in another order.

use std::collections::{BTreeMap, btree_map::Entry};

use anyhow::{Context, Result};

use super::{Host, How, Programs, Row, alone, bpf::Program, runs, uncounted, watched::quickest};
use crate::{pinning, stats::median};

/// Lots of each kind in a round, and the runs of a lot.
const LOTS: usize = 40;
const LOT: u16 = 400;

/// Which programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// They count nothing.
    No,
    /// The same once more.
    NoAgain,
    /// As daemons load them.
    Yes,
    /// The same once more.
    YesAgain,
}

impl Counting {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::No, Self::NoAgain, Self::Yes, Self::YesAgain];

    /// For programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::No => "uncounted",
            Self::NoAgain => "uncounted-again",
            Self::Yes => "counted",
            Self::YesAgain => "counted-again",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::No => "nothing is counted",
            Self::NoAgain => "nothing is counted, loaded again",
            Self::Yes => "as it is",
            Self::YesAgain => "as it is, loaded again",
        }
    }

    /// Whether they count.
    pub fn counts(self) -> bool {
        matches!(self, Self::Yes | Self::YesAgain)
    }
}

/// The programs of one name, by [`Counting::ALL`].
type Kinds = [Program; 4];

impl Programs {
    /// Nanoseconds of each row of tc programs for each of [`Counting::ALL`]; `plain` is the object without counters, and
    /// `first` is loaded first.
    pub fn counting(&mut self, plain: &[u8], first: usize) -> Result<Vec<(String, [f64; 4])>> {
        let Self { hosts, empty, processor, rows, .. } = self;
        let mut loaded: BTreeMap<(usize, &str), Kinds> = BTreeMap::new();
        let mut all = Vec::new();
        for row in rows {
            mesh_tests::interrupt::check()?;
            let host = hosts.get(row.host).context("no such node")?;
            let title = format!("{}: {}", row.program, row.what);
            if !matches!(row.how, How::Alone { .. }) {
                continue;
            }
            let kinds = match loaded.entry((row.host, row.program)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(load(host, plain, row.program, first)?),
            };
            let taken = host.inside(|| {
                pinning::pin(*processor)?;
                take(row, kinds, empty)
            });
            all.push((title.clone(), taken?.context(title)?));
        }
        Ok(all)
    }
}

fn load(host: &Host, plain: &[u8], name: &str, first: usize) -> Result<Kinds> {
    let count = Counting::ALL.len();
    let loaded = (0..count).map(|turn| {
        let object = if Counting::ALL[(first + turn) % count].counts() { mesh_lb::OBJECT } else { plain };
        uncounted::load(object, host.pins(), name)
    });
    let loaded: Vec<Program> = loaded.collect::<Result<_>>()?;
    let mut kinds: Kinds = loaded.try_into().ok().context("a program of each kind")?;
    kinds.rotate_right(first % count);
    Ok(kinds)
}

fn take(row: &mut Row, kinds: &Kinds, empty: &Program) -> Result<[f64; 4]> {
    let How::Alone { ifindex, packet, verdict, fresh } = &mut row.how else {
        return Ok([f64::NAN; 4]);
    };
    let floor = alone(empty, *ifindex, packet, 0, &mut None)?;
    let mut lots: [Vec<f64>; 4] = Default::default();
    for lot in 0..LOTS {
        // Each of them comes first as often as the others.
        for turn in 0..kinds.len() {
            let which = (lot + turn) % kinds.len();
            let times = runs(&kinds[which], *ifindex, packet, *verdict, fresh, LOT)?;
            lots[which].push(quickest(times) - floor);
        }
    }
    Ok(lots.map(|lot| median(&lot)))
}
