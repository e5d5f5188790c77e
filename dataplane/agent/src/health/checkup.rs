//! The pure part: when a task is checked next, and what the outcomes make of it.

use std::time::Duration;

use mesh_types::{Health, HealthCheck};

/// A task that has not passed yet is tried so soon after its first failure, then ever more seldom, ...
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// ... up to this pause, or its interval if that is shorter.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// By which part of itself an interval is longer or shorter, so that checks of many tasks do not stay in step.
const SPREAD: f64 = 0.05;

/// One task's checks. Times are of any clock that only goes forward; `random` is of 0 to 1.
#[derive(Debug, Clone)]
pub(super) struct Checkup {
    check: HealthCheck,
    phase: Phase,
    due: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It takes flows: it has passed, or was there before it was checked and has not failed often enough.
    Good { proven: bool, failures: u32 },
    /// It is new, and takes no flows until it passes.
    Starting { give_up: Duration, pause: Duration },
    /// It takes no flows until it passes.
    Bad,
}

impl Checkup {
    /// Checks of a task whose health was `known`: [`Health::Starting`] of a new one, [`Health::None`] of one that nobody
    /// checked before.
    pub fn new(check: HealthCheck, known: Health, now: Duration, random: f64) -> Self {
        let interval = seconds(check.interval_secs);
        let (phase, within) = match known {
            Health::Starting => {
                let give_up = now + seconds(check.start_period_secs) + interval * check.retries;
                (Phase::Starting { give_up, pause: FIRST_PAUSE }, Duration::ZERO)
            }
            Health::Healthy => (Phase::Good { proven: true, failures: 0 }, interval),
            Health::None => (Phase::Good { proven: false, failures: 0 }, interval.min(LAST_PAUSE)),
            Health::Unhealthy => (Phase::Bad, interval.min(LAST_PAUSE)),
        };
        Self { check, phase, due: now + within.mul_f64(random) }
    }

    /// When the next check is to begin.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// What is known of the task.
    pub fn health(&self) -> Health {
        match self.phase {
            Phase::Good { proven: true, .. } => Health::Healthy,
            Phase::Good { proven: false, .. } => Health::None,
            Phase::Starting { .. } => Health::Starting,
            Phase::Bad => Health::Unhealthy,
        }
    }

    /// A check ended at `now`.
    pub fn ended(&mut self, passed: bool, now: Duration, random: f64) {
        let interval = seconds(self.check.interval_secs);
        let spread = interval.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * random);
        self.due = now + spread;
        self.phase = match self.phase {
            _ if passed => Phase::Good { proven: true, failures: 0 },
            Phase::Good { failures, .. } if failures + 1 >= self.check.retries => Phase::Bad,
            Phase::Good { proven, failures } => Phase::Good { proven, failures: failures + 1 },
            Phase::Starting { give_up, .. } if now >= give_up => Phase::Bad,
            Phase::Starting { give_up, pause } => {
                self.due = now + pause.min(spread);
                Phase::Starting { give_up, pause: (pause * 2).min(LAST_PAUSE) }
            }
            Phase::Bad => Phase::Bad,
        };
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const NOW: Duration = Duration::from_secs(1000);

    fn check(interval_secs: u32, retries: u32, start_period_secs: u32) -> HealthCheck {
        let usual = HealthCheck::of("tcp:80".parse().unwrap());
        HealthCheck { interval_secs, retries, start_period_secs, ..usual }
    }

    /// Runs checks that take no time until `end`; `works` says by the time since the beginning whether one passes.
    /// Returns the changes of health with their times.
    fn run(mut checkup: Checkup, end: Duration, works: impl Fn(Duration) -> bool) -> Vec<(Duration, Health)> {
        let mut told = vec![(Duration::ZERO, checkup.health())];
        while checkup.due() <= NOW + end {
            let now = checkup.due();
            checkup.ended(works(now - NOW), now, 0.5);
            if told.last().is_none_or(|(_, last)| *last != checkup.health()) {
                told.push((now - NOW, checkup.health()));
            }
        }
        told
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_new_task_is_found_soon_after_it_works() {
        let new = Checkup::new(check(10, 3, 0), Health::Starting, NOW, 0.9);
        assert_eq!(new.due(), NOW, "at once");
        let told = run(new, secs(60), |at| at >= Duration::from_millis(4321));
        assert_eq!(told[0].1, Health::Starting);
        assert_eq!(told[1].1, Health::Healthy);
        assert!(told[1].0 < Duration::from_millis(5400), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_new_task_that_never_works_is_given_up_after_its_start() {
        let told =
            run(Checkup::new(check(10, 3, 60), Health::Starting, NOW, 0.0), secs(200), |at| at >= secs(150));
        let [(_, Health::Starting), (bad, Health::Unhealthy), (good, Health::Healthy)] = told[..] else {
            panic!("{told:?}")
        };
        assert!(bad >= secs(90) && bad <= secs(91), "{bad:?}");
        assert!(good >= secs(150) && good <= secs(160), "{good:?}");
    }

    #[test]
    fn a_start_period_ends_with_the_first_success() {
        let works = |at: Duration| at < secs(20);
        let told = run(Checkup::new(check(5, 2, 3600), Health::Starting, NOW, 0.0), secs(60), works);
        let [(_, Health::Starting), (_, Health::Healthy), (bad, Health::Unhealthy)] = told[..] else {
            panic!("{told:?}")
        };
        assert!(bad <= secs(30), "{bad:?}");
    }

    #[test]
    fn who_was_there_before_the_checks_keeps_its_flows_until_it_has_failed() {
        let was_there = Checkup::new(check(10, 3, 0), Health::None, NOW, 0.5);
        let told = run(was_there.clone(), secs(100), |_| false);
        let [(_, Health::None), (bad, Health::Unhealthy)] = told[..] else { panic!("{told:?}") };
        assert!(bad >= secs(20) && bad <= secs(21), "{bad:?}");
        assert_eq!(run(was_there, secs(100), |_| true)[1].1, Health::Healthy);
    }

    #[test]
    fn what_was_known_is_believed_until_the_first_check() {
        for known in [Health::Healthy, Health::Unhealthy] {
            assert_eq!(Checkup::new(check(10, 1, 0), known, NOW, 0.9).health(), known);
        }
        let healthy = Checkup::new(check(10, 3, 0), Health::Healthy, NOW, 0.0);
        assert_eq!(run(healthy, secs(15), |_| false).len(), 1, "one failure of three");
    }

    proptest! {
        /// Against the rules as they are written down: a success heals at once; of a task that takes flows only as many
        /// failures in a row as it has retries make a sick one; a starting one has its time.
        #[test]
        fn outcomes_follow_the_rules(
            known in prop_oneof![
                Just(Health::None), Just(Health::Starting), Just(Health::Healthy), Just(Health::Unhealthy)
            ],
            (interval, retries, start) in (1u32..30, 1u32..6, 0u32..100),
            outcomes in vec((any::<bool>(), 0u64..5000, 0.0f64..=1.0), 0..60),
        ) {
            let mut checkup = Checkup::new(check(interval, retries, start), known, NOW, 0.3);
            let give_up = NOW + secs(u64::from(start) + u64::from(interval) * u64::from(retries));
            let (mut failures, mut passed) = (0, false);
            for (pass, took, random) in outcomes {
                let before = checkup.health();
                let now = checkup.due() + Duration::from_millis(took);
                checkup.ended(pass, now, random);
                failures = if pass { 0 } else { failures + 1 };
                passed |= pass;
                let expected = match before {
                    _ if pass => Health::Healthy,
                    Health::Starting if now < give_up => Health::Starting,
                    Health::None | Health::Healthy if failures < retries => before,
                    _ => Health::Unhealthy,
                };
                prop_assert_eq!(checkup.health(), expected);
                prop_assert!(!(passed && expected == Health::Starting), "it has started");
                // Never at once, never later than the interval and its spread.
                let wait = checkup.due() - now;
                let longest = secs(interval.into()).mul_f64(1.0 + SPREAD);
                prop_assert!(wait >= FIRST_PAUSE && wait <= longest, "{:?}", wait);
            }
        }

        #[test]
        fn checks_of_many_tasks_do_not_stay_in_step(randoms in vec(0.0f64..1.0, 40)) {
            let due = |first: f64, then: f64| {
                let mut checkup = Checkup::new(check(10, 3, 0), Health::Healthy, NOW, first);
                checkup.ended(true, checkup.due(), then);
                checkup.due()
            };
            for pair in randoms.chunks(2) {
                let (earliest, latest) = (NOW + secs(9), NOW + secs(21));
                prop_assert!((earliest..latest).contains(&due(pair[0], pair[1])));
            }
            // Other chances, other times.
            prop_assert!(due(0.1, 0.5) < due(0.9, 0.5));
            prop_assert!(due(0.5, 0.1) < due(0.5, 0.9));
        }
    }
}
