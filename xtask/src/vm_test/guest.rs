//! What runs in the machine: tells the host, a line at a time, what the verifier said and what was seen.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mesh_tests::{
    Binaries, Cluster, Lifetime, Prefix, TestNet,
    verifier::{self, Verified},
    wait,
};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use super::{
    machine::{CARDS, is_ours},
    story::{self, Setting, Wire},
};
use crate::{
    command,
    findings::{Finding, Findings},
    progress::step,
};

/// Marks the lines that are for the host's program; all others are for people.
const MARK: &str = "@report ";
/// Where the findings of the verifier's test go, in the guest's memory.
const VERIFIED: &str = "/tmp/verified.json";
/// Where the bench program writes its results, in the guest's memory.
const MEASURED: &str = "/tmp/measured.json";
/// How long network cards may take from an ended namespace back to the machine's.
const RETURN: Duration = Duration::from_secs(10);

/// What the guest is to do, as a file that it reads.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Order {
    /// The test that loads all programs, if they are to be.
    pub verifier: Option<PathBuf>,
    /// The folder of meshd and meshctl, for the clusters; none: no clusters.
    pub binaries: Option<PathBuf>,
    /// Other tests, as programs, and the words for them.
    pub tests: Vec<(PathBuf, Vec<String>)>,
    /// The bench program and the words for it, instead of the clusters.
    pub bench: Option<(PathBuf, Vec<String>)>,
}

/// What the guest tells the host.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Its kernel's release.
    Kernel(String),
    /// What the verifier made of a program.
    Program(Verified),
    /// Something that was looked at.
    Finding(Finding),
    /// What benches measured: results and page.
    Measured([String; 2]),
    /// All is done.
    End,
}

impl Report {
    /// The report in a line of the guest; none in a line for people.
    pub fn in_line(line: &str) -> Result<Option<Self>> {
        let Some(text) = line.strip_prefix(MARK) else { return Ok(None) };
        serde_json::from_str(text).map(Some).with_context(|| format!("a report of the guest: {text}"))
    }

    fn send(&self) -> Result<()> {
        let line = serde_json::to_string(self).context("a report")?;
        writeln!(std::io::stdout(), "{MARK}{line}").context("the guest's terminal")
    }
}

/// Carries out the order in the file `order`.
pub fn run(order: &Path) -> Result<()> {
    let text = fs::read_to_string(order).with_context(|| format!("cannot read {}", order.display()))?;
    let order: Order = serde_json::from_str(&text).with_context(|| order.display().to_string())?;
    let kernel = uname().context("uname")?;
    Report::Kernel(kernel.release().to_string_lossy().into_owned()).send()?;
    let mut xdp = false;
    if let Some(verifier) = &order.verifier {
        tell(look("every program passes the verifier within the budget", || verify(verifier, &mut xdp)))?;
    }
    for (program, words) in &order.tests {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        tell(look(&format!("tests: {name} {}", words.join(" ")), || {
            test(program, words, order.binaries.as_deref())
        }))?;
    }
    if let Some((program, words)) = &order.bench {
        tell(look(&format!("benches: {}", words.join(" ")), || {
            bench(program, words, order.binaries.as_deref())
        }))?;
        return Report::End.send();
    }
    if let Some(folder) = &order.binaries {
        let binaries = Binaries::present(folder)?;
        for wire in [Wire::Veth, Wire::Cards] {
            for tagged in [false, true] {
                tell(cluster(Setting { wire, tagged, xdp }, &binaries))?;
            }
        }
    }
    Report::End.send()
}

fn look(what: &str, look: impl FnOnce() -> Result<String>) -> Findings {
    let mut findings = Findings::default();
    findings.look(what, look);
    findings
}

fn tell(findings: Findings) -> Result<()> {
    findings.all().iter().try_for_each(|finding| Report::Finding(finding.clone()).send())
}

/// Sets `xdp` when there is an XDP program.
fn verify(test: &Path, xdp: &mut bool) -> Result<String> {
    let mut command = Command::new(test);
    command.arg("--exact").arg("every_program_is_within_the_budget").env(verifier::FINDINGS, VERIFIED);
    let passed = mesh_tests::succeed(&mut command);
    let text = fs::read(VERIFIED);
    // Without findings the test's own words tell more.
    let Ok(text) = text else { return Err(passed.err().context("the verifier's test found nothing")?) };
    let found: Vec<Verified> = serde_json::from_slice(&text).with_context(|| VERIFIED)?;
    *xdp = found.iter().any(|program| program.kind == "xdp");
    let faults: Vec<String> = found.iter().filter_map(Verified::fault).collect();
    let count = found.len();
    found.into_iter().try_for_each(|program| Report::Program(program).send())?;
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    passed.map(|()| format!("{count} programs"))
}

/// Its output is for people, as it comes: emulated, tests that load programs take their time.
fn test(program: &Path, words: &[String], binaries: Option<&Path>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words);
    if let Some(folder) = binaries {
        command.env("MESHD_BINARIES", folder);
    }
    command::run(&mut command).map(|()| "passed".to_owned())
}

/// What was measured before something failed is reported too.
fn bench(program: &Path, words: &[String], binaries: Option<&Path>) -> Result<String> {
    let file = Path::new(MEASURED);
    let mut words = words.to_vec();
    words.extend(["--out".to_owned(), MEASURED.to_owned()]);
    let ran = test(program, &words, binaries);
    if file.exists() {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        // Without line breaks between its words it is shorter, and no less JSON.
        let results: serde_json::Value = serde_json::from_str(&read(file)?).context(MEASURED)?;
        Report::Measured([results.to_string(), read(&file.with_extension("html"))?]).send()?;
    }
    ran.map(|_| "measured".to_owned())
}

/// The main path in `setting`; what fails before anything can be looked at is a finding too.
fn cluster(setting: Setting, binaries: &Binaries) -> Findings {
    let mut findings = Findings::default();
    let start = || {
        step(&format!("{setting}: two nodes and a client, a meshd on each node"), || {
            let net = match setting.wire {
                Wire::Veth => TestNet::create(Prefix::unique(), 2)?,
                // Those of a namespace that has just ended are on their way back.
                Wire::Cards => TestNet::over_cards(Prefix::unique(), &wait("network cards", RETURN, cards)?)?,
            };
            if setting.tagged {
                net.tag(story::VLAN)?;
            }
            Cluster::daemons_on(net, binaries.clone(), Lifetime::Owner)
        })
    };
    let told = start().and_then(|cluster| {
        let told = story::tell(&cluster, setting, &mut findings);
        if told.is_err() || !findings.all_so() {
            // For people; the table has no room for logs.
            eprintln!("{:#}", cluster.explain(anyhow::anyhow!("the daemons' logs:")));
        }
        told
    });
    if let Err(error) = told {
        findings.push(Finding {
            what: format!("{setting}: the story"),
            seen: format!("{error:#}"),
            so: false,
        });
    }
    findings
}

/// The machine's network cards, in their order.
fn cards() -> Result<Vec<String>> {
    mesh_tests::succeed(Command::new("modprobe").arg("virtio_net"))?;
    let links = fs::read_dir("/sys/class/net").context("cannot read /sys/class/net")?;
    let mut cards: Vec<(String, String)> = links
        .flatten()
        .filter_map(|link| {
            let address = fs::read_to_string(link.path().join("address")).ok()?;
            let name = link.file_name().to_string_lossy().into_owned();
            is_ours(address.trim()).then(|| (address.trim().to_owned(), name))
        })
        .collect();
    cards.sort();
    if cards.len() != usize::from(CARDS) {
        bail!("of {CARDS} network cards there are: {cards:?}");
    }
    Ok(cards.into_iter().map(|(_, name)| name).collect())
}
