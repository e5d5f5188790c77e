//! `meshctl events`.

use std::{collections::BTreeMap, str::FromStr, time::SystemTime};

use anyhow::{Context as _, Result};
use mesh_api::v1::{self, EventsRequest};
use mesh_types::parse_seconds;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{context::Context, daemon::answer, failure::Failure, output};

/// Follow what is made, changed and removed: nodes, networks, services, the cluster's gossip keys; and the
/// health of tasks
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl events
  meshctl events --since 10m
  meshctl events --filter type=service --filter name=web
  meshctl events --filter type=task              tasks whose health changes
  meshctl --format json events                   one JSON object a line
  meshctl events --format '{{.Type}} {{.Name}}: {{.Event}}'

Each manager tells what it learns, and remembers about a thousand events since it started. It ends when the daemon
stops; changes that it makes in one step are one event.")]
pub struct Args {
    /// Begin with what the manager remembers since then: a time such as 2026-05-04T10:00:00Z, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Condition: type=node|network|service|cluster|task, event=create|update|remove, name=NAME or id=BEGINNING; of those of one key
    /// one has to hold, of all keys each
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<EventFilter>,
}

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since(u64);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        if let Ok(seconds) = parse_seconds(text) {
            return Ok(Self(
                u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(u64::from(seconds) * 1000),
            ));
        }
        let time =
            OffsetDateTime::parse(text, &Rfc3339).ok().map(|time| time.unix_timestamp_nanos() / 1_000_000);
        let time = time.and_then(|millis| u64::try_from(millis).ok());
        time.map(Self).ok_or_else(|| {
            format!("{text:?} is neither a time such as 2026-05-04T10:00:00Z nor one such as 10m")
        })
    }
}

/// What an event has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EventFilter {
    Kind(String),
    Action(String),
    Name(String),
    Id(String),
}

impl FromStr for EventFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, for example type=service")?;
        let one_of = |known: &[&str]| match known.contains(&value) {
            true => Ok(value.to_owned()),
            false => Err(format!("{value:?} is not one of {}", known.join(", "))),
        };
        match key {
            "type" => Ok(Self::Kind(one_of(&["node", "network", "service", "cluster", "task"])?)),
            "event" => Ok(Self::Action(one_of(&["create", "update", "remove"])?)),
            "name" => Ok(Self::Name(value.to_owned())),
            "id" => Ok(Self::Id(value.to_owned())),
            _ => Err(format!("filter {key:?} is not known; there are type, event, name and id")),
        }
    }
}

impl EventFilter {
    fn admits(&self, event: &v1::Event) -> bool {
        match self {
            Self::Kind(kind) => event.kind == *kind,
            Self::Action(action) => event.action == *action,
            Self::Name(name) => event.name == *name,
            Self::Id(beginning) => event.id.starts_with(beginning),
        }
    }
}

/// Of each key that is given one has to hold.
fn admitted(filters: &[EventFilter], event: &v1::Event) -> bool {
    let same = |a: &EventFilter, b: &EventFilter| std::mem::discriminant(a) == std::mem::discriminant(b);
    filters.iter().all(|key| filters.iter().any(|filter| same(key, filter) && filter.admits(event)))
}

#[derive(Serialize)]
struct EventReport {
    time: String,
    version: u64,
    #[serde(rename = "type")]
    kind: String,
    event: String,
    id: String,
    name: String,
    attributes: BTreeMap<String, String>,
}

/// Follows a manager, by way of the daemon, until it ends.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    const WHAT: &str = "cannot follow events";
    let daemon = context.daemon().await?;
    let request = EventsRequest { since_millis: args.since.map(|since| since.0) };
    let mut events = answer(daemon.control().events(request)).await.context(WHAT)?;
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(status) => {
                let message = status.message().to_owned();
                return Err(anyhow::Error::from(Failure::Refused { code: status.code(), message })
                    .context("events end"));
            }
        };
        if admitted(&args.filter, &event) {
            show(context, event)?;
        }
    }
}

fn show(context: &Context, event: v1::Event) -> Result<()> {
    let nanos = i128::from(event.time_millis) * 1_000_000;
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|time| time.format(&Rfc3339).ok());
    let time = time.unwrap_or_else(|| event.time_millis.to_string());
    let v1::Event { version, kind, action: event_, id, name, attributes, .. } = event;
    let report = EventReport { time, version, kind, event: event_, id, name, attributes };
    context.show_one(&report, |event| {
        let EventReport { time, version, kind, event, id, name, attributes } = event;
        let attributes: String =
            attributes.iter().map(|(key, value)| format!(", {key}={}", output::plain(value))).collect();
        let id = output::short(id);
        format!("{time} {kind} {event} {name} (id={id}, version={version}{attributes})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_span() {
        assert_eq!("1970-01-01T00:00:01.5Z".parse(), Ok(Since(1500)));
        assert_eq!("1970-01-01T01:00:00+01:00".parse(), Ok(Since(0)));
        let (hour, now) = ("1h".parse::<Since>().unwrap(), "0s".parse::<Since>().unwrap());
        assert!((3_500_000..3_700_000).contains(&(now.0 - hour.0)), "{hour:?} {now:?}");
        assert!("yesterday".parse::<Since>().is_err() && "".parse::<Since>().is_err());
    }

    #[test]
    fn filters_of_one_key_are_alternatives() {
        let event = |kind: &str, name: &str| v1::Event {
            kind: kind.into(),
            name: name.into(),
            ..v1::Event::default()
        };
        let filters: Vec<EventFilter> =
            ["type=service", "type=network", "name=web"].iter().map(|text| text.parse().unwrap()).collect();
        assert!(admitted(&filters, &event("service", "web")) && admitted(&filters, &event("network", "web")));
        assert!(!admitted(&filters, &event("node", "web")) && !admitted(&filters, &event("service", "db")));
        assert!(admitted(&[], &event("node", "n1")));
        for bad in ["type", "type=port", "event=made", "x=y"] {
            assert!(bad.parse::<EventFilter>().is_err(), "{bad}");
        }
    }
}
