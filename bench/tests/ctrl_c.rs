//! A run that is ended by Ctrl-C leaves nothing, and no file that would be taken for a whole run's.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lifetime, PATIENCE, Process, lines_of, wait};
use nix::sys::signal::Signal;

#[test]
fn ctrl_c_leaves_nothing() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("mesh-bench-ctrl-c-{}", std::process::id()));
    fs::create_dir_all(folder.join("pids"))?;
    let ended = end_early(&folder);
    fs::remove_dir_all(&folder)?;
    ended
}

fn end_early(folder: &Path) -> Result<()> {
    let (log, out) = (folder.join("log"), folder.join("out.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-bench"));
    // A cluster, a Docker engine with containers, and dnsmasq if it is there.
    command.args(["dns", "compare", "--rounds", "1000", "--out"]).arg(&out);
    let mut bench = Process::start(command, Lifetime::Owner, &log, &folder.join("pids"))?;
    let ours = format!("mt{}-", bench.pid());
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait("the first round", Duration::from_secs(60), || {
        ensure!(bench.ended()?.is_none(), "it ended: {}", said());
        ensure!(said().contains("round 1 of 1000"), "{}", lines_of(&log, 3));
        Ok(())
    })?;
    ensure!(left(&ours)?.len() > 3, "of a running bench only {:?} is seen", left(&ours)?);
    bench.signal(Signal::SIGINT)?;
    let patience = std::env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    let status = bench.wait(Duration::from_secs(60) * patience)?;
    ensure!(status.code() == Some(1), "{status}: {}", said());
    ensure!(said().contains("interrupted"), "{}", said());
    ensure!(!out.exists(), "half a run was written");
    // Namespaces that the kernel is still taking down are gone from here at once; containers' shims end by themselves.
    wait("nothing to be left", Duration::from_secs(20), || {
        let left = left(&ours)?;
        ensure!(left.is_empty(), "{left:?}: {}", said());
        Ok(())
    })
}

/// Namespaces, folders, pins, processes and mounts whose names have `ours` in them.
fn left(ours: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for folder in ["/run/netns", "/run/meshd-tests", "/sys/fs/bpf"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path().display().to_string();
            left.extend(path.contains(ours).then_some(path));
        }
    }
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        left.extend(words.contains(ours).then_some(words));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("mounts")?;
    left.extend(mounts.lines().filter(|line| line.contains(ours)).map(str::to_owned));
    Ok(left)
}
