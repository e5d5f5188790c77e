//! `meshctl systemd-netns`: what the units call. It makes a network namespace and a task in it, and takes both back.
//!
//! Both are idempotent: systemd may have been interrupted anywhere.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mesh_api::v1::{DetachRequest, DrainState, GetTaskRequest, attach_request::Namespace};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::{FsType, statfs},
};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    context::Context,
    daemon::{Daemon, answer},
    failure::Failure,
    task_options::TaskOptions,
};

/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/run/netns";
/// What is beside them.
const FILES: &str = "/run/meshd-netns";
/// Of files that stand for namespaces (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// Pause before the daemon is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a daemon may be away: less than the unit's TimeoutStartSec.
const PATIENCE: Duration = Duration::from_secs(90);
const NONE: Option<&str> = None;

/// Make or remove the network namespace of a unit; called by units that `meshctl systemd-attach` writes
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the namespace and the task; keep them if they are there and take connections
    #[command(after_help = "Examples:\n  meshctl systemd-netns up --network prod redis")]
    Up {
        #[command(flatten)]
        task: Box<TaskOptions>,
        /// The unit's name
        #[arg(value_name = "NAME")]
        unit: String,
    },
    /// End the task, remove the namespace
    #[command(after_help = "Examples:\n  meshctl systemd-netns down redis")]
    Down {
        /// The unit's name
        #[arg(value_name = "NAME")]
        unit: String,
    },
}

/// Where the namespace of a unit is.
pub fn path(name: &str) -> PathBuf {
    Path::new(NAMED).join(format!("meshd-{name}"))
}

/// What the unit has for `/etc/resolv.conf`.
pub fn resolv_conf(name: &str) -> PathBuf {
    Path::new(FILES).join(name).join("resolv.conf")
}

/// Does it.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    match args.command {
        Command::Up { task, unit } => up(*task, &unit, context).await,
        Command::Down { unit } => down(&unit, context).await,
    }
}

async fn up(task: TaskOptions, name: &str, context: &Context) -> Result<()> {
    let what = || format!("cannot make the network of {name}");
    task.check().with_context(what)?;
    let path = path(name);
    make(&path).with_context(what)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match attach(&task, name, context).await {
            // After a boot, or while it is replaced, the daemon is not there yet.
            Err(error) if may_pass(&error) && Instant::now() < end => sleep(PAUSE).await,
            done => return done.with_context(what),
        }
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable { cause, .. }) => *cause != io::ErrorKind::PermissionDenied,
        Some(Failure::Lost | Failure::Silent(_)) => true,
        Some(Failure::Refused { code, .. }) => *code == Code::Unavailable,
        _ => false,
    }
}

async fn attach(task: &TaskOptions, name: &str, context: &Context) -> Result<()> {
    let path = path(name).to_string_lossy().into_owned();
    let daemon = context.daemon().await?;
    let request = GetTaskRequest { reference: path.clone(), ..GetTaskRequest::default() };
    match answer(daemon.local().get_task(request)).await {
        Ok(there) if there.drain() == DrainState::Unspecified && resolv_conf(name).exists() => return Ok(()),
        Ok(_) => end_task(&daemon, path.clone()).await?,
        Err(Failure::Refused { code: Code::NotFound, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let request = task.clone().request(Namespace::Path(path));
    let attached = answer(daemon.local().attach(request)).await?;
    let file = resolv_conf(name);
    let folder = file.parent().unwrap_or(Path::new(FILES));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&file, &attached.resolv_conf).with_context(|| format!("cannot write {}", file.display()))
}

/// Goes on past what fails, and tells the first of it.
async fn down(name: &str, context: &Context) -> Result<()> {
    let what = || format!("cannot remove the network of {name}");
    let path = path(name);
    let ended = match context.daemon().await {
        Ok(daemon) => end_task(&daemon, path.to_string_lossy().into_owned()).await,
        // It finds the namespace gone when it is back.
        Err(_) => Ok(()),
    };
    let removed = remove(&path);
    let file = resolv_conf(name);
    let cleared = file.parent().map_or(Ok(()), fs::remove_dir_all);
    let cleared =
        cleared.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
    let cleared = cleared.with_context(|| format!("cannot remove {}", file.display()));
    ended.and(removed).and(cleared).with_context(what)
}

/// One that is not there has ended.
async fn end_task(daemon: &Daemon, reference: String) -> Result<()> {
    let request = DetachRequest { reference, ..DetachRequest::default() };
    match answer(daemon.local().detach(request)).await {
        Ok(_) | Err(Failure::Refused { code: Code::NotFound, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a namespace at `path`, as `ip netns add` does, unless there is one.
fn make(path: &Path) -> Result<()> {
    if is_namespace(path) {
        return Ok(());
    }
    share(Path::new(NAMED))?;
    // What is left of an interrupted attempt is replaced.
    remove(path)?;
    File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    let target = path.to_owned();
    let made = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &target, NONE, MsFlags::MS_BIND, NONE)
    });
    let made = made.join().unwrap_or(Err(Errno::UnknownErrno));
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    match made {
        Err(Errno::EPERM) => Err(Failure::NeedsRoot("making a network namespace").into()),
        made => made.with_context(|| format!("cannot make a network namespace at {}", path.display())),
    }
}

/// Has what is mounted there reach all mount namespaces, the daemon's among them.
fn share(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let shared = || mount(NONE, folder, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    let done = match shared() {
        // Not a mount yet.
        Err(Errno::EINVAL) => mount(Some(folder), folder, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .and_then(|()| shared()),
        done => done,
    };
    match done {
        Err(Errno::EPERM) => Err(Failure::NeedsRoot("making a network namespace").into()),
        done => done.with_context(|| format!("cannot share {}", folder.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    let what = || format!("cannot remove {}", path.display());
    while is_namespace(path) {
        umount2(path, MntFlags::MNT_DETACH).with_context(what)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(what),
        _ => Ok(()),
    }
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == FsType(NSFS_MAGIC as _))
}
