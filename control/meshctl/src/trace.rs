//! `meshctl trace`.

use std::{net::IpAddr, process::ExitCode, str::FromStr};

use anstyle::AnsiColor;
use anyhow::{Context as _, Result};
use mesh_api::v1::{self, TraceRequest};
use serde::Serialize;

use crate::{
    context::Context,
    daemon::answer,
    failure::Failure,
    output::{Cell, Page, Table},
};

/// Follow a made-up packet through every program and node, and tell what is looked up, decided and dropped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl trace --from web.1 --to db:5432
  meshctl trace --from web.1 --to 10.10.3.7:53 --protocol udp
  meshctl trace --from web.1 --to db --protocol icmp    an echo request, which has no port
  meshctl trace --from 203.0.113.9@n2 --to web:8080     from outside, to the port at node n2
  meshctl --format json trace --from web.1 --to db:5432

The first packet of a flow is given to the programs that run, with their maps as they are; each node runs its own. Nothing is
sent, and what the programs note of the flow is forgotten again; it is counted as a packet (and as a drop) all the same.
Once it is in a task, what that would answer is followed back in the same way. Works for tasks of any node, and without managers. Firewalls, and what the task does with the packet, are not tried.
Exit code: 0 if the packet and its answer arrive, or leave for the world outside; 1 if one is dropped, or its end cannot be told.")]
pub struct Args {
    /// The task that sends; or an address outside, and the node whose uplink it comes in by
    #[arg(long, value_name = "TASK|ADDRESS@NODE")]
    from: Sender,
    /// Where to: a name as the task would look it up, a node or an address; and the port, which icmp has none of
    #[arg(long, value_name = "NAME:PORT")]
    to: String,
    /// Transport; icmp is an echo request
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp", value_parser = ["tcp", "udp", "icmp"])]
    protocol: String,
    /// Only to an IPv4 address
    #[arg(short = '4', long)]
    ipv4: bool,
    /// Only to an IPv6 address
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    ipv6: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Sender {
    Task(String),
    Outside(IpAddr, String),
}

impl FromStr for Sender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            _ if text.is_empty() => Err("it is empty".to_owned()),
            None => Ok(Self::Task(text.to_owned())),
            Some((address, node)) => match address.parse() {
                Ok(address) => Ok(Self::Outside(address, node.to_owned())),
                Err(_) => {
                    Err(format!("{address:?} is no address; write ADDRESS@NODE, or the name of a task"))
                }
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    name: String,
    port: u16,
}

impl Target {
    fn without_port(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(text);
        let is_name = !bare.is_empty() && (!bare.contains(':') || bare.parse::<IpAddr>().is_ok());
        let refused =
            || "icmp has no ports; write a name or an address alone, for example web or fd00::7".to_owned();
        is_name.then(|| Self { name: bare.to_owned(), port: 0 }).ok_or_else(refused)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = "write NAME:PORT, for example web:80, 10.10.3.7:53 or [fd00::7]:53";
        let (name, port) = text.rsplit_once(':').ok_or(what)?;
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if name.is_empty() || (bare.is_none() && name.contains(':')) {
            return Err(what.to_owned());
        }
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or("the port is not between 1 and 65535")?;
        Ok(Self { name: bare.unwrap_or(name).to_owned(), port })
    }
}

/// What would become of the packet.
#[derive(Debug, Serialize)]
struct Report {
    steps: Vec<Step>,
    /// `delivered`, `dropped`, `left`, `unknown`.
    fate: String,
    /// How it ends, in words.
    text: String,
    /// Of a drop, as `meshctl status` counts it.
    reason: Option<String>,
    /// The way of the answer; `null` when the packet is in no task.
    back: Option<Back>,
}

/// What would become of the answer; as of the packet.
#[derive(Debug, Serialize)]
struct Back {
    steps: Vec<Step>,
    fate: String,
    text: String,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Step {
    node: String,
    /// The program, or what else decides.
    place: String,
    found: Vec<String>,
    verdict: String,
}

impl From<v1::TraceResponse> for Report {
    fn from(told: v1::TraceResponse) -> Self {
        let step = |step: v1::TraceStep| {
            let v1::TraceStep { node, place, found, verdict } = step;
            Step { node, place, found, verdict }
        };
        let back = told.back.map(|back| Back {
            steps: back.steps.into_iter().map(step).collect(),
            fate: back.fate,
            text: back.text,
            reason: Some(back.reason).filter(|reason| !reason.is_empty()),
        });
        Self {
            steps: told.steps.into_iter().map(step).collect(),
            fate: told.fate,
            text: told.text,
            reason: Some(told.reason).filter(|reason| !reason.is_empty()),
            back,
        }
    }
}

/// Asks the daemon.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode> {
    let daemon = context.daemon().await?;
    let (from, node, outside) = match args.from {
        Sender::Task(task) => (task, String::new(), false),
        Sender::Outside(address, node) => (address.to_string(), node, true),
    };
    let ipv6 = if args.ipv6 { Some(true) } else { args.ipv4.then_some(false) };
    let Target { name: to, port } = match args.protocol.as_str() {
        "icmp" => Target::without_port(&args.to),
        _ => args.to.parse(),
    }
    .map_err(|why| Failure::Usage(format!("--to {}: {why}", args.to)))?;
    let port = port.into();
    let request = TraceRequest { from, node, outside, to, port, protocol: args.protocol, ipv6 };
    let told = answer(daemon.local().trace(request)).await.context("cannot trace the packet")?;
    let report = Report::from(told);
    context.show(&report, page)?;
    let arrives = |fate: &str| matches!(fate, "delivered" | "left");
    let both = arrives(&report.fate) && report.back.as_ref().is_none_or(|back| arrives(&back.fate));
    Ok(if both { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn page(report: &Report) -> String {
    let mut page = Page::new();
    let cell = |fate: &str, reason: &Option<String>| {
        let colour = match fate {
            "delivered" => AnsiColor::Green,
            "left" => AnsiColor::Yellow,
            _ => AnsiColor::Red,
        };
        let text = reason.as_ref().map_or(fate.to_owned(), |reason| format!("{fate}: {reason}"));
        Cell::new(text).colour(colour)
    };
    page.field("Fate", cell(&report.fate, &report.reason));
    page.field("Meaning", Cell::new(&report.text));
    if let Some(back) = &report.back {
        page.field("Answer", cell(&back.fate, &back.reason));
        page.field("Meaning", Cell::new(&back.text));
    }
    let there = report.steps.iter().map(|step| (step, ""));
    let back = report.back.iter().flat_map(|back| &back.steps).map(|step| (step, ", the answer"));
    for (step, which) in there.chain(back) {
        let mut table = Table::bare();
        for found in &step.found {
            table.row([Cell::new("  "), Cell::new(found)]);
        }
        table.row([Cell::new("=>"), Cell::new(&step.verdict).bold()]);
        page.section(&format!("{}, {}{which}", step.node, step.place), table);
    }
    page.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let target = |name: &str, port| Ok(Target { name: name.to_owned(), port });
        assert_eq!("web:80".parse(), target("web", 80));
        assert_eq!("[fd00::7]:53".parse(), target("fd00::7", 53));
        for wrong in ["web", "web:", ":80", "web:0", "web:65536", "fd00::7:53", "web:x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_without_ports() {
        for (text, name) in
            [("web", "web"), ("fd00::7", "fd00::7"), ("[fd00::7]", "fd00::7"), ("10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(Target::without_port(text), Ok(Target { name: name.to_owned(), port: 0 }));
        }
        for wrong in ["", "web:80", "[fd00::7]:53", "10.0.0.1:8"] {
            assert!(Target::without_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn senders() {
        assert_eq!("web.1".parse(), Ok(Sender::Task("web.1".to_owned())));
        let outside = Sender::Outside("203.0.113.9".parse().unwrap(), "n2".to_owned());
        assert_eq!("203.0.113.9@n2".parse(), Ok(outside));
        assert!("web@n2".parse::<Sender>().is_err() && "".parse::<Sender>().is_err());
    }
}
