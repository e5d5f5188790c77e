//! `meshctl systemd-attach` and `meshctl systemd-detach`: services of systemd as tasks.
//!
//! Two files do it ([`units`]): a unit that makes a network namespace and the task in it, and a drop-in by which the
//! service starts in there. systemd keeps them together: the namespace is there before the service starts, at boot too,
//! and goes after it has stopped. Nothing runs beside the service, so that nothing can die and take its network along.

mod given;
mod netns;
mod units;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::{context::Context, failure::Failure, output, report::Cluster};

use given::Given;
pub use netns::{Args as NetnsArgs, run};
use units::{Unit, Wishes};

/// Where the machine's owner puts units.
const UNIT_DIR: &str = "/etc/systemd/system";
/// Where units are until the next boot.
const RUNTIME_DIR: &str = "/run/systemd/system";
/// There where systemd runs (sd_booted(3)).
const BOOTED: &str = RUNTIME_DIR;

/// Put a service of systemd into networks, from its next start on
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl systemd-attach --network prod redis
  meshctl systemd-attach --service web --name web.1 nginx.service
  meshctl systemd-attach --network prod --ip 10.10.3.9 postgresql@15-main
  meshctl systemd-attach --service web --print nginx          only show the files
  systemctl restart nginx

It writes a drop-in for the unit, and a unit meshd-netns-UNIT.service that makes its network namespace before it starts, at
boot too, and removes it afterwards. When meshd restarts, the service's connections stay. With --service, `systemctl stop` and
`restart` first take the task out of its service and let its connections end, for no longer than its drain timeout; keep that
below the unit's TimeoutStopSec. Sockets that systemd opens for the service (.socket units) stay outside of its namespace.
`meshctl systemd-detach UNIT` takes all of it back.")]
pub struct AttachArgs {
    #[command(flatten)]
    task: Given,
    /// Print the files instead of writing them
    #[arg(long)]
    print: bool,
    /// Where to write them; systemd is told to read them anew only if that is its own folder
    #[arg(long, value_name = "DIR", default_value = UNIT_DIR)]
    unit_dir: PathBuf,
    /// The service's unit; .service may be left out
    #[arg(value_name = "UNIT")]
    unit: Unit,
}

/// Have a service of systemd use the node's own network again, from its next start on
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl systemd-detach nginx
  systemctl restart nginx")]
pub struct DetachArgs {
    /// Where the files were written
    #[arg(long, value_name = "DIR", default_value = UNIT_DIR)]
    unit_dir: PathBuf,
    /// The service's unit; .service may be left out
    #[arg(value_name = "UNIT")]
    unit: Unit,
}

#[derive(Serialize)]
struct Report {
    unit: String,
    /// Those written, or removed.
    files: Vec<PathBuf>,
}

/// Writes the files and has systemd read them. Needs no daemon; one that is there is asked for what is named.
pub fn attach(args: &AttachArgs, context: &Context) -> Result<()> {
    let what = || format!("cannot attach {}", args.unit);
    args.task.check().with_context(what)?;
    let program = std::env::current_exe().context("cannot find meshctl itself").with_context(what)?;
    let wishes = Wishes {
        program: &program,
        socket: context.other_socket(),
        words: &args.task.words,
        drains: args.task.has_service(),
    };
    let files = args.unit.files(&args.unit_dir, &wishes).with_context(what)?;
    if args.print {
        let text: Vec<_> = files.iter().map(|(path, text)| format!("# {}\n{text}", path.display())).collect();
        return output::print(&text.join("\n"));
    }
    context.runtime()?.block_on(look_up(&args.task, context)).with_context(what)?;
    for (path, text) in &files {
        write(path, text).with_context(what)?;
    }
    reload(&args.unit_dir)?;
    let files = files.into_iter().map(|(path, _)| path).collect();
    let unit = args.unit.to_string();
    if is_systemds(&args.unit_dir) && !is_known(&unit) {
        anstream::eprintln!("meshctl: systemd knows no unit {unit} so far");
    }
    context.show(&Report { unit, files }, |report| {
        format!("{0} joins at its next start: `systemctl restart {0}`", report.unit)
    })
}

/// Removes the files and has systemd forget them. Needs no daemon.
pub fn detach(args: &DetachArgs, context: &Context) -> Result<()> {
    let what = || format!("cannot detach {}", args.unit);
    let mut gone = Vec::new();
    if is_systemds(&args.unit_dir) && is_active(&args.unit.helper()) {
        leave_until_stopped(args).with_context(what)?;
    }
    for path in args.unit.paths(&args.unit_dir) {
        match fs::remove_file(&path) {
            Ok(()) => gone.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", path.display()))
                    .with_context(what);
            }
        }
    }
    if gone.is_empty() {
        bail!("{}: it was not attached by `meshctl systemd-attach`", what());
    }
    // Others may have drop-ins there.
    let _ = fs::remove_dir(args.unit.drop_in_dir(&args.unit_dir));
    reload(&args.unit_dir)?;
    context.show(&Report { unit: args.unit.to_string(), files: gone }, |report| {
        format!("{0} leaves at its next start: `systemctl restart {0}`", report.unit)
    })
}

/// A misspelled name is better told now than at the next boot.
async fn look_up(task: &Given, context: &Context) -> Result<()> {
    let Ok(daemon) = context.daemon().await else { return Ok(()) };
    let Ok(cluster) = Cluster::fetch(&daemon).await else { return Ok(()) };
    for network in task.values("--network=") {
        cluster.view.network(network)?;
    }
    for service in task.values("--service=") {
        cluster.view.service(service)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    match folder.and_then(|()| fs::write(path, text)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Failure::NeedsRoot("writing units of systemd").into())
        }
        written => written.with_context(|| format!("cannot write {}", path.display())),
    }
}

/// The service runs: systemd has to know how its namespace is taken away when it stops.
fn leave_until_stopped(args: &DetachArgs) -> Result<()> {
    let texts = args.unit.paths(&args.unit_dir).map(fs::read_to_string);
    let [Ok(helper), Ok(drop_in)] = &texts else { return Ok(()) };
    let left = units::until_stopped(&args.unit, helper, drop_in);
    args.unit.paths(Path::new(RUNTIME_DIR)).iter().zip(&left).try_for_each(|(path, text)| write(path, text))
}

fn is_active(unit: &str) -> bool {
    let asked = Command::new("systemctl").args(["is-active", "--quiet", unit]).status();
    asked.is_ok_and(|status| status.success())
}

/// Whether there is a unit of that name: what is written beside it makes none. One that cannot be asked for is taken to be there.
fn is_known(unit: &str) -> bool {
    let asked = Command::new("systemctl").args(["show", "--property=LoadState", "--value", unit]).output();
    !asked.is_ok_and(|told| told.stdout.starts_with(b"not-found"))
}

fn is_systemds(unit_dir: &Path) -> bool {
    unit_dir.as_os_str() == UNIT_DIR && Path::new(BOOTED).is_dir()
}

/// Where systemd does not run, it reads the files when it starts.
fn reload(unit_dir: &Path) -> Result<()> {
    if !is_systemds(unit_dir) {
        return Ok(());
    }
    let status = Command::new("systemctl").arg("daemon-reload").status().context("cannot run systemctl")?;
    if status.success() { Ok(()) } else { bail!("`systemctl daemon-reload` failed: {status}") }
}
