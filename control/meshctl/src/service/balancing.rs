//! How a service's connections find its tasks: options of `service create` and `service update`.

use mesh_api::v1;
use mesh_types::{Affinity, AffinityError, DEFAULT_DRAIN_SECS, SecondsError, parse_seconds};

/// The options.
#[derive(Debug, Clone, clap::Args)]
pub struct Balancing {
    /// Keep each client address with one task: client-ip, or client-ip,TIMEOUT to remember it for so long after its
    /// last connection; none to balance each connection
    #[arg(long, value_name = "client-ip[,TIMEOUT]|none", value_parser = affinity)]
    affinity: Option<Choice<Affinity>>,
    /// Let nodes send to their own tasks as long as they have one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub prefer_local: Option<bool>,
    /// How long a draining task may keep its connections; none for the default of 30s
    #[arg(long, value_name = "TIME|none", value_parser = seconds)]
    drain_timeout: Option<Choice<u32>>,
}

/// What `none` takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice<T> {
    None,
    Some(T),
}

impl Balancing {
    /// The affinity, where one is given.
    pub fn affinity(&self) -> Option<v1::Affinity> {
        match self.affinity {
            Some(Choice::Some(affinity)) => Some(v1::Affinity { timeout_secs: affinity.timeout_secs }),
            Some(Choice::None) | None => None,
        }
    }

    /// Whether the affinity is to be taken back.
    pub fn no_affinity(&self) -> bool {
        self.affinity == Some(Choice::None)
    }

    /// In seconds.
    pub fn drain_timeout(&self) -> Option<u32> {
        self.drain_timeout.map(|choice| match choice {
            Choice::Some(seconds) => seconds,
            Choice::None => DEFAULT_DRAIN_SECS,
        })
    }
}

fn affinity(text: &str) -> Result<Choice<Affinity>, AffinityError> {
    if text == "none" { Ok(Choice::None) } else { text.parse().map(Choice::Some) }
}

fn seconds(text: &str) -> Result<Choice<u32>, SecondsError> {
    if text == "none" { Ok(Choice::None) } else { parse_seconds(text).map(Choice::Some) }
}
