//! `meshctl monitor`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{WatchEvent, WatchRequest};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    context::Context,
    daemon::{answer, failed},
    flows::{FlowReport, Selection},
    output::plain,
};

/// Follow flows that begin and end on this node, and packets that are dropped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl monitor
  meshctl monitor --type dropped
  meshctl monitor --service web --type new --type closed
  meshctl --format json monitor --client 203.0.113.0/24      one JSON object a line
  meshctl monitor --format '{{.Type}} {{.ClientAddress}}'

Told are flows to services that enter at this node, TCP connections that its tasks open to others' own addresses, and packets
dropped here. A flow of TCP closes when both sides have closed or one resets it; one that falls silent is not told. The kernel
tells 2,000 a second on each processor at most, and what was left out is counted. It ends with Ctrl-C.")]
pub struct Args {
    /// Only this: new, closed or dropped; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = ["new", "closed", "dropped"])]
    types: Vec<String>,
    #[command(flatten)]
    selection: Selection,
}

/// What happened, for programs.
#[derive(Debug, Serialize)]
struct Report {
    time: String,
    /// `new`, `closed`, `dropped`, `lost`.
    #[serde(rename = "type")]
    kind: String,
    /// Why it was dropped.
    reason: Option<String>,
    /// The program that dropped it.
    program: Option<String>,
    /// How many events of type `lost` were not told.
    lost: u64,
    #[serde(flatten)]
    flow: Option<FlowReport>,
}

/// Follows the daemon until Ctrl-C.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let wants = |kind: &str| args.types.is_empty() || args.types.iter().any(|wanted| wanted == kind);
    let (new, closed, drops) = (wants("new"), wants("closed"), wants("dropped"));
    let filter = Some(args.selection.into());
    let request = WatchRequest { filter, new, closed, drops, capture: None };
    let mut events = answer(daemon.local().watch(request)).await.context("cannot watch")?;
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(status) => return Err(anyhow::Error::from(failed(&status)).context("the watch ends")),
        };
        match event.kind.as_str() {
            "begun" if context.is_for_programs() => {}
            "begun" => anstream::eprintln!("meshctl: watching; Ctrl-C ends it"),
            _ => show(context, event)?,
        }
    }
}

fn show(context: &Context, event: WatchEvent) -> Result<()> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(event.unix_nanos.into()).ok();
    let time = time.filter(|_| event.unix_nanos > 0).and_then(|time| time.format(&Rfc3339).ok());
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    let report = Report {
        time: time.unwrap_or_default(),
        kind: event.kind,
        reason: known(event.reason),
        program: known(event.program),
        lost: event.lost,
        flow: event.flow.map(FlowReport::from),
    };
    context.show_one(&report, line)
}

fn line(report: &Report) -> String {
    let Some(flow) = &report.flow else {
        return format!("{} events were not told: there were too many", report.lost);
    };
    let Report { time, kind, reason, program, .. } = report;
    let mut text = format!("{time} {kind} {} {} -> {}", flow.protocol, flow.opener(), flow.to_what());
    if flow.task_address.is_some() {
        text += &format!(" by {}", flow.by_whom());
    }
    text.extend(flow.node.iter().map(|node| format!(" on {node}")));
    match (kind.as_str(), reason) {
        ("closed", _) => text += &format!(": {}", flow.state),
        (_, Some(reason)) => text += &format!(": {reason}"),
        (_, None) => {}
    }
    text.extend(program.iter().map(|program| format!(" (program {program})")));
    plain(&text)
}

#[cfg(test)]
mod tests {
    use mesh_api::v1::Flow;

    use super::*;

    fn flow() -> FlowReport {
        let flow = Flow {
            protocol: "tcp".to_owned(),
            client_address: "10.10.3.9".to_owned(),
            client_port: 40_000,
            client: "probe".to_owned(),
            address: "10.10.3.2".to_owned(),
            port: 80,
            service: "web".to_owned(),
            task: "web.1".to_owned(),
            task_address: "10.10.3.5".to_owned(),
            task_port: 80,
            node: "n2".to_owned(),
            state: "closed".to_owned(),
            ..Flow::default()
        };
        flow.into()
    }

    fn report(kind: &str, flow: Option<FlowReport>) -> Report {
        Report { time: "T".to_owned(), kind: kind.to_owned(), reason: None, program: None, lost: 3, flow }
    }

    #[test]
    fn lines_say_who_and_what() {
        let closed = line(&report("closed", Some(flow())));
        assert_eq!(
            closed,
            "T closed tcp probe (10.10.3.9:40000) -> web (10.10.3.2:80) by web.1 (10.10.3.5:80) on n2: closed"
        );
        let dropped = FlowReport { task: None, task_address: None, node: None, ..flow() };
        let dropped = Report {
            reason: Some("no-backend".to_owned()),
            program: Some("from_task".to_owned()),
            ..report("dropped", Some(dropped))
        };
        assert_eq!(
            line(&dropped),
            "T dropped tcp probe (10.10.3.9:40000) -> web (10.10.3.2:80): no-backend (program from_task)"
        );
        assert_eq!(line(&report("lost", None)), "3 events were not told: there were too many");
    }
}
