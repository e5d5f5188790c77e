//! A run: suite after suite, whatever becomes of one; then what was measured is told and kept.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mesh_tests::interrupt;

use crate::{
    attach, cni, control, datapath, dns, idle, loss,
    record::{self, Record, Suite, compare},
    seeing,
};

/// What runs when nothing is named.
const USUAL: [Suite; 6] =
    [Suite::Programs, Suite::Overlay, Suite::Mesh, Suite::Dns, Suite::Control, Suite::Attach];

/// A run of several suites.
#[derive(Args)]
pub struct Several {
    /// Only these suites, also ones that are not run otherwise: cni, docker, idle, loss, seeing. Several with commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SUITE")]
    only: Vec<Suite>,
    /// Little of everything: shows that it works, says hardly more.
    #[arg(long)]
    quick: bool,
    /// Rounds; each measures everything that is compared once. Five unless given, with `--quick` one.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// What becomes of what was measured.
#[derive(Args)]
pub struct Telling {
    /// Tell what changed since an earlier run, of which this is the file.
    #[arg(long, global = true, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Where the results are written to as JSON, and beside it the page, as `.html` [default: target/bench/DATE.json].
    #[arg(long, global = true, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What is printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables.
    Text,
    /// What is written to the file.
    Json,
}

/// One part of a run.
pub struct Job<'a> {
    /// For people.
    pub title: &'static str,
    /// Whether it makes namespaces and loads programs.
    pub needs_root: bool,
    /// Measures.
    pub work: Work<'a>,
}

/// Adds to the record what it measures.
pub type Work<'a> = Box<dyn Fn(&mut Record) -> Result<()> + 'a>;

impl<'a> Job<'a> {
    /// One that needs root.
    pub fn of_root(title: &'static str, work: impl Fn(&mut Record) -> Result<()> + 'a) -> Self {
        Self { title, needs_root: true, work: Box::new(work) }
    }
}

impl Several {
    /// Refuses to be given beside a suite's own options.
    pub fn unused(&self) -> Result<()> {
        let unused = self.only.is_empty() && !self.quick && self.rounds.is_none();
        ensure!(
            unused,
            "--only, --quick and --rounds before a suite's name are for a run of several suites; a suite's own options stand behind its name"
        );
        Ok(())
    }

    /// The parts of the run.
    pub fn jobs(&self) -> Vec<Job<'static>> {
        let (quick, rounds) = (self.quick, self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1));
        let wanted =
            |suite| if self.only.is_empty() { USUAL.contains(&suite) } else { self.only.contains(&suite) };
        let mut jobs = Vec::new();
        let groups: Vec<datapath::Group> =
            datapath::Group::ALL.into_iter().filter(|group| wanted(group.suite())).collect();
        if !groups.is_empty() {
            let options = datapath::Options::of(groups, rounds, quick);
            jobs.push(Job::of_root("the data path", move |record| datapath::run(&options, record)));
        }
        if wanted(Suite::Dns) {
            let options = dns::Options::of(rounds, quick);
            jobs.push(Job::of_root("names", move |record| dns::run(&options, record)));
        }
        if wanted(Suite::Control) {
            jobs.extend(control::jobs(control::Options::of(rounds, quick)));
        }
        if wanted(Suite::Attach) {
            let options = attach::Options::of(rounds, quick);
            jobs.push(Job::of_root("attach", move |record| attach::run(&options, record)));
        }
        for (suite, part) in [(Suite::Cni, cni::Part::Plugins), (Suite::Docker, cni::Part::Docker)] {
            if wanted(suite) {
                let options = cni::Options::of(part, rounds, quick);
                jobs.push(Job::of_root(suite.title(), move |record| cni::run(&options, record)));
            }
        }
        if wanted(Suite::Idle) {
            let options = idle::Options::of(quick);
            jobs.push(Job::of_root("idle", move |record| idle::run(&options, record)));
        }
        if wanted(Suite::Loss) {
            let options = loss::Options::of(rounds);
            jobs.push(Job::of_root("loss", move |record| loss::run(&options, record)));
        }
        if wanted(Suite::Seeing) {
            let options = seeing::Options::of(rounds, quick);
            jobs.push(Job::of_root("seeing", move |record| seeing::run(&options, record)));
        }
        jobs
    }

    /// Whether little is measured.
    pub fn quick(&self) -> bool {
        self.quick
    }
}

impl Telling {
    /// Does the jobs and tells of them. Fails when one failed, after the others.
    pub fn run(&self, jobs: &[Job<'_>], quick: bool) -> Result<()> {
        // Before minutes are spent.
        let old = self.compare.as_deref().map(Record::read).transpose()?;
        let mut record = Record::begin(commit(), quick)?;
        if record.machine.load > record.machine.processors as f64 / 2.0 {
            let busy = format!("the machine was busy when this began: load {:.1}", record.machine.load);
            eprintln!("{busy}");
            record.note(busy);
        }
        let failed = work(jobs, &mut record, nix::unistd::geteuid().is_root());
        if !record.figures.is_empty() {
            self.tell(&record, old.as_ref())?;
        }
        interrupt::check()?;
        ensure!(failed.is_empty(), "not measured, or not whole: {}; see above", failed.join(", "));
        ensure!(!record.figures.is_empty(), "nothing was measured");
        Ok(())
    }

    fn tell(&self, record: &Record, old: Option<&Record>) -> Result<()> {
        let comparison = old.map(|old| compare(old, record));
        match self.format {
            Format::Json => {
                println!("{}", serde_json::to_string_pretty(record).context("the results as JSON")?);
            }
            Format::Text => {
                print!("{}", record::text(record));
                if let Some(comparison) = &comparison {
                    print!("\nWhat changed\n\n{}", record::changes(comparison));
                }
            }
        }
        // Half of a run would be taken for a whole one.
        if interrupt::check().is_ok() {
            let file = match &self.out {
                Some(file) => file.clone(),
                None => usual_file(record)?,
            };
            record.write(&file)?;
            let page = file.with_extension("html");
            record::write(&page, &record::page(record, comparison.as_ref()))?;
            eprintln!("written: {}, {}", file.display(), page.display());
        }
        Ok(())
    }
}

/// Does what can be done; the titles of what failed.
fn work(jobs: &[Job<'_>], record: &mut Record, root: bool) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for job in jobs {
        let done = match interrupt::check() {
            Err(interrupted) => Err(interrupted),
            Ok(()) if job.needs_root && !root => Err(anyhow::anyhow!(
                "network namespaces and programs in the kernel need root; the rest goes on"
            )),
            Ok(()) => (job.work)(record),
        };
        if let Err(error) = done {
            let note = format!("{}: {error:#}", job.title);
            eprintln!("{note}");
            record.note(note);
            failed.push(job.title);
        }
        if interrupt::check().is_err() {
            break;
        }
    }
    failed
}

fn usual_file(record: &Record) -> Result<PathBuf> {
    let name = record::file_name(&record.date).context("the date of the results")?;
    Ok(workspace().join("target/bench").join(format!("{name}.json")))
}

fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// What git says of the sources; empty where there is no git.
fn commit() -> String {
    let mut git = std::process::Command::new("git");
    // Others may be at work there: nothing is locked.
    git.arg("--no-optional-locks").arg("-C").arg(workspace()).args(["describe", "--always", "--dirty"]);
    let said = git.output().ok().filter(|output| output.status.success());
    said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Two files of results.
#[derive(Args)]
pub struct Files {
    /// The earlier run.
    old: PathBuf,
    /// The later run.
    new: PathBuf,
}

impl Files {
    /// Prints what changed, and writes the page of the later run with that.
    pub fn compare(&self) -> Result<()> {
        let (old, new) = (Record::read(&self.old)?, Record::read(&self.new)?);
        let comparison = compare(&old, &new);
        print!("{}", record::changes(&comparison));
        let page = self.new.with_extension("html");
        if page == self.new {
            bail!("{}: results are no page", page.display());
        }
        record::write(&page, &record::page(&new, Some(&comparison)))?;
        eprintln!("written: {}", page.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Better, Figure};

    fn measured(record: &mut Record) -> Result<()> {
        record.alone(Figure::new(Suite::Control, "k", "t", "ms", Better::Lower), 1.0);
        Ok(())
    }

    #[test]
    fn one_that_fails_does_not_stop_the_others() {
        let jobs = [
            Job::of_root("first", |_| bail!("no peer")),
            Job { title: "second", needs_root: false, work: Box::new(measured) },
        ];
        for (root, why) in [(true, "no peer"), (false, "need root")] {
            let mut record = Record::begin(String::new(), true).unwrap();
            assert_eq!(work(&jobs, &mut record, root), ["first"]);
            assert_eq!(record.figures.len(), 1);
            assert!(record.notes[0].contains(why), "{:?}", record.notes);
        }
    }

    #[test]
    fn suites_are_chosen() {
        let titles = |only: &[Suite]| -> Vec<&'static str> {
            let several = Several { only: only.to_vec(), quick: true, rounds: None };
            several.jobs().iter().map(|job| job.title).collect()
        };
        assert_eq!(titles(&[]), ["the data path", "names", "managers", "a large state", "attach"]);
        assert_eq!(titles(&[Suite::Mesh]), ["the data path"]);
        assert_eq!(titles(&[Suite::Cni, Suite::Idle]), ["CNI plugin", "idle"]);
    }

    #[test]
    fn the_usual_place_is_named_after_the_date() {
        let mut record = Record::begin(String::new(), true).unwrap();
        record.date = "2026-11-21T23:59:01Z".to_owned();
        assert!(usual_file(&record).unwrap().ends_with("target/bench/2026-11-21T23-59-01.json"));
    }
}
