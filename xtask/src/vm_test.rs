//! The main job on another kernel: Debian's, in a virtual machine by software emulation, with this machine's programs
//! and files inside as read-only. Needs no root once the packages are there.

mod guest;
mod initramfs;
mod kernel;
mod machine;
mod story;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use mesh_tests::{Binaries, PATIENCE, interrupt, verifier::Verified};

pub use self::guest::run as run_guest;
use self::{
    guest::{Order, Report},
    kernel::Kernel,
    machine::{Machine, echo},
};
use crate::{
    command::workspace,
    compile,
    findings::{Finding, Findings},
    progress::step,
    setup, verifier_budget,
};

/// Called by the host, or inside through its files.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "busybox-static", "kmod"];
/// How many times longer than usual to wait inside.
const SLOWNESS: u32 = 6;
/// Seconds that benches may take, at least.
const BENCH: u64 = 3600;
/// What the kernel writes when something in it is wrong.
const TROUBLE: [&str; 6] =
    ["WARNING: ", "BUG: ", "Oops", "Kernel panic", "general protection", "refcount_t: "];

/// How to run it.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    machine: MachineOptions,
    /// Only load the programs: no clusters.
    #[arg(long)]
    verifier_only: bool,
    /// Use meshd and meshctl as they are built with optimizations.
    #[arg(long)]
    release: bool,
    /// Also run a test of mesh-tests, such as `datapath`, or of another package, such as `mesh-lb/kernel`. Can be given
    /// several times.
    #[arg(long, value_name = "[PACKAGE/]TEST")]
    test: Vec<String>,
    /// Only measure: the overlay and published ports beside peers that this machine's kernel may lack, IPVS and Docker
    /// Swarm's ingress. Figures mean something as ratios.
    #[arg(long, conflicts_with_all = ["verifier_only", "test"])]
    bench: bool,
    /// Passed on to these tests, such as a part of a test's name; with `--bench`, words for the bench instead of
    /// `datapath overlay published --rounds 3`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Which machine.
#[derive(Args, Clone)]
pub struct MachineOptions {
    /// Package of the kernel to boot, such as linux-image-6.1.0-56-amd64 [default: the one that is unpacked already,
    /// else the one that linux-image-amd64 depends on].
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
    /// What executes the machine: `tcg` is slow and works everywhere, `kvm` needs hardware that can.
    #[arg(long, default_value = "tcg")]
    accel: String,
    /// Seconds after which the machine is ended, whatever it does.
    #[arg(long, value_name = "SECONDS", default_value_t = 720)]
    at_most: u64,
}

/// What a machine told.
#[derive(Default)]
pub struct Told {
    /// Its kernel's release.
    pub kernel: String,
    /// What its verifier made of the programs.
    pub programs: Vec<Verified>,
    /// What was seen.
    pub findings: Findings,
    /// What was measured: results and page.
    pub measured: Option<[String; 2]>,
    ended: bool,
}

/// Runs everything; fails when anything was not as it should be.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    prepare()?;
    if options.bench {
        return bench(options);
    }
    let binaries = if options.verifier_only { None } else { Some(binaries(options.release)?) };
    let verifier = compile::test("mesh-tests", "verifier")?;
    let tests = options.test.iter().map(|test| {
        let (package, test) = test.split_once('/').unwrap_or(("mesh-tests", test));
        Ok((compile::test(package, test)?, options.words.clone()))
    });
    let tests = tests.collect::<Result<_>>()?;
    let order = Order { verifier: Some(verifier), binaries, tests, bench: None };
    let told = boot(&options.machine, &order)?;
    println!("\n{}", verifier_budget::table(&told.programs));
    println!("{}", told.findings.table());
    println!("kernel {}, {:.0} s", told.kernel, start.elapsed().as_secs_f64());
    if !told.findings.all_so() {
        bail!("not all of it was so on kernel {}", told.kernel);
    }
    Ok(())
}

/// Measures inside, and keeps the results on this machine.
fn bench(options: &Options) -> Result<()> {
    setup::peers()?;
    let binaries = Some(binaries(options.release)?);
    compile::packages(&["mesh-bench"], options.release)?;
    let built = workspace().join(if options.release { "target/release" } else { "target/debug" });
    let words = if options.words.is_empty() {
        // Few round trips: each is a thousand times slower than it would be outside.
        let usual = "datapath overlay published --rounds 3 --round-trips 500 --seconds 5";
        usual.split(' ').map(str::to_owned).collect()
    } else {
        options.words.clone()
    };
    let order = Order { binaries, bench: Some((built.join("mesh-bench"), words)), ..Order::default() };
    let at_most = options.machine.at_most.max(BENCH);
    let told = boot(&MachineOptions { at_most, ..options.machine.clone() }, &order)?;
    if let Some(measured) = &told.measured {
        keep(&told.kernel, measured)?;
    }
    println!("{}", told.findings.table());
    if !told.findings.all_so() {
        bail!("not all of it was measured on kernel {}", told.kernel);
    }
    Ok(())
}

/// Writes results and page beside those of this machine.
fn keep(kernel: &str, [results, page]: &[String; 2]) -> Result<()> {
    let folder = workspace().join("target/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    for (text, ending) in [(results, "json"), (page, "html")] {
        let file = folder.join(format!("vm-{kernel}-{since}.{ending}"));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("written: {}", file.display());
    }
    Ok(())
}

/// The folder of meshd and meshctl, built now unless `MESHD_BINARIES` names it.
fn binaries(release: bool) -> Result<PathBuf> {
    if let Some(given) = Binaries::given()? {
        let folder = given.meshd.parent().context("the folder of meshd")?;
        return folder.canonicalize().with_context(|| folder.display().to_string());
    }
    compile::binaries(release)?;
    Ok(workspace().join(if release { "target/release" } else { "target/debug" }))
}

/// Installs what a machine needs, as far as it is missing; without root, says how.
pub fn prepare() -> Result<()> {
    setup::packages(&PACKAGES)?;
    setup::run_quietly()
}

/// Only loads the programs with another kernel's verifier, by the test program `verifier`.
pub fn verify(machine: &MachineOptions, verifier: PathBuf) -> Result<Told> {
    boot(machine, &Order { verifier: Some(verifier), ..Order::default() })
}

/// Boots, lets the guest carry out `order`, and ends the machine.
fn boot(options: &MachineOptions, order: &Order) -> Result<Told> {
    interrupt::catch()?;
    let cache = workspace().join("target/vm");
    let kernel = step("Debian's kernel, unpacked below target/vm", || {
        Kernel::fetched(&cache, options.kernel.as_deref())
    })?;
    let folder = RunFolder::make(&cache)?;
    let file = folder.0.join("order.json");
    fs::write(&file, serde_json::to_vec(order).context("the order")?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let program = std::env::current_exe().context("where this program is")?;
    let word = |path: &Path| initramfs::quoted(&path.display().to_string());
    let command = format!("{PATIENCE}={SLOWNESS} {} vm-guest {}", word(&program), word(&file));
    let machine =
        Machine { kernel: &kernel, accelerator: &options.accel, command: &command, folder: &folder.0 };
    let mut told = Told::default();
    let mut problem = None;
    eprintln!("     booting {}", kernel.release);
    let ran = machine.run(Duration::from_secs(options.at_most), |line| match Report::in_line(line) {
        Ok(Some(report)) => told.note(report),
        Ok(None) => echo(line),
        Err(error) => problem = Some(error),
    });
    if let Some(error) = problem {
        return Err(error);
    }
    ran?;
    told.look_at_kernel_log(&machine.kernel_log())?;
    if !told.ended {
        let what = "the guest carries its order out to the end".to_owned();
        let seen = "it ended before; see above".to_owned();
        told.findings.push(Finding { what, seen, so: false });
    }
    Ok(told)
}

impl Told {
    fn note(&mut self, report: Report) {
        match report {
            Report::Kernel(release) => self.kernel = release,
            Report::Program(program) => self.programs.push(program),
            Report::Finding(finding) => self.findings.push(finding),
            Report::Measured(measured) => self.measured = Some(measured),
            Report::End => self.ended = true,
        }
    }

    /// A kernel that complains about itself has met a fault, of its own or by us.
    fn look_at_kernel_log(&mut self, log: &Path) -> Result<()> {
        let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let complaints: Vec<&str> =
            text.lines().filter(|line| TROUBLE.iter().any(|word| line.contains(word))).take(5).collect();
        let so = complaints.is_empty();
        let seen = if so { "none".to_owned() } else { complaints.join("\n") };
        self.findings.push(Finding { what: "warnings of the kernel".to_owned(), seen, so });
        Ok(())
    }
}

/// The folder of one run, below `target/vm`; removed at its end.
struct RunFolder(PathBuf);

impl RunFolder {
    const PREFIX: &str = "run-";

    /// Makes it, after removing what killed runs left.
    fn make(cache: &Path) -> Result<Self> {
        let entries = fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(Self::PREFIX);
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        let folder = cache.join(format!("{}{}", Self::PREFIX, std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
