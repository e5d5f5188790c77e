//! Plays a scenario and checks at every change what must hold.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;

use crate::{
    invariants::{agreement, bytes::Meter, false_deaths, ghosts, lost},
    ledger::{Ledger, some_networks},
    nemesis,
    scenario::Scenario,
    world::World,
};

/// A cluster has formed within this.
const FORMED: Duration = Duration::from_secs(30);
/// After trouble all living members agree within this.
const AGREED: Duration = Duration::from_secs(30);
/// So long after that, nothing may change: longer than tombstones live.
const REST: Duration = Duration::from_secs(75);

/// What came of a seed.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// From the end of the trouble until all agreed.
    pub agreed: Duration,
    /// Bytes per node and second afterwards.
    pub at_rest: f64,
    /// Bytes per node and second before.
    pub in_trouble: f64,
    /// How often a living node was taken for dead and came back, all together.
    pub renewals: u64,
}

/// A run, and what to print of it as it goes.
struct Run {
    world: World,
    ledger: Ledger,
    scenario: Scenario,
    /// Since when nothing has been cut.
    whole: Duration,
    trace: bool,
}

/// Plays the scenario of a seed; says what went wrong and when.
pub fn run(scenario: Scenario, trace: bool) -> Result<Outcome> {
    let world = World::new(scenario.seed, scenario.wire.clone());
    let mut run = Run { world, ledger: Ledger::default(), scenario, whole: Duration::ZERO, trace };
    let outcome = run.play();
    outcome.with_context(|| format!("seed {} after {:?}: {}", run.scenario.seed, run.world.now, run.scenario))
}

impl Run {
    fn play(&mut self) -> Result<Outcome> {
        self.form()?;
        let trouble = Meter::start(&self.world);
        for _ in 0..self.scenario.events {
            let what = nemesis::act(&mut self.world, &mut self.ledger, &self.scenario)?;
            self.say(&what);
            let longest = if self.scenario.calm { 3_000 } else { 8_000 };
            let pause = Duration::from_millis(self.world.rng.random_range(0..longest));
            self.pass(pause)?;
        }
        nemesis::rest(&mut self.world);
        self.say("all is over");
        let (in_trouble, agreed) = (trouble.rate(&self.world), self.agree(AGREED)?);
        trouble.check(&self.world, false)?;
        // What is on its way still may be sent again.
        self.pass(Duration::from_secs(5))?;
        let rest = Meter::start(&self.world);
        self.pass(REST)?;
        agreement::all_know(&self.world, &self.ledger).context("they had agreed")?;
        rest.check(&self.world, true)?;
        let renewals =
            self.world.running().into_iter().filter_map(|n| self.world.stats(n)).map(|s| s.renewals).sum();
        Ok(Outcome { agreed, at_rest: rest.rate(&self.world), in_trouble, renewals })
    }

    fn form(&mut self) -> Result<()> {
        let Scenario { nodes, networks, data_paths, .. } = self.scenario;
        self.world.asks_data_paths = data_paths;
        self.world.add(nodes, &mesh_gossip::Interest::default());
        for n in 0..nodes {
            let interest = some_networks(&mut self.world, networks);
            self.world.want(n, interest);
            self.ledger.begin(&mut self.world, n, n % networks)?;
            self.world.start(n);
        }
        let took = self.agree(FORMED)?;
        self.say(&format!("formed within {took:?}"));
        Ok(())
    }

    fn say(&self, what: &str) {
        if self.trace {
            println!("{:>10.3} {what}", self.world.now.as_secs_f64());
        }
    }

    /// Lets time pass, and looks at every change.
    fn pass(&mut self, time: Duration) -> Result<()> {
        let end = self.world.now + time;
        while let Some(step) = self.world.step(end) {
            if !self.world.wire.is_whole() {
                self.whole = self.world.now;
            }
            let Some(n) = step.changed else { continue };
            let (world, ledger) = (&self.world, &self.ledger);
            ghosts::check(world, ledger, n, self.whole)?;
            if self.scenario.calm {
                lost::check(world, ledger, n)?;
                false_deaths::check(world, n)?;
            }
        }
        Ok(())
    }

    /// Until all living members agree.
    fn agree(&mut self, at_most: Duration) -> Result<Duration> {
        let begin = self.world.now;
        loop {
            match agreement::all_know(&self.world, &self.ledger) {
                Ok(()) => return Ok(self.world.now - begin),
                Err(error) if self.world.now >= begin + at_most => {
                    bail!("no agreement within {at_most:?}: {error:#}")
                }
                Err(_) => self.pass(Duration::from_millis(20))?,
            }
        }
    }
}
