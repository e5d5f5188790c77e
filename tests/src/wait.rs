//! Waiting for what comes about by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::interrupt;

/// Tries until it succeeds; after `at_most` the last error is returned, saying what was waited for.
pub fn wait<T>(what: &str, at_most: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
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
