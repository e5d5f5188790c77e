//! meshd is killed after each call of Docker's and at each step of what it does then, dockerd too in between: once both are
//! back nothing is left, and the same container starts.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use mesh_tests::{Cluster, Docker, Inventory, Node, run, wait};

use super::{ADDRESSED, WEB, compose::reserved, curl, engines};

/// What Docker has forgotten is found within a minute (it looks three times a minute, and twice).
const FORGOTTEN: Duration = Duration::from_secs(120);
/// A call that Docker repeats until meshd answers, for 15 s, and what it does then.
const CALL: Duration = Duration::from_secs(90);

/// Docker's calls when a container starts, and then what the daemon does when its namespace is there.
const START: [&str; 10] = [
    "IpamDriver.RequestAddress",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.Join",
    "addresses",
    "link",
    "name server",
    "maps",
    "programs",
    "announced",
    "kept",
];
const END: [&str; 5] = [
    "withdrawn",
    "forgotten",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.ReleaseAddress",
];

/// What is there when no container is.
struct Before(Inventory);

impl Before {
    fn now(node: &Node) -> Result<Inventory> {
        // Docker's rules count packets.
        Ok(Inventory::of(node)?.without("firewall"))
    }

    fn again(&self, node: &Node, step: &str) -> Result<()> {
        wait(&format!("nothing to be left of what ended at {step:?}"), FORGOTTEN, || {
            let difference = self.0.difference(&Self::now(node)?);
            ensure!(difference.is_empty(), "{difference}");
            let (tasks, kept) = (super::tasks(node)?, reserved(node)?);
            ensure!(tasks.is_empty() && kept.is_empty(), "tasks {tasks:?}, addresses {kept:?}");
            let book = fs::read_to_string(node.state_folder().join("docker")).context("Docker's book")?;
            let book: serde_json::Value = serde_json::from_str(&book)?;
            ensure!(book["endpoints"].as_object().is_some_and(|all| all.is_empty()), "endpoints in {book}");
            Ok(())
        })
    }
}

/// Waits until a daemon of this process' has ended, without waiting for it as its parent would.
fn wait_for_end(pid: u32, step: &str) -> Result<()> {
    wait(&format!("meshd to end at {step:?}"), CALL, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
        ensure!(matches!(state, None | Some("Z" | "X")), "it goes on");
        Ok(())
    })
}

/// How the daemons come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// Docker was never away.
    Meshd,
    /// Both were, and meshd comes first.
    MeshdFirst,
    /// Docker does, which starts without waiting for its plugin.
    DockerFirst,
}

/// Has the command line of `docker` end meshd at `step`, and brings back what was killed; what Docker said.
fn killed_at(
    engine: &mut Docker,
    node: &Node,
    file: &Path,
    (step, words, back): (&str, &[&str], Back),
) -> Result<Result<String>> {
    let pid = node.pid()?;
    fs::write(file, step).context("the step's file")?;
    let mut command = engine.command(words)?;
    let call = thread::spawn(move || mesh_tests::output(&mut command));
    let ended = wait_for_end(pid, step);
    fs::remove_file(file).context("the step's file")?;
    ended?;
    node.kill()?;
    if back != Back::Meshd {
        engine.kill()?;
    }
    match back {
        Back::Meshd => engine.start_meshd_until(node, file)?,
        Back::MeshdFirst => {
            engine.start_meshd_until(node, file)?;
            engine.begin()?;
        }
        Back::DockerFirst => {
            engine.begin()?;
            engine.start_meshd_until(node, file)?;
        }
    }
    engine.record()?;
    call.join().map_err(|_| anyhow!("a thread panicked"))
}

fn start_words<'a>() -> Vec<&'a str> {
    let begin = ["run", "--detach", "--init=false", "--stop-timeout", "1", "--name", "c1"];
    let network = ["--network", "prod", "--publish", "9090:80", "--publish", "127.0.0.1:9091:80"];
    [&begin[..], &network, &["--label", "mesh.service=web", mesh_tests::Busybox::NAME], WEB].concat()
}

const REMOVE: [&str; 3] = ["rm", "--force", "c1"];

/// The container starts and answers at its ports.
fn start(engine: &Docker, cluster: &Cluster, step: &str) -> Result<()> {
    let what = || format!("after what ended at {step:?}");
    wait("the container to start", CALL, || {
        let _ = engine.run(&REMOVE);
        engine.run(&start_words()).map(drop)
    })
    .with_context(what)?;
    engine.record()?;
    for (from, url) in [
        (cluster.net().client(), format!("http://{}:9090/", cluster[0].address())),
        (&cluster.net().nodes()[0], "http://127.0.0.1:9091/".to_owned()),
    ] {
        wait("an answer", CALL, || curl(from, &url)).with_context(what)?;
    }
    Ok(())
}

fn story(starts: &[(&str, Back)], ends: &[(&str, Back)]) -> Result<()> {
    run(1, |cluster| {
        let mut engines = engines(cluster, ADDRESSED)?;
        let engine = engines.first_mut().context("an engine")?;
        let node = &cluster[0];
        let file = node.run_folder().join("step");
        node.kill()?;
        engine.start_meshd_until(node, &file)?;
        // Once through, so that what is made with the first task is there.
        start(engine, cluster, "nothing")?;
        engine.run(&REMOVE)?;
        wait("the last task to end", CALL, || {
            let (tasks, kept) = (super::tasks(node)?, reserved(node)?);
            ensure!(tasks.is_empty() && kept.is_empty(), "{tasks:?} {kept:?}");
            Ok(())
        })?;
        let before = Before(wait("rest", CALL, || {
            let first = Before::now(node)?;
            thread::sleep(Duration::from_secs(1));
            let difference = first.difference(&Before::now(node)?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(first)
        })?);

        for &(step, back) in starts {
            // Whatever Docker says of a start that was cut off: it may be repeated, and undone.
            let _ = killed_at(engine, node, &file, (step, &start_words(), back))?;
            wait("the container to be removed", CALL, || engine.run(&REMOVE))?;
            before.again(node, step)?;
            start(engine, cluster, step)?;
            engine.run(&REMOVE)?;
            before.again(node, step)?;
        }
        for &(step, back) in ends {
            start(engine, cluster, step)?;
            let _ = killed_at(engine, node, &file, (step, &REMOVE, back))?;
            wait("the container to be removed", CALL, || engine.run(&REMOVE))?;
            before.again(node, step)?;
        }
        Ok(())
    })
}

#[test]
fn meshd_ends_at_any_step() -> Result<()> {
    story(&START.map(|step| (step, Back::Meshd)), &END.map(|step| (step, Back::Meshd)))
}

/// What only one of them knew of is found when they are compared, which takes its time: three steps.
#[test]
fn both_daemons_end_while_a_container_starts() -> Result<()> {
    let starts = [
        ("NetworkDriver.CreateEndpoint", Back::DockerFirst),
        ("NetworkDriver.Join", Back::MeshdFirst),
        ("name server", Back::DockerFirst),
    ];
    story(&starts, &[])
}
