//! Names asked from inside a task, beside Docker's embedded DNS and dnsmasq.

mod ask;
mod dnsmasq;
mod docker;
mod meshd;
mod scale;
mod subject;

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use mesh_tests::Prefix;

use crate::{
    pinning::Processors,
    record::{Better, Figure, Record, Suite, Who},
};
use ask::{Dnsperf, Transport};
use subject::Subject;

/// Seconds of processor time that can be told in hundredths.
const LEAST_TIME: f64 = 0.1;

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

/// What is measured of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    Udp,
    Tcp,
    Alone,
    HalfMedian,
    Half,
    QuietMedian,
    Quiet,
    FloodMedian,
    Flood,
}

impl Measure {
    /// Key, title and unit.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Udp => ("udp", "UDP, 100 queries under way", "1000/s"),
            Self::Tcp => ("tcp", "TCP, 100 queries under way", "1000/s"),
            Self::Alone => ("alone-p50", "one at a time, p50", "us"),
            Self::HalfMedian => ("half-p50", "at half of that rate over UDP, p50", "us"),
            Self::Half => ("half-p99", "at half of that rate over UDP, p99", "us"),
            Self::QuietMedian => ("seldom-p50", "200/s of one task, p50", "us"),
            Self::Quiet => ("seldom-p99", "200/s of one task, p99", "us"),
            Self::FloodMedian => ("flood-p50", "the same while another task floods, p50", "us"),
            Self::Flood => ("flood-p99", "the same while another task floods, p99", "us"),
        }
    }

    fn figure(self) -> Figure {
        let (key, title, unit) = self.words();
        let better = if unit == "us" { Better::Lower } else { Better::Higher };
        let figure = Figure::new(Suite::Dns, key, title, unit, better);
        // The peers are not made for a hundred queries on one connection: they close it, or leave most unanswered.
        if self == Self::Tcp { figure } else { figure.beside(docker::KEY) }
    }
}

/// A value, and microseconds of the server's processor time for each query.
type Sampled = Vec<(Measure, f64, Option<f64>)>;

impl Options {
    /// Everything, in so many rounds.
    pub fn of(rounds: usize, quick: bool) -> Self {
        Self { what: Vec::new(), rounds, seconds: if quick { 1 } else { 2 }, names: 100 }
    }
}

/// Measures.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let chosen = |part| options.what.is_empty() || options.what.contains(&part);
    let prefix = Prefix::unique();
    let measured = measure(options, &prefix, chosen, record);
    // Folders of the peers and lists of names.
    mesh_tests::remove_all(&prefix)?;
    measured
}

fn measure(
    options: &Options,
    prefix: &Prefix,
    chosen: impl Fn(Part) -> bool,
    record: &mut Record,
) -> Result<()> {
    if chosen(Part::Scale) {
        // First, while this process holds little else.
        scale::run(prefix, Duration::from_secs(options.seconds), record)?;
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
            Err(error) => {
                mesh_tests::interrupt::check()?;
                eprintln!("without {name}: {error:#}");
                record.note(format!("names: {name} is left out: {error:#}"));
            }
        }
    }
    let processors = Processors::pick()?;
    let length = Duration::from_secs(options.seconds);
    let perf = Dnsperf::new(prefix, &names, length)?;
    if perf.is_none() {
        let note = "names: rates and floods are left out: there is no dnsperf (`cargo xtask setup`)";
        eprintln!("{note}");
        record.note(note);
    }
    for round in 1..=options.rounds {
        for subject in &subjects {
            mesh_tests::interrupt::check()?;
            eprintln!("round {round} of {}: {}", options.rounds, subject.name());
            let mut sampled = Sampled::new();
            if chosen(Part::Compare) {
                sampled.extend(compare(
                    subject.as_ref(),
                    (perf.as_ref(), length),
                    &names,
                    processors,
                    record,
                )?);
            }
            if let Some(perf) = perf.as_ref().filter(|_| chosen(Part::Flood)) {
                sampled.extend(flood(subject.as_ref(), perf, length, &names)?);
            }
            let key = subject.name().to_lowercase();
            let who = if key == meshd::KEY { Who::ours } else { Who::peer };
            for (measure, value, cpu) in sampled {
                let cpu = cpu.map(|cpu| ("us/query", cpu));
                record.figure(measure.figure()).add(who(&key, subject.name()), value, cpu);
            }
        }
    }
    Ok(())
}

fn compare(
    subject: &dyn Subject,
    (perf, length): (Option<&Dnsperf>, Duration),
    names: &[String],
    processors: Processors,
    record: &mut Record,
) -> Result<Sampled> {
    let asker = subject.askers()[0].clone();
    let mut sampled = Sampled::new();
    let rate = match perf {
        Some(perf) => Some(rates(subject, perf, &mut sampled, record)?),
        None => None,
    };
    subject.pin(Some(processors.server))?;
    let alone = ask::one_at_a_time(&asker, subject.server(), names, processors.client, length)?;
    sampled.push((Measure::Alone, alone.p50, None));
    if let Some(rate) = rate {
        let half = ask::paced(&asker, subject.server(), names, processors.client, rate / 2.0, length)?;
        sampled.push((Measure::HalfMedian, half.p50, None));
        sampled.push((Measure::Half, half.p99, None));
    }
    subject.pin(None)?;
    Ok(sampled)
}

/// As many queries as are answered; how many a second over UDP.
fn rates(subject: &dyn Subject, perf: &Dnsperf, sampled: &mut Sampled, record: &mut Record) -> Result<f64> {
    let asker = &subject.askers()[0];
    let mut rate = 0.0;
    for (transport, measure) in [(Transport::Udp, Measure::Udp), (Transport::Tcp, Measure::Tcp)] {
        let before = subject.cpu()?;
        let queries = match perf.run(asker, subject.server(), transport) {
            Ok(queries) => queries,
            // Some close connections after a hundred queries, which dnsperf does not always bear.
            Err(error) if transport == Transport::Tcp => {
                record.note(format!("no figure for {} over TCP: {error:#}", subject.name()));
                continue;
            }
            Err(error) => return Err(error),
        };
        let used = subject.cpu()? - before;
        // Of a few ticks of the clock nothing can be said.
        let each = (used >= LEAST_TIME).then(|| used * 1e6 / queries.count.max(1.0));
        sampled.push((measure, queries.per_second / 1e3, each));
        if transport == Transport::Udp {
            rate = queries.per_second;
        }
    }
    Ok(rate)
}

fn flood(subject: &dyn Subject, perf: &Dnsperf, length: Duration, names: &[String]) -> Result<Sampled> {
    let [flooding, asking, ..] = subject.askers() else { return Ok(Vec::new()) };
    let seldom = || ask::seldom(asking, subject.server(), names, length);
    let quiet = seldom()?;
    let flood = perf.flood(flooding, subject.server())?;
    let during = seldom();
    drop(flood);
    let during = during?;
    Ok(vec![
        (Measure::QuietMedian, quiet.p50, None),
        (Measure::Quiet, quiet.p99, None),
        (Measure::FloodMedian, during.p50, None),
        (Measure::Flood, during.p99, None),
    ])
}
