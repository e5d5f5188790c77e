//! Waiting for what comes about by itself.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::interrupt;

/// Names a factor for all waiting, for machines that are slow throughout, such as an emulated one.
pub const PATIENCE: &str = "MESHD_TEST_PATIENCE";

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let factor = std::env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
    factor.unwrap_or(1).max(1)
});

/// Tries until it succeeds; after `at_most`, times [`PATIENCE`], the last error is returned, saying what was waited for.
pub fn wait<T>(what: &str, at_most: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let at_most = at_most * *FACTOR;
    let deadline = Instant::now() + at_most;
    loop {
        interrupt::check()?;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("waited {at_most:?} for: {what}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
