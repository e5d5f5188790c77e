//! Checks by command: `sh -c` in the task's network namespace, with this node's files.
//!
//! A container's own shell would run with the daemon's rights and let the container out; hence the network namespace alone.

use std::{
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    runtime::Handle,
};

use super::probe::{Failure, in_namespace};
use crate::{LocalTask, ending::open_process};

/// How much of a command's output is kept.
const MAX_OUTPUT: usize = 4096;
/// What a pipe holds (pipe(7)).
const PIPE: usize = 64 * 1024;

/// A command's processes. They end with this value.
struct Running {
    child: Child,
    output: OwnedFd,
    group: Option<Pid>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_group();
    }
}

impl Running {
    /// Called while the first process is not reaped yet: the group's number is nobody else's.
    fn end_group(&mut self) {
        if let Some(group) = self.group.take() {
            // None is left: that is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs `text`; whatever it started is gone afterwards, also when this is dropped half-way.
pub(super) async fn run(task: &LocalTask, text: &str) -> Result<(), Failure> {
    let addresses: Vec<_> =
        task.attachments.iter().flat_map(|a| &a.addresses).map(|a| a.to_string()).collect();
    let environment = [
        ("MESH_TASK_ID", task.id.to_string()),
        ("MESH_TASK_NAME", task.name.to_string()),
        ("MESH_TASK_ADDRESS", addresses.first().cloned().unwrap_or_default()),
    ];
    let (text, runtime) = (text.to_owned(), Handle::current());
    let spawned = in_namespace(task, move || {
        let _runtime = runtime.enter();
        spawn(&text, environment)
    });
    let unable = |error: io::Error| Failure::Unable(format!("sh: {error}"));
    let running = spawned.await?.map_err(unable)?;
    let (status, output) = watch(running).await.map_err(unable)?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let outcome = status.code().map_or(status.to_string(), |code| format!("exit status {code}"));
    Err(Failure::Command { outcome, output: last.unwrap_or_default().to_owned() })
}

/// The child is in the namespaces of the calling thread.
fn spawn(text: &str, environment: [(&str, String); 3]) -> io::Result<Running> {
    let (output, written) = io::pipe()?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", text])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(written.try_clone()?)
        .stderr(written)
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Running { child, output: output.into(), group })
}

/// Waits for the first process, and reads what is written meanwhile so that nobody waits for a reader.
async fn watch(mut running: Running) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut written = pipe::Receiver::from_owned_fd(running.output.try_clone()?)?;
    let pid = running.child.id().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let process = open_process(pid)?;
    let mut output = Vec::new();
    let mut chunk = [0; 1024];
    let mut more = true;
    loop {
        tokio::select! {
            ended = process.readable() => {
                drop(ended?);
                break;
            }
            length = written.read(&mut chunk), if more => {
                more = keep(&mut output, &chunk[..length?]);
            }
        }
    }
    running.end_group();
    // As much as a pipe holds; who left the group may go on writing.
    for _ in 0..PIPE / chunk.len() {
        match written.try_read(&mut chunk) {
            Ok(length) if keep(&mut output, &chunk[..length]) => {}
            _ => break,
        }
    }
    Ok((running.child.wait().await?, output))
}

/// Keeps the end of what comes; false at its end.
fn keep(output: &mut Vec<u8>, chunk: &[u8]) -> bool {
    output.extend_from_slice(chunk);
    output.drain(..output.len().saturating_sub(MAX_OUTPUT));
    !chunk.is_empty()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn try_here(text: &str) -> (ExitStatus, String) {
        let running =
            spawn(text, [("A", "1".to_owned()), ("B", "x y".to_owned()), ("C", String::new())]).unwrap();
        let (status, output) = watch(running).await.unwrap();
        (status, String::from_utf8(output).unwrap())
    }

    /// What /proc tells of processes of this group that have not ended.
    fn group(pid: Pid) -> Vec<String> {
        let stats = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
        let of_group = |stat: &String| {
            let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[0] != "Z" && fields[2] == pid.as_raw_nonzero().to_string()
        };
        stats.filter(of_group).collect()
    }

    async fn wait_until_gone(pid: Pid) {
        for _ in 0..500 {
            if group(pid).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("left over: {:?}", group(pid));
    }

    #[tokio::test]
    async fn tells_status_and_output() {
        let (status, output) = try_here("echo $B; echo to stderr >&2; exit 3").await;
        assert_eq!((status.code(), output.as_str()), (Some(3), "x y\nto stderr\n"));
        assert!(try_here("true").await.0.success());
        // More than a pipe holds, and more than is kept.
        let (status, output) = try_here("head -c 300000 /dev/zero | tr '\\0' x; echo; echo the end").await;
        assert!(status.success() && output.ends_with("x\nthe end\n"), "{}", output.len());
        assert!(output.len() <= MAX_OUTPUT);
    }

    #[tokio::test]
    async fn nothing_outlives_a_command() {
        // It holds the pipe open.
        let running = spawn("sleep 1000 & exit 0", Default::default()).unwrap();
        let pid = running.group.unwrap();
        assert!(watch(running).await.unwrap().0.success());
        wait_until_gone(pid).await;
    }

    #[tokio::test]
    async fn nothing_outlives_a_check_that_is_given_up() {
        let running = spawn("sleep 1000 | sleep 1000; true", Default::default()).unwrap();
        let pid = running.group.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(300), watch(running)).await.is_err());
        wait_until_gone(pid).await;
    }
}
