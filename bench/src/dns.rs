//! Names asked from inside a task, beside Docker's embedded DNS and dnsmasq.

mod ask;
mod dnsmasq;
mod docker;
mod meshd;
mod scale;
mod subject;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use mesh_tests::Prefix;

use crate::{
    pinning::Processors,
    stats::{median, median_ratio},
};
use ask::{Dnsperf, Transport};
use subject::Subject;

/// What to measure, and how much of it.
#[derive(Args)]
pub struct Options {
    /// What to measure; everything unless some are named.
    #[arg(value_enum)]
    what: Vec<Part>,
    /// Rounds; each asks every server once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How many names each server knows.
    #[arg(long, default_value_t = 100)]
    names: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Queries a second and times to an answer, beside the peers.
    Compare,
    /// What one task waits while another one floods its own server.
    Flood,
    /// Memory and time with 100,000 names.
    Scale,
}

/// What is measured of a server; the last word is the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    Udp,
    UdpByCpu,
    Tcp,
    TcpByCpu,
    Alone,
    HalfMedian,
    Half,
    QuietMedian,
    Quiet,
    FloodMedian,
    Flood,
}

impl Measure {
    fn title(self) -> &'static str {
        match self {
            Self::Udp => "UDP, 1000 queries/s",
            Self::UdpByCpu => "UDP, 1000 queries per second of the server's processor time",
            Self::Tcp => "TCP, 1000 queries/s",
            Self::TcpByCpu => "TCP, 1000 queries per second of the server's processor time",
            Self::Alone => "one at a time, p50, us",
            Self::HalfMedian => "at half of that rate over UDP, p50, us",
            Self::Half => "at half of that rate over UDP, p99, us",
            Self::QuietMedian => "200/s of one task, p50, us",
            Self::Quiet => "200/s of one task, p99, us",
            Self::FloodMedian => "the same while another task floods, p50, us",
            Self::Flood => "the same while another task floods, p99, us",
        }
    }
}

/// Samples by measure and server, one for each round.
type Results = BTreeMap<(Measure, &'static str), Vec<f64>>;

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let chosen = |part| options.what.is_empty() || options.what.contains(&part);
    let prefix = Prefix::unique();
    let measured = measure(options, &prefix, chosen);
    // Folders of the peers and lists of names.
    mesh_tests::remove_all(&prefix)?;
    measured
}

fn measure(options: &Options, prefix: &Prefix, chosen: impl Fn(Part) -> bool) -> Result<()> {
    if chosen(Part::Scale) {
        // First, while this process holds nothing else.
        scale::run(prefix, Duration::from_secs(options.seconds))?;
    }
    if !chosen(Part::Compare) && !chosen(Part::Flood) {
        return Ok(());
    }
    let names: Vec<String> = (0..options.names).map(|n| format!("name{n:05}")).collect();
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(meshd::Meshd::start(&names)?)];
    type Start<'a> = &'a dyn Fn() -> Result<Box<dyn Subject>>;
    let peers: [(&str, Start<'_>); 2] = [
        ("Docker", &|| Ok(Box::new(docker::Docker::start(prefix, &names)?))),
        ("dnsmasq", &|| Ok(Box::new(dnsmasq::Dnsmasq::start(prefix, &names)?))),
    ];
    for (name, start) in peers {
        match start() {
            Ok(subject) => subjects.push(subject),
            Err(error) => eprintln!("without {name}: {error:#}"),
        }
    }
    let processors = Processors::pick()?;
    let perf = Dnsperf::new(prefix, &names, Duration::from_secs(options.seconds))?;
    let mut results = Results::new();
    for round in 1..=options.rounds {
        for subject in &subjects {
            mesh_tests::interrupt::check()?;
            eprintln!("round {round} of {}: {}", options.rounds, subject.name());
            let mut sampled = Vec::new();
            if chosen(Part::Compare) {
                sampled.extend(compare(subject.as_ref(), &perf, &names, processors)?);
            }
            if chosen(Part::Flood) {
                sampled.extend(flood(subject.as_ref(), &perf, &names)?);
            }
            for (measure, value) in sampled {
                results.entry((measure, subject.name())).or_default().push(value);
            }
        }
    }
    println!("{}", table(&results, &subjects));
    Ok(())
}

fn compare(
    subject: &dyn Subject,
    perf: &Dnsperf,
    names: &[String],
    processors: Processors,
) -> Result<Vec<(Measure, f64)>> {
    let asker = subject.askers()[0].clone();
    let mut sampled = Vec::new();
    let mut rate = 0.0;
    let ways = [
        (Transport::Udp, Measure::Udp, Measure::UdpByCpu),
        (Transport::Tcp, Measure::Tcp, Measure::TcpByCpu),
    ];
    for (transport, measure, by_cpu) in ways {
        let before = subject.cpu()?;
        let queries = match perf.run(&asker, subject.server(), transport) {
            Ok(queries) => queries,
            // Some close connections after a hundred queries, which dnsperf does not always bear.
            Err(error) if transport == Transport::Tcp => {
                eprintln!("no figure for {} over TCP: {error:#}", subject.name());
                continue;
            }
            Err(error) => return Err(error),
        };
        let used = subject.cpu()? - before;
        sampled.push((measure, queries.per_second / 1e3));
        sampled.push((by_cpu, queries.count / used.max(0.01) / 1e3));
        if transport == Transport::Udp {
            rate = queries.per_second;
        }
    }
    subject.pin(Some(processors.server))?;
    let alone = ask::one_at_a_time(&asker, subject.server(), names, processors.client, perf.length())?;
    let half = ask::paced(&asker, subject.server(), names, processors.client, rate / 2.0, perf.length())?;
    subject.pin(None)?;
    sampled.push((Measure::Alone, alone.p50));
    sampled.push((Measure::HalfMedian, half.p50));
    sampled.push((Measure::Half, half.p99));
    Ok(sampled)
}

fn flood(subject: &dyn Subject, perf: &Dnsperf, names: &[String]) -> Result<Vec<(Measure, f64)>> {
    let [flooding, asking, ..] = subject.askers() else { return Ok(Vec::new()) };
    let seldom = || ask::seldom(asking, subject.server(), names, perf.length());
    let quiet = seldom()?;
    let flood = perf.flood(flooding, subject.server())?;
    let during = seldom();
    drop(flood);
    let during = during?;
    Ok(vec![
        (Measure::QuietMedian, quiet.p50),
        (Measure::Quiet, quiet.p99),
        (Measure::FloodMedian, during.p50),
        (Measure::Flood, during.p99),
    ])
}

/// Medians, and beside each peer's the median of the rounds' ratios: ours to its.
fn table(results: &Results, subjects: &[Box<dyn Subject>]) -> Table {
    let mut table = Table::new();
    let names: Vec<&'static str> = subjects.iter().map(|s| s.name()).collect();
    let mut header = vec!["".to_owned()];
    header.extend(names.iter().map(ToString::to_string));
    header.extend(names.iter().skip(1).map(|peer| format!("{} / {peer}", names[0])));
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let measures: std::collections::BTreeSet<Measure> = results.keys().map(|(measure, _)| *measure).collect();
    for measure in measures {
        let of = |name| results.get(&(measure, name)).map_or(&[][..], Vec::as_slice);
        let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.1}") };
        let mut row = vec![measure.title().to_owned()];
        row.extend(names.iter().map(|name| number(median(of(name)))));
        let ratio = |peer| match of(peer) {
            [] => "-".to_owned(),
            samples => format!("{:.2}", median_ratio(of(names[0]), samples)),
        };
        row.extend(names.iter().skip(1).map(|peer| ratio(peer)));
        table.add_row(row);
    }
    table
}
