//! How a service's tasks are checked: options of `service create` and `service update`.

use anyhow::Result;
use mesh_api::v1;
use mesh_types::{HealthError, HealthSettings, Probe, SecondsError, parse_seconds};

use crate::failure::Failure;

/// The options.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthOptions {
    /// Check each task, and send no new connections to one that fails: tcp:PORT, http:PORT/PATH, or cmd:COMMAND where
    /// nodes allow it; none to check no more
    #[arg(long, value_name = "CHECK|none", value_parser = probe)]
    health: Option<Choice>,
    /// Time from one check to the next; 10s unless said
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    health_interval: Option<u32>,
    /// Time after which a check has failed; 3s unless said
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    health_timeout: Option<u32>,
    /// Failures in a row that make a task unhealthy; 3 unless said
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time for which failures of a new task do not count; none unless said
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    health_start_period: Option<u32>,
}

/// What to check, or that nothing is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    None,
    Some(Probe),
}

/// What the options ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Nothing is said.
    Nothing,
    /// No check.
    Off,
    /// A check, or changes of one.
    Settings(v1::HealthCheck),
}

impl HealthOptions {
    /// What they ask for, or why they do not fit together.
    pub fn wanted(&self) -> Result<Wanted> {
        let settings = HealthSettings {
            probe: match &self.health {
                Some(Choice::Some(probe)) => Some(probe.clone()),
                Some(Choice::None) | None => None,
            },
            interval_secs: self.health_interval,
            timeout_secs: self.health_timeout,
            retries: self.health_retries,
            start_period_secs: self.health_start_period,
        };
        let off = self.health == Some(Choice::None);
        match (off, settings == HealthSettings::default()) {
            (true, true) => return Ok(Wanted::Off),
            (true, false) => {
                let text =
                    "--health none leaves nothing to set; leave --health-... out, or say what to check";
                return Err(Failure::Usage(text.to_owned()).into());
            }
            (false, true) => return Ok(Wanted::Nothing),
            (false, false) => {}
        }
        // What is wrong with the values can be told here; whether there is a check to change cannot.
        match settings.clone().over(None) {
            Ok(_) | Err(HealthError::NoProbe) => Ok(Wanted::Settings(settings.into())),
            Err(error) => Err(Failure::Usage(error.to_string()).into()),
        }
    }
}

fn probe(text: &str) -> Result<Choice, HealthError> {
    if text == "none" { Ok(Choice::None) } else { text.parse().map(Choice::Some) }
}

fn seconds(text: &str) -> Result<u32, SecondsError> {
    parse_seconds(text)
}
