//! What a seed stands for.

use std::time::Duration;

use mesh_raft::simulation::Snapshots;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::network::Weather;

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// A machine loses power, at any moment.
    PowerCut,
    /// A machine loses power between two writes of its disk.
    PowerCutAtWrite,
    /// All machines lose power.
    Blackout,
    /// A manager ends in order.
    Stop,
    /// The wire falls apart into two.
    Partition,
    /// Some messages come through in one direction only.
    OneWay,
    /// A disk takes seconds to write.
    SlowDisk,
    /// A disk has no room left.
    FullDisk,
    /// The leader hands over.
    HandOver,
    /// A manager becomes a worker, forgets its state, and is made a manager again.
    Demote,
    /// A manager's disk is encrypted with another key.
    ChangeKeys,
    /// Messages are late and lost.
    Storm,
    /// A manager of the version before is stopped and started as one of this version.
    Upgrade,
}

const TROUBLES: [Trouble; 12] = [
    Trouble::PowerCut,
    Trouble::PowerCutAtWrite,
    Trouble::Blackout,
    Trouble::Stop,
    Trouble::Partition,
    Trouble::OneWay,
    Trouble::SlowDisk,
    Trouble::FullDisk,
    Trouble::HandOver,
    Trouble::Demote,
    Trouble::ChangeKeys,
    Trouble::Storm,
];

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where all else comes from.
    pub seed: u64,
    /// How many managers, the first of them initialized.
    pub managers: u8,
    /// How many nodes follow them.
    pub agents: u8,
    /// How many clients change and read.
    pub clients: u8,
    /// How many services they fight over.
    pub keys: usize,
    /// How long trouble lasts.
    pub length: Duration,
    /// The longest pause between two troubles.
    pub pause: Duration,
    /// Which trouble there is; never none.
    pub troubles: Vec<Trouble>,
    /// How messages fare when there is no trouble.
    pub weather: Weather,
    /// The longest time of a commit on a disk that is well.
    pub commit: Duration,
    /// When snapshots are made.
    pub snapshots: Snapshots,
    /// Whether managers encrypt their disks.
    pub encrypted: bool,
    /// How many of the managers, the first ones, begin with the version before. In every fifth seed; none in the others, where
    /// all managers are of one version.
    pub older: u8,
}

impl Scenario {
    /// What this seed stands for.
    pub fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6d65_7368);
        let ms = Duration::from_millis;
        let managers = *[1, 2, 3, 3, 3, 3, 4, 5, 5].choose(&mut rng).unwrap_or(&3);
        let share = [0.2, 0.5, 1.0].choose(&mut rng).copied().unwrap_or(1.0);
        let mut troubles: Vec<Trouble> = TROUBLES.into_iter().filter(|_| rng.random_bool(share)).collect();
        if troubles.is_empty() {
            troubles.extend(TROUBLES.choose(&mut rng));
        }
        // Not of `rng`: the other seeds are to stay what they are.
        let older = if seed % 5 == 4 { StdRng::seed_from_u64(seed).random_range(1..=managers) } else { 0 };
        if older > 0 {
            troubles.push(Trouble::Upgrade);
        }
        Self {
            seed,
            managers,
            agents: rng.random_range(1..=3),
            clients: rng.random_range(2..=5),
            keys: rng.random_range(1..=4),
            length: Duration::from_secs(rng.random_range(10..30)),
            pause: ms(*[2_000, 4_000, 8_000].choose(&mut rng).unwrap_or(&2_000)),
            troubles,
            weather: Weather {
                delay: ms(rng.random_range(0..10)),
                jitter: ms(rng.random_range(1..30)),
                late: *[0.0, 0.01, 0.1].choose(&mut rng).unwrap_or(&0.0),
                lost: *[0.0, 0.0, 0.01, 0.05].choose(&mut rng).unwrap_or(&0.0),
                repeated: *[0.0, 0.05, 0.2].choose(&mut rng).unwrap_or(&0.0),
            },
            commit: ms(*[2, 10, 50].choose(&mut rng).unwrap_or(&10)),
            snapshots: Snapshots {
                every: *[10, 50, 200].choose(&mut rng).unwrap_or(&50),
                keep: *[0, 5, 30].choose(&mut rng).unwrap_or(&5),
            },
            encrypted: rng.random_bool(0.5),
            older,
        }
    }
}
