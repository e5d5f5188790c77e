//! `meshctl run --service`: the process in front of a command that is to drain before it stops.
//!
//! The command is a child in a process group of its own, so that Ctrl-C reaches meshctl alone; one that reads from the
//! terminal is given the terminal then. It dies with meshctl, however that ends: see [`become_command`].

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode, id},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgrp, getppid, tcgetpgrp, tcsetpgrp},
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::{daemon::Daemon, drain, failure::Failure, stop_signal::StopSignal};

/// The word by which meshctl starts itself, to become the command. It is no verb: nobody else has a use for it.
const BECOME: &str = "become-command-of-parent";

/// What is asked to stop, and how.
pub struct Supervised {
    /// The daemon that drains.
    pub daemon: Daemon,
    /// The task's id.
    pub task: String,
    /// What the command then gets.
    pub stop: StopSignal,
}

/// What [`run`] starts meshctl with.
#[derive(Debug)]
pub struct BecomeArgs {
    /// The pid of the meshctl that started it.
    parent: Option<i32>,
    /// Command and its arguments.
    command: Vec<OsString>,
}

impl BecomeArgs {
    /// Those of this process; none when it is not one that [`run`] started.
    pub fn of_process() -> Option<Self> {
        let mut words = std::env::args_os().skip(1);
        if words.next()? != BECOME {
            return None;
        }
        let parent = words.next().and_then(|pid| pid.to_str()?.parse().ok());
        Some(Self { parent, command: words.collect() })
    }
}

/// Signals that are the command's.
const PASSED_ON: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH];

/// Runs the command until it ends; the exit code is its own, 128 and the number for one that a signal ended.
pub async fn run(task: &Supervised, program: &OsStr, arguments: &[OsString]) -> Result<ExitCode> {
    // Before there is a child: nothing that is sent to it must be missed.
    let mut ended = signal(SignalKind::child()).context("cannot watch the command")?;
    let mut signals = Signals::new().context("cannot watch for signals")?;
    let own = std::env::current_exe().context("cannot find meshctl itself")?;
    let mut child = Command::new(own);
    child.arg0("meshctl").arg(BECOME).arg(id().to_string());
    child.arg(program).args(arguments).process_group(0);
    let child = child.spawn().context("cannot start the command")?;
    let child = Pid::from_raw(i32::try_from(child.id()).context("the command's pid")?);

    let draining = drained(task);
    tokio::pin!(draining);
    let mut stops = 0;
    loop {
        tokio::select! {
            _ = ended.recv() => if let Some(code) = look(child)? { return Ok(code) },
            sent = signals.next() => match sent {
                Signal::SIGTERM | Signal::SIGINT if stops < 2 => {
                    stops += 1;
                    if stops == 2 {
                        send(child, task.stop.0);
                    }
                }
                other => send(child, other),
            },
            () = &mut draining, if stops == 1 => {
                send(child, task.stop.0);
                // Whatever comes now is for the command.
                stops = 2;
            }
        }
    }
}

/// Drains the task. What hinders that is told, and does not keep the command from stopping.
async fn drained(task: &Supervised) {
    let done = match drain::begin(&task.daemon, &task.task, None).await {
        Ok(draining) => drain::finished(&task.daemon, draining).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(task) => drain::note(&task),
        Err(error) => anstream::eprintln!("meshctl: the task stops without being drained: {error}"),
    }
}

/// What has become of the child: its exit code, when it has ended.
fn look(child: Pid) -> Result<Option<ExitCode>> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Some(code_of(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(code_of(128 + signal as i32))),
            Ok(WaitStatus::Stopped(_, Signal::SIGTTIN | Signal::SIGTTOU)) => give_terminal(child),
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the command"),
        }
    }
}

/// The command wants to read from the terminal: from now on it is the one in front there, Ctrl-C included.
fn give_terminal(child: Pid) {
    let terminal = io::stdin();
    if tcgetpgrp(&terminal) == Ok(getpgrp()) && tcsetpgrp(&terminal, child).is_ok() {
        send(child, Signal::SIGCONT);
    }
}

fn code_of(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn send(child: Pid, signal: Signal) {
    // It may have ended a moment ago, which is told soon.
    let _ = kill(child, signal);
}

struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    fn new() -> io::Result<Self> {
        let all = PASSED_ON.into_iter().chain([Signal::SIGTERM, Signal::SIGINT]);
        all.map(|one| Ok((one, signal(SignalKind::from_raw(one as i32))?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let ready =
                |(signal, stream): &mut (Signal, Stream)| stream.poll_recv(cx).is_ready().then_some(*signal);
            self.0.iter_mut().find_map(ready).map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// In the child: ties it to its parent's life, then becomes the command. Returns only when that fails.
pub fn become_command(args: &BecomeArgs) -> Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the command to meshctl")?;
    // The parent may have ended before the line above.
    if args.parent != Some(getppid().as_raw()) {
        return Ok(ExitCode::FAILURE);
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::Usage("no command given".to_owned()).into());
    };
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::Exec { command: program.to_string_lossy().into_owned(), cause: error.kind() }.into())
}
