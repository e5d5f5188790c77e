//! Many seeds, each in a process of its own.

use std::{
    env,
    process::{Command, ExitCode, Output},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};

use crate::world::lock;

/// Simulates the seeds; prints those that fail with the command that repeats them.
pub fn run(from: u64, seeds: u64, jobs: Option<usize>) -> ExitCode {
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (next, failed) = (&next, &failed);
            scope.spawn(move || one_after_another(next, from + seeds, failed));
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    println!("{seeds} seeds from {from}, failed: {failed:?}");
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_after_another(next: &AtomicU64, end: u64, failed: &Mutex<Vec<u64>>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        match child(seed) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                print!("{}", String::from_utf8_lossy(&output.stdout));
                print!("{}", String::from_utf8_lossy(&output.stderr));
                println!("{}; repeat it with: {}", output.status, repeat(seed));
                lock(failed).push(seed);
            }
            Err(error) => {
                println!("seed {seed}: {error:#}");
                lock(failed).push(seed);
            }
        }
    }
}

fn child(seed: u64) -> Result<Output> {
    let program = env::current_exe().context("where this program is")?;
    let mut command = Command::new(program);
    command.args(["--seed", &seed.to_string()]).output().context("cannot start another of this program")
}

fn repeat(seed: u64) -> String {
    format!("cargo run -p mesh-simulation -- --seed {seed} --trace")
}
