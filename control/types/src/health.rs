//! Health checks: what a service asks of its tasks, and what came of it.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::format_seconds;

/// How often a task is checked unless somebody says otherwise, in seconds.
pub const DEFAULT_HEALTH_INTERVAL_SECS: u32 = 10;
/// How long one check may take unless somebody says otherwise, in seconds.
pub const DEFAULT_HEALTH_TIMEOUT_SECS: u32 = 3;
/// How many failures in a row make a task unhealthy unless somebody says otherwise.
pub const DEFAULT_HEALTH_RETRIES: u32 = 3;
/// The longest interval, timeout and start period, in seconds: a day.
pub const MAX_HEALTH_SECS: u32 = 86_400;
/// The most failures in a row that may be waited for.
pub const MAX_HEALTH_RETRIES: u32 = 1000;
/// The longest path of an HTTP probe, in bytes.
const MAX_PATH: usize = 512;
/// The longest command, in bytes.
const MAX_COMMAND: usize = 4096;
/// The longest [`HealthNote`], in bytes.
const MAX_NOTE: usize = 160;

/// How a service's tasks are checked, each by its own node. Made by [`HealthSettings::over`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// How long after a check the next one begins, in seconds.
    pub interval_secs: u32,
    /// How long a check may take before it counts as failed, in seconds.
    pub timeout_secs: u32,
    /// How many failures in a row make a task unhealthy. One success makes it healthy.
    pub retries: u32,
    /// For how long failures of a new task do not count, in seconds.
    pub start_period_secs: u32,
}

/// What a check tries, from within the task's network namespace.
///
/// As text: `tcp:80`, `http:80/ready`, `cmd:redis-cli ping`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// A connection to this port of the task's own address is taken.
    Tcp(NonZeroU16),
    /// `GET` of this path is answered with a status of 200 to 399.
    Http(NonZeroU16, HttpPath),
    /// `sh -c` of this ends with status 0. Only on nodes whose configuration allows it.
    Command(ProbeCommand),
}

/// A path of a URL with its query: begins with `/`, visible ASCII characters, none of them `#`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpPath(String);

/// A command for `sh -c`: not blank, without NUL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProbeCommand(String);

/// What is said of a health check; what is not said stays, or is as usual for a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthSettings {
    /// What is tried.
    pub probe: Option<Probe>,
    /// See [`HealthCheck::interval_secs`].
    pub interval_secs: Option<u32>,
    /// See [`HealthCheck::timeout_secs`].
    pub timeout_secs: Option<u32>,
    /// See [`HealthCheck::retries`].
    pub retries: Option<u32>,
    /// See [`HealthCheck::start_period_secs`].
    pub start_period_secs: Option<u32>,
}

/// Why something is no health check.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum HealthError {
    /// Neither tcp, nor http, nor cmd.
    #[error("{0:?} is no health check; use tcp:PORT, http:PORT/PATH, cmd:COMMAND or none")]
    Kind(String),
    /// Not 1 to 65535.
    #[error("{0:?} is not a port number of 1 to 65535")]
    Port(String),
    /// See [`HttpPath`].
    #[error(
        "path {0:?} must begin with / and have at most {MAX_PATH} visible ASCII characters, none of them #"
    )]
    Path(String),
    /// See [`ProbeCommand`].
    #[error("a command must not be empty, hold NUL or have more than {MAX_COMMAND} bytes")]
    Command,
    /// How, but not what.
    #[error("no health check is set that this could change; say what to try, for example --health tcp:80")]
    NoProbe,
    /// Out of range.
    #[error("health check: {what} is {}, but must be {least} to {most}", .value)]
    Range {
        /// Which setting.
        what: String,
        /// What was given.
        value: String,
        /// The least that may be.
        least: String,
        /// The most that may be.
        most: String,
    },
}

/// Whether a task works, as its node finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Health {
    /// Nobody checks it.
    #[default]
    None,
    /// It has not passed a check yet.
    Starting,
    /// It has passed the last check, or not failed often enough since.
    Healthy,
    /// It has failed its last checks.
    Unhealthy,
}

/// Why a task is unhealthy, or is not checked though its service asks for it: one line of at most 160 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HealthNote(String);

/// More than one line, or too long.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a note on a task's health is one line of at most {MAX_NOTE} bytes")]
pub struct HealthNoteError;

impl HealthCheck {
    /// As usual, but for what is tried.
    pub fn of(probe: Probe) -> Self {
        Self {
            probe,
            interval_secs: DEFAULT_HEALTH_INTERVAL_SECS,
            timeout_secs: DEFAULT_HEALTH_TIMEOUT_SECS,
            retries: DEFAULT_HEALTH_RETRIES,
            start_period_secs: 0,
        }
    }
}

impl fmt::Display for HealthCheck {
    /// For people: `http:80/ready every 10s, timeout 3s, 3 retries`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (every, timeout) = (format_seconds(self.interval_secs), format_seconds(self.timeout_secs));
        let plural = if self.retries == 1 { "retry" } else { "retries" };
        write!(f, "{} every {every}, timeout {timeout}, {} {plural}", self.probe, self.retries)?;
        match self.start_period_secs {
            0 => Ok(()),
            seconds => write!(f, ", start period {}", format_seconds(seconds)),
        }
    }
}

impl HealthSettings {
    /// The check that this makes of what was before; of none, a new one.
    pub fn over(self, before: Option<&HealthCheck>) -> Result<HealthCheck, HealthError> {
        let mut check = match (self.probe, before) {
            (None, None) => return Err(HealthError::NoProbe),
            (Some(probe), None) => HealthCheck::of(probe),
            (None, Some(before)) => before.clone(),
            (Some(probe), Some(before)) => HealthCheck { probe, ..before.clone() },
        };
        check.interval_secs = self.interval_secs.unwrap_or(check.interval_secs);
        check.timeout_secs = self.timeout_secs.unwrap_or(check.timeout_secs);
        check.retries = self.retries.unwrap_or(check.retries);
        check.start_period_secs = self.start_period_secs.unwrap_or(check.start_period_secs);
        let times = [
            ("the interval", check.interval_secs, 1),
            ("the timeout", check.timeout_secs, 1),
            ("the start period", check.start_period_secs, 0),
        ];
        for (what, seconds, least) in times {
            in_range(what, seconds, least, MAX_HEALTH_SECS, format_seconds)?;
        }
        in_range("the number of retries", check.retries, 1, MAX_HEALTH_RETRIES, |number| number.to_string())?;
        Ok(check)
    }
}

fn in_range(
    what: &str,
    value: u32,
    least: u32,
    most: u32,
    text: impl Fn(u32) -> String,
) -> Result<(), HealthError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(HealthError::Range {
        what: what.to_owned(),
        value: text(value),
        least: text(least),
        most: text(most),
    })
}

impl From<HealthCheck> for HealthSettings {
    fn from(check: HealthCheck) -> Self {
        Self {
            probe: Some(check.probe),
            interval_secs: Some(check.interval_secs),
            timeout_secs: Some(check.timeout_secs),
            retries: Some(check.retries),
            start_period_secs: Some(check.start_period_secs),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Tcp(port) => write!(f, "tcp:{port}"),
            Probe::Http(port, path) => write!(f, "http:{port}{}", path.as_str()),
            Probe::Command(command) => write!(f, "cmd:{}", command.as_str()),
        }
    }
}

impl FromStr for Probe {
    type Err = HealthError;
    fn from_str(text: &str) -> Result<Self, HealthError> {
        let port = |text: &str| text.parse().map_err(|_| HealthError::Port(text.to_owned()));
        match text.split_once(':') {
            Some(("tcp", rest)) => Ok(Probe::Tcp(port(rest)?)),
            Some(("http", rest)) => {
                let (number, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let path = if path.is_empty() { "/" } else { path };
                Ok(Probe::Http(port(number)?, HttpPath::new(path)?))
            }
            Some(("cmd", command)) => Ok(Probe::Command(ProbeCommand::new(command)?)),
            _ => Err(HealthError::Kind(text.to_owned())),
        }
    }
}

impl HttpPath {
    /// Checks `text`; the error names it.
    pub fn new(text: impl Into<String>) -> Result<Self, HealthError> {
        let text = text.into();
        let fit = |c: char| c.is_ascii_graphic() && c != '#';
        if !text.starts_with('/') || text.len() > MAX_PATH || !text.chars().all(fit) {
            return Err(HealthError::Path(text));
        }
        Ok(Self(text))
    }

    /// As it goes into a request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProbeCommand {
    /// Checks `text`.
    pub fn new(text: impl Into<String>) -> Result<Self, HealthError> {
        let text = text.into();
        if text.trim().is_empty() || text.len() > MAX_COMMAND || text.contains('\0') {
            return Err(HealthError::Command);
        }
        Ok(Self(text))
    }

    /// As the shell reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Health::None => "none",
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        })
    }
}

impl HealthNote {
    /// The first line of `text`, cut where it is too long; control characters become spaces.
    pub fn of(text: &str) -> Self {
        let line = text.trim_start().lines().next().unwrap_or_default().trim_end();
        let mut note = String::new();
        for c in line.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if note.len() + c.len_utf8() > MAX_NOTE {
                break;
            }
            note.push(c);
        }
        Self(note)
    }

    /// For people.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HealthNote {
    type Error = HealthNoteError;
    fn try_from(text: String) -> Result<Self, HealthNoteError> {
        if text.len() > MAX_NOTE || text.chars().any(char::is_control) {
            return Err(HealthNoteError);
        }
        Ok(Self(text))
    }
}

impl From<HealthNote> for String {
    fn from(note: HealthNote) -> Self {
        note.0
    }
}

impl TryFrom<String> for HttpPath {
    type Error = HealthError;
    fn try_from(text: String) -> Result<Self, HealthError> {
        Self::new(text)
    }
}

impl From<HttpPath> for String {
    fn from(path: HttpPath) -> Self {
        path.0
    }
}

impl TryFrom<String> for ProbeCommand {
    type Error = HealthError;
    fn try_from(text: String) -> Result<Self, HealthError> {
        Self::new(text)
    }
}

impl From<ProbeCommand> for String {
    fn from(command: ProbeCommand) -> Self {
        command.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn probe(text: &str) -> Probe {
        text.parse().unwrap()
    }

    #[test]
    fn probes_as_text() {
        for text in ["tcp:80", "http:8080/", "http:80/ready?full=1", "cmd:redis-cli ping | grep PONG"] {
            assert_eq!(probe(text).to_string(), text);
        }
        assert_eq!(probe("http:80"), probe("http:80/"));
        for bad in [
            "",
            "none",
            "tcp",
            "tcp:",
            "tcp:0",
            "tcp:65536",
            "tcp:80/x",
            "http:/x",
            "http:80/a b",
            "http:80/#a",
            "http:80x",
            "https:443",
            "cmd:",
            "cmd:  ",
            "udp:53",
        ] {
            assert!(bad.parse::<Probe>().is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_over_what_was() {
        assert_eq!(HealthSettings::default().over(None), Err(HealthError::NoProbe));
        let new = HealthSettings { probe: Some(probe("tcp:80")), retries: Some(5), ..Default::default() };
        let check = new.over(None).unwrap();
        assert_eq!(check, HealthCheck { retries: 5, ..HealthCheck::of(probe("tcp:80")) });
        // What is tried changes, how stays.
        let other = HealthSettings { probe: Some(probe("http:80/")), ..Default::default() };
        let other = other.over(Some(&check)).unwrap();
        assert_eq!(other, HealthCheck { probe: probe("http:80/"), ..check.clone() });
        assert_eq!(HealthSettings::from(other.clone()).over(None), Ok(other));
        let settings = HealthSettings::default;
        for bad in [
            HealthSettings { interval_secs: Some(0), ..settings() },
            HealthSettings { timeout_secs: Some(0), ..settings() },
            HealthSettings { timeout_secs: Some(MAX_HEALTH_SECS + 1), ..settings() },
            HealthSettings { start_period_secs: Some(MAX_HEALTH_SECS + 1), ..settings() },
            HealthSettings { retries: Some(0), ..settings() },
            HealthSettings { retries: Some(MAX_HEALTH_RETRIES + 1), ..settings() },
        ] {
            assert!(matches!(bad.over(Some(&check)), Err(HealthError::Range { .. })));
        }
        let text = HealthSettings { interval_secs: Some(0), ..settings() }.over(Some(&check)).unwrap_err();
        assert_eq!(text.to_string(), "health check: the interval is 0s, but must be 1s to 1d");
        let check = HealthCheck { start_period_secs: 60, ..check };
        assert_eq!(check.to_string(), "tcp:80 every 10s, timeout 3s, 5 retries, start period 1m");
    }

    proptest! {
        #[test]
        fn notes_are_short_lines(text in "\\PC{0,200}[\n\t\u{7}]{0,2}.{0,60}") {
            let note = HealthNote::of(&text);
            prop_assert!(note.as_str().len() <= MAX_NOTE);
            prop_assert_eq!(HealthNote::try_from(note.as_str().to_owned()), Ok(note));
        }

        #[test]
        fn noise_is_no_probe_or_reads_back(text in "(tcp|http|cmd|x):[0-9]{0,6}.{0,20}") {
            if let Ok(probe) = text.parse::<Probe>() {
                prop_assert_eq!(probe.to_string().parse::<Probe>(), Ok(probe));
            }
        }
    }
}
