//! Tells of work that takes long, and after which of its steps.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::warn;

use crate::agent::lock;

/// What an operator would wonder about.
const LONG: Duration = Duration::from_secs(5);

type Step = Arc<Mutex<&'static str>>;

tokio::task_local! {
    static STEP: Step;
}

/// Notes the step that the work around it has come to.
pub(crate) fn reached(step: &'static str) {
    // Outside of such work there is nobody to tell.
    let _ = STEP.try_with(|last| *lock(last) = step);
}

/// Does `work`; for as long as it takes too long, the log says after which step it waits.
pub(crate) async fn watched<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let step = Step::new(Mutex::new("its beginning"));
    let mut work = pin!(STEP.scope(Arc::clone(&step), work));
    let begun = Instant::now();
    let mut late = interval_at(begun + LONG, LONG);
    late.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = late.tick() => {
                warn!(what, seconds = begun.elapsed().as_secs(), after = *lock(&step), "takes long");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_done_however_long_it_takes() {
        let done = watched("a test", async {
            reached("waiting");
            tokio::time::sleep(LONG * 3).await;
            STEP.with(|step| *lock(step))
        });
        assert_eq!(done.await, "waiting");
    }

    #[test]
    fn steps_of_other_work_are_nobodys() {
        reached("alone");
    }
}
