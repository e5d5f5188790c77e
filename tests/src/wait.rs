//! Waiting for what comes about by itself.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::interrupt;

/// Names a factor for all waiting, for machines that are slow throughout, such as an emulated one, or that run many tests
/// at a time.
pub const PATIENCE: &str = "MESHD_TEST_PATIENCE";

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let factor = std::env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
    factor.unwrap_or(1).max(1)
});

/// The pauses between attempts, most of which run a program: at first what comes at once is met at once, then the machine is
/// left to those that are waited for.
const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(100);

/// Tries until it succeeds; after `at_most`, times [`PATIENCE`], the last error is returned, saying what was waited for.
pub fn wait<T>(what: &str, at_most: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let at_most = at_most * *FACTOR;
    let (deadline, mut pause) = (Instant::now() + at_most, FIRST);
    loop {
        interrupt::check()?;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("waited {at_most:?} for: {what}"));
            }
            Err(_) => {
                std::thread::sleep(pause);
                pause = (pause * 3 / 2).min(LONGEST);
            }
        }
    }
}
