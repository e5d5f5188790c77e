//! A hundred seeds, or as many as `MESHD_SIM_SEEDS` says, from `MESHD_SIM_FROM` on.

use std::{
    env,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

/// The tests below take turns, so that they can run beside each other.
const PARTS: u64 = 4;

fn number(variable: &str, default: u64) -> Result<u64> {
    env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| format!("{variable}={text}")))
}

fn simulation(words: &[&str]) -> Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_mesh-simulation")).args(words).output().context("mesh-simulation")
}

fn simulate(part: u64) -> Result<()> {
    let (seeds, from) = (number("MESHD_SIM_SEEDS", 100)?, number("MESHD_SIM_FROM", 0)?);
    let (begin, end) = (from + seeds * part / PARTS, from + seeds * (part + 1) / PARTS);
    let (from, seeds) = (begin.to_string(), (end - begin).to_string());
    let output = simulation(&["--jobs", "1", "--from", &from, "--seeds", &seeds])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn first_quarter() -> Result<()> {
    simulate(0)
}

#[test]
fn second_quarter() -> Result<()> {
    simulate(1)
}

#[test]
fn third_quarter() -> Result<()> {
    simulate(2)
}

#[test]
fn last_quarter() -> Result<()> {
    simulate(3)
}

/// The first manager, demoted, emptied and made a manager again, was brought the log of when it was the only one, and led.
#[test]
fn a_manager_made_anew_does_not_lead_by_the_members_of_before() -> Result<()> {
    for seed in ["30106", "30023", "30173"] {
        let output = simulation(&["--seed", seed])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

#[test]
fn a_seed_is_the_same_run_every_time() -> Result<()> {
    let run = || Ok::<_, anyhow::Error>(simulation(&["--seed", "5"])?.stdout);
    let (first, second) = (run()?, run()?);
    let first = String::from_utf8_lossy(&first);
    assert!(first.contains("trace "), "{first}");
    assert_eq!(first, String::from_utf8_lossy(&second));
    Ok(())
}

/// A leader whose log takes a manager out, which is not decided yet, took it out again and again and did nothing else.
#[test]
fn a_manager_that_is_being_taken_out_is_not_taken_out_again() -> Result<()> {
    let output = simulation(&["--seed", "40467"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// A learner's first step to a vote was decided, the leader went, and nobody took the second.
#[test]
fn a_change_that_is_decided_by_half_is_ended() -> Result<()> {
    let output = simulation(&["--seed", "41190"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// A change of roles whose proposal was given up was decided after the end of the trouble, when nobody looked any more.
#[test]
fn a_change_that_was_given_up_is_followed() -> Result<()> {
    let output = simulation(&["--seed", "40100"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
