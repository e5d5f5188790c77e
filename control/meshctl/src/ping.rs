//! `meshctl ping`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mesh_api::v1::PingRequest;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    context::Context,
    daemon::answer,
    output::{self, plain},
};

/// Ask a node's data path, or a task through the overlay, and tell how long the answers take
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl ping n2
  meshctl ping -c 5 -i 0.2 web.1
  meshctl ping -c 1 -s 1500 n2
  meshctl ping --from probe web.1

A node is asked as VXLAN packets go, by its data path: it answers without its daemon too. A task is asked from a task of this
node on the same network, by an echo request through the overlay. Packets are never fragmented, so -s finds out what size passes.
Exit code: 0 if an answer came, 1 if none did.")]
pub struct Args {
    /// Node, or task
    #[arg(value_name = "NODE|TASK")]
    to: String,
    /// How many questions; without it until Ctrl-C
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Seconds between two questions
    #[arg(short, long, default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Bytes of the packet with its IP header, up to 65000
    #[arg(short, long, default_value_t = 84, value_parser = clap::value_parser!(u32).range(44..=65000))]
    size: u32,
    /// Seconds to wait for an answer, at most 10
    #[arg(short = 'W', long, default_value = "1", value_parser = seconds)]
    timeout: Duration,
    /// Task of this node to ask from; without it any on the other task's network
    #[arg(long, value_name = "TASK")]
    from: Option<String>,
    /// Ask the task's IPv4 address
    #[arg(short = '4', long)]
    ipv4: bool,
    /// Ask the task's IPv6 address
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    ipv6: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match (0.01..=10.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not between 0.01 and 10 seconds".to_owned()),
    }
}

/// What came of it, for programs.
#[derive(Debug, Default, Serialize)]
struct Report {
    name: String,
    address: String,
    path: String,
    size: u32,
    asked: u32,
    answered: u32,
    /// Of each answer, in the order of questions; null where none came.
    micros: Vec<Option<u64>>,
}

/// Asks until the count or Ctrl-C.
pub async fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let daemon = context.daemon().await?;
    let mut local = daemon.local();
    let ipv6 = if args.ipv6 { Some(true) } else { args.ipv4.then_some(false) };
    let mut report = Report { size: args.size, ..Report::default() };
    let begun = Instant::now();
    while args.count.is_none_or(|count| report.asked < count) {
        let at = Instant::now();
        let request = PingRequest {
            to: args.to.clone(),
            from: args.from.clone().unwrap_or_default(),
            packet_size: args.size,
            wait_millis: u32::try_from(args.timeout.as_millis()).unwrap_or(u32::MAX),
            ipv6,
        };
        let asked = tokio::select! {
            asked = answer(local.ping(request)) => asked,
            _ = tokio::signal::ctrl_c() => break,
        };
        let told = asked.with_context(|| format!("cannot ping {}", args.to))?;
        if report.asked == 0 {
            (report.name, report.address, report.path) = (told.name, told.address, told.path);
            if !context.is_for_programs() {
                let Report { name, address, path, .. } = &report;
                let begun = format!(
                    "PING {} ({}) by its {}: {} bytes",
                    plain(name),
                    plain(address),
                    plain(path),
                    args.size
                );
                output::print(&output::wrapped(&begun, output::terminal_width()))?;
            }
        }
        report.asked += 1;
        report.answered += u32::from(told.answered);
        report.micros.push(told.answered.then_some(told.micros));
        if !context.is_for_programs() {
            output::print(&match (told.answered, told.too_large) {
                (true, _) => format!(
                    "answer {} from {}: time={}",
                    report.asked,
                    plain(&report.address),
                    millis(told.micros)
                ),
                (false, true) => format!("question {}: larger than the interface's MTU", report.asked),
                (false, false) => {
                    format!("question {}: no answer within {} s", report.asked, args.timeout.as_secs_f64())
                }
            })?;
        }
        if args.count != Some(report.asked) {
            tokio::select! {
                () = sleep(args.interval.saturating_sub(at.elapsed())) => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
    }
    context.show(&report, |report| summary(report, begun.elapsed()))?;
    Ok(if report.answered > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(report: &Report, took: Duration) -> String {
    let lost = report.asked - report.answered;
    let percent = (f64::from(lost) * 100.0 / f64::from(report.asked.max(1))).round();
    let mut text = format!(
        "\n--- {} ---\n{} asked, {} answered, {percent}% lost, {} ms\n",
        plain(&report.name),
        report.asked,
        report.answered,
        took.as_millis()
    );
    let times: Vec<u64> = report.micros.iter().flatten().copied().collect();
    if let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) {
        let mean = times.iter().sum::<u64>() / times.len() as u64;
        text += &format!("round trip min/avg/max = {}/{}/{}\n", millis(*least), millis(mean), millis(*most));
    }
    text
}

fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        let report = Report {
            name: "n2".to_owned(),
            asked: 3,
            answered: 2,
            micros: vec![Some(1_500), None, Some(500)],
            ..Report::default()
        };
        let text = summary(&report, Duration::from_millis(2_000));
        assert_eq!(
            text,
            "\n--- n2 ---\n3 asked, 2 answered, 33% lost, 2000 ms\nround trip min/avg/max = 0.500 ms/1.000 ms/1.500 ms\n"
        );
        assert!(!summary(&Report::default(), Duration::ZERO).contains("round trip"));
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        assert!(seconds("0").is_err() && seconds("x").is_err() && seconds("11").is_err());
    }
}
