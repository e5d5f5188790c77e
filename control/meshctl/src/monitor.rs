//! `meshctl monitor`.

use anyhow::{Context as _, Result};
use mesh_api::v1::{WatchEvent, WatchRequest};
use serde::Serialize;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

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
dropped here. A flow of TCP closes when both sides have closed or one resets it; an established one of any protocol when it was
silent for too long (silent), or its task is gone (task-gone). One that was never established makes room for others untold. The
kernel tells 2,000 a second on each processor at most, and what was left out is counted. It ends with Ctrl-C, exit code 0.")]
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
    /// Why it was dropped; of a flow that no packet has ended `silent`, or `task-gone`.
    reason: Option<String>,
    /// The program that dropped it.
    program: Option<String>,
    /// Type of a dropped packet of ICMP.
    icmp_type: Option<u32>,
    /// How many events of type `lost` were not told.
    lost: u64,
    #[serde(flatten)]
    flow: Option<FlowReport>,
}

/// Always as long, so that columns stay where they are.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Follows the daemon until Ctrl-C.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let wants = |kind: &str| args.types.is_empty() || args.types.iter().any(|wanted| wanted == kind);
    let (new, closed, drops) = (wants("new"), wants("closed"), wants("dropped"));
    let filter = Some(args.selection.into());
    let request = WatchRequest { filter, new, closed, drops, capture: None };
    let mut events = answer(daemon.local().watch(request)).await.context("cannot watch")?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            // The daemon sees that nobody reads any more.
            _ = &mut interrupted => return Ok(()),
        };
        let event = match event {
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
    let time = time.filter(|_| event.unix_nanos > 0).and_then(|time| time.format(TIME).ok());
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    let report = Report {
        time: time.unwrap_or_default(),
        kind: event.kind,
        reason: known(event.reason),
        icmp_type: event.icmp_type,
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
    text.extend(report.icmp_type.map(|number| format!(" ({})", icmp(&flow.protocol, number))));
    match (kind.as_str(), reason) {
        ("closed", Some(reason)) => text += &format!(": {reason}, was {}", flow.state),
        ("closed", None) => text += &format!(": {}", flow.state),
        (_, Some(reason)) => text += &format!(": {reason}"),
        (_, None) => {}
    }
    text.extend(program.iter().map(|program| format!(" (program {program})")));
    plain(&text)
}

/// The name of an ICMP message (IANA, ICMP Type Numbers and ICMPv6 type numbers).
fn icmp(protocol: &str, number: u32) -> String {
    let name = match (protocol, number) {
        ("icmp", 0) | ("icmpv6", 129) => "echo reply",
        ("icmp", 3) | ("icmpv6", 1) => "destination unreachable",
        ("icmp", 5) | ("icmpv6", 137) => "redirect",
        ("icmp", 8) | ("icmpv6", 128) => "echo request",
        ("icmp", 11) | ("icmpv6", 3) => "time exceeded",
        ("icmp", 12) | ("icmpv6", 4) => "parameter problem",
        ("icmp", 13) => "timestamp",
        ("icmpv6", 2) => "packet too big",
        ("icmpv6", 130) => "multicast listener query",
        ("icmpv6", 131 | 132 | 143) => "multicast listener report",
        ("icmpv6", 133) => "router solicitation",
        ("icmpv6", 134) => "router advertisement",
        ("icmpv6", 135) => "neighbor solicitation",
        ("icmpv6", 136) => "neighbor advertisement",
        _ => return format!("type {number}"),
    };
    name.to_owned()
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
        let (time, kind) = ("T".to_owned(), kind.to_owned());
        Report { time, kind, reason: None, program: None, icmp_type: None, lost: 3, flow }
    }

    #[test]
    fn packets_without_ports_have_names() {
        let dropped = |protocol: &str, client: &str, address: &str, icmp_type| {
            let flow = FlowReport {
                protocol: protocol.to_owned(),
                client_address: client.to_owned(),
                client: None,
                address: address.to_owned(),
                port: 0,
                service: None,
                task: None,
                task_address: None,
                node: None,
                ..flow()
            };
            let flow = FlowReport { client_port: if protocol == "icmp" { 77 } else { 0 }, ..flow };
            let reason = Some("no-endpoint".to_owned());
            line(&Report { reason, icmp_type, ..report("dropped", Some(flow)) })
        };
        for (told, text) in [
            (dropped("icmp", "10.0.0.1", "10.0.0.2", Some(8)), "icmp 10.0.0.1 -> 10.0.0.2 (echo request)"),
            (
                dropped("icmpv6", "fd00::1", "fd00::2", Some(135)),
                "icmpv6 fd00::1 -> fd00::2 (neighbor solicitation)",
            ),
            (dropped("icmp", "10.0.0.1", "10.0.0.2", Some(99)), "icmp 10.0.0.1 -> 10.0.0.2 (type 99)"),
            (dropped("arp", "10.0.0.1", "10.0.0.2", None), "arp 10.0.0.1 -> 10.0.0.2"),
            (dropped("ethertype 0x88cc", "", "", None), "ethertype 0x88cc ? -> ?"),
        ] {
            assert_eq!(told, format!("T dropped {text}: no-endpoint"));
        }
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
        let silent = Report { reason: Some("silent".to_owned()), ..report("closed", Some(flow())) };
        assert!(line(&silent).ends_with(" on n2: silent, was closed"), "{}", line(&silent));
        assert_eq!(line(&report("lost", None)), "3 events were not told: there were too many");
    }
}
