//! Several managers: they are made and unmade, killed, stopped and cut off, and their disks damaged. What was
//! acknowledged stays, and packets flow.

#[path = "managers/changed_bits.rs"]
mod changed_bits;
#[path = "managers/clocks.rs"]
mod clocks;
#[path = "managers/locked.rs"]
mod locked;
#[path = "managers/slow.rs"]
mod slow;
#[path = "managers/versions.rs"]
mod versions;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mesh_tests::{
    Binaries, Cluster, Lifetime, Load, NetNs, Nginx, Node, Prefix, TaskSpec, get, run, succeed, wait,
};

/// What comes about by itself within seconds, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// How long one attempt at a change may take: a daemon that is stopped does not answer.
const ATTEMPT: &str = "12";

/// `node ls` of a manager, by name: role and how it stands.
fn nodes(of: &Node) -> Result<Vec<(String, String, Option<String>)>> {
    let nodes = of.ctl_json(&["node", "ls"])?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let nodes = nodes.as_array().context("`node ls` is no list")?;
    nodes
        .iter()
        .map(|node| {
            let name = text(&node["name"]).context("a node has no name")?;
            Ok((name, text(&node["role"]).context("a node has no role")?, text(&node["manager_status"])))
        })
        .collect()
}

fn standing(of: &Node, name: &str) -> Result<Option<String>> {
    let found = nodes(of)?.into_iter().find(|(node, ..)| node == name);
    Ok(found.with_context(|| format!("no node {name}"))?.2)
}

/// Waits until the managers of `names`, and no others, vote and can be reached, as `of` sees it.
fn wait_for_managers(of: &Node, names: &[&str]) -> Result<()> {
    wait("the managers to vote", SOON, || {
        let nodes = nodes(of)?;
        for (name, role, standing) in &nodes {
            let good = match names.contains(&name.as_str()) {
                true => role == "manager" && matches!(standing.as_deref(), Some("leader" | "reachable")),
                false => role == "worker" && standing.is_none(),
            };
            ensure!(good, "{name}: {role}, {standing:?}");
        }
        ensure!(nodes.iter().any(|(_, _, standing)| standing.as_deref() == Some("leader")), "nobody leads");
        Ok(())
    })
}

fn leader(of: &Node) -> Result<String> {
    wait("a leader", SOON, || {
        let leads = nodes(of)?.into_iter().find(|(_, _, standing)| standing.as_deref() == Some("leader"));
        Ok(leads.context("nobody leads")?.0)
    })
}

/// A cluster whose first `managers` nodes are managers.
fn start(count: u8, managers: usize) -> Result<Cluster> {
    let cluster = Cluster::daemons(Prefix::unique(), count, Binaries::find()?, Lifetime::Owner)?;
    let formed = cluster.form().and_then(|()| {
        let names: Vec<String> = (0..managers).map(|index| cluster[index].name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if managers > 1 {
            cluster[0].ctl(&[&["node", "promote"], &names[1..]].concat())?;
        }
        wait_for_managers(&cluster[0], &names)
    });
    match formed {
        Ok(()) => Ok(cluster),
        Err(error) => Err(cluster.explain(error)),
    }
}

fn told(cluster: Cluster, story: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    story(&cluster).map_err(|error| cluster.explain(error))
}

/// Tries to make a network; whether that was acknowledged. A daemon that hangs is not waited for.
fn create(node: &Node, name: &str) -> Result<bool> {
    let meshctl = node.meshctl()?;
    let mut command = node.command("timeout")?;
    command.arg(ATTEMPT).arg(meshctl.get_program()).args(["--socket".as_ref(), node.socket().as_os_str()]);
    command.args(["network", "create", "--attachable", name]);
    Ok(command.output().context("cannot run meshctl")?.status.success())
}

/// Makes a network by any of `nodes`; the first that does it ends the attempts.
fn create_by_any(nodes: &[&Node], name: &str, number: &mut usize) -> Result<String> {
    wait("a change to be decided", SOON, || {
        for node in nodes {
            *number += 1;
            // Another name each time: an attempt that failed may have happened all the same.
            let name = format!("{name}-{number}");
            if create(node, &name)? {
                return Ok(name);
            }
        }
        bail!("no manager decides")
    })
}

fn networks(of: &Node) -> Result<Vec<String>> {
    let networks = of.ctl_json(&["network", "ls"])?;
    let networks = networks.as_array().context("`network ls` is no list")?;
    Ok(networks.iter().filter_map(|network| network["name"].as_str().map(str::to_owned)).collect())
}

fn wait_for_networks(of: &Node, names: &[String]) -> Result<()> {
    wait("what was acknowledged", SOON, || {
        let known = networks(of)?;
        let lost: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
        ensure!(lost.is_empty(), "{} lacks {lost:?}", of.name());
        Ok(())
    })
}

fn signal(node: &Node, signal: &str) -> Result<()> {
    succeed(Command::new("kill").args([signal, &node.pid()?.to_string()]))
}

/// A service on the last node, published on 8080, and requests to it.
fn publish(cluster: &Cluster) -> Result<(Nginx, Load)> {
    let last = cluster.nodes().last().context("no nodes")?;
    cluster[0].ctl(&["network", "create", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster.wait_for_view()?;
    let spec = TaskSpec { name: "web1", network: "prod", service: Some("web"), ..TaskSpec::default() };
    let task = last.run_nginx(&spec)?;
    let server = SocketAddr::from((last.address(), 8080));
    let client = cluster.net().client().path();
    wait("the service", SOON, || NetNs::run_at(&client, || get(server, Duration::from_secs(2)))?)?;
    let load = Load::start(&client, vec![server], 20, Duration::from_secs(10))?;
    Ok((task, load))
}

#[derive(Debug, Clone, Copy)]
enum Disturbance {
    Kill,
    Stop,
    Cut,
}

/// How long leaders are disturbed: what fits CI, or as many seconds as `MESHD_DISTURB_SECONDS` says.
fn patience() -> Result<Duration> {
    match std::env::var("MESHD_DISTURB_SECONDS") {
        Ok(text) => Ok(Duration::from_secs(text.parse().context("MESHD_DISTURB_SECONDS")?)),
        Err(_) => Ok(Duration::from_secs(20)),
    }
}

/// Makes networks by one manager after the other until told to end; gives those that were acknowledged.
fn keep_changing(managers: &[&Node], end: &AtomicBool) -> Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    for (number, node) in managers.iter().cycle().enumerate() {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("meanwhile-{number}");
        if create(node, &name)? {
            acknowledged.push(name);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(acknowledged)
}

/// Disturbs whoever leads, again and again; gives what was acknowledged meanwhile.
fn disturb(cluster: &Cluster, managers: &[&Node], names: &[&str], patience: Duration) -> Result<Vec<String>> {
    use Disturbance::{Cut, Kill, Stop};
    let (mut acknowledged, mut number) = (Vec::new(), 0);
    let begun = Instant::now();
    for (round, what) in [Kill, Stop, Cut].into_iter().cycle().enumerate() {
        // Each at least once.
        if round > 2 && begun.elapsed() > patience {
            break;
        }
        let name = leader(managers[round % managers.len()])?;
        let leading = managers.iter().position(|node| node.name() == name).context("a worker leads")?;
        let node = managers[leading];
        let others: Vec<&Node> = managers.iter().copied().filter(|other| other.name() != name).collect();
        let event = Instant::now();
        match what {
            Kill => node.kill()?,
            Stop => signal(node, "-STOP")?,
            Cut => cluster.net().cut(leading)?,
        }
        acknowledged.push(create_by_any(&others, "disturbed", &mut number)?);
        println!("{what:?} of {name}: decided again after {:?}", event.elapsed());
        for _ in 0..2 {
            acknowledged.push(create_by_any(&others, "without", &mut number)?);
        }
        match what {
            Kill => node.start()?,
            Stop => signal(node, "-CONT")?,
            Cut => cluster.net().heal(leading)?,
        }
        acknowledged.push(create_by_any(&[node], "back", &mut number)?);
        wait_for_managers(node, names)?;
    }
    Ok(acknowledged)
}

/// One leader of five after the other is killed, stopped or cut off, while one client changes things by whichever manager
/// answers and another asks a published port.
#[test]
fn leaders_go_and_come_and_nothing_acknowledged_is_lost() -> Result<()> {
    let patience = patience()?;
    told(start(6, 5)?, |cluster| {
        let (_task, load) = publish(cluster)?;
        let managers: Vec<&Node> = cluster.nodes().iter().take(5).collect();
        let names: Vec<String> = managers.iter().map(|node| node.name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let end = AtomicBool::new(false);
        let (disturbed, changed) = thread::scope(|scope| {
            let changing = scope.spawn(|| keep_changing(&managers, &end));
            let disturbed = disturb(cluster, &managers, &names, patience);
            end.store(true, Ordering::Relaxed);
            (disturbed, changing.join())
        });
        let mut acknowledged = disturbed?;
        acknowledged.extend(changed.map_err(|_| anyhow!("the client that changes things panicked"))??);
        for manager in &managers {
            wait_for_networks(manager, &acknowledged)?;
        }
        // The worker follows whichever manager there is.
        wait_for_networks(&cluster[5], &acknowledged)?;
        let outcome = load.end();
        println!("{} requests, {} acknowledged changes", outcome.requests, acknowledged.len());
        outcome.none_failed()
    })
}

/// SWARM's acceptance 8, and what is left when they do not come back.
#[test]
fn with_two_of_three_gone_packets_flow_and_the_last_goes_on_alone_when_told_to() -> Result<()> {
    told(start(4, 3)?, |cluster| {
        let (_task, load) = publish(cluster)?;
        let spec = TaskSpec { name: "client", network: "prod", ..TaskSpec::default() };
        let client = cluster[3].run_idle(&spec)?;
        let resolves = || ensure_some(&client.dig(&["web"])?);
        wait("the name", SOON, resolves)?;
        cluster[0].kill()?;
        cluster[1].kill()?;
        wait("the last to find that it cannot decide", SOON, || {
            let refused = cluster[2].refused(&["network", "create", "never"])?;
            ensure!(refused.message.contains("majority"), "{}", refused.message);
            Ok(())
        })?;
        // What it shows it shows with a warning.
        wait("a warning", SOON, || {
            let shown = cluster[2].meshctl()?.args(["network", "ls"]).output().context("meshctl")?;
            let said = String::from_utf8_lossy(&shown.stderr);
            ensure!(shown.status.success() && said.contains("no majority of managers"), "{said}");
            Ok(())
        })?;
        wait("names without managers", SOON, resolves)?;
        cluster[0].start()?;
        let mut number = 0;
        let name = create_by_any(&[&cluster[0], &cluster[2]], "again", &mut number)?;
        cluster[1].start()?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
        wait_for_networks(&cluster[1], &[name])?;

        cluster[0].kill()?;
        cluster[1].kill()?;
        let made = cluster[2].ctl(&["init", "--force-new-cluster"])?;
        ensure!(made.contains("only manager"), "{made}");
        let name = create_by_any(&[&cluster[2]], "alone", &mut number)?;
        wait_for_networks(&cluster[3], std::slice::from_ref(&name))?;
        // One of the lost comes back: a worker now, which can be a manager again.
        cluster[0].start()?;
        wait("the lost manager to find that it is none", SOON, || {
            let refused = cluster[0].refused(&["network", "create", "never"])?;
            ensure!(refused.message.contains("is a worker"), "{}", refused.message);
            Ok(())
        })?;
        wait_for_networks(&cluster[0], std::slice::from_ref(&name))?;
        cluster[2].ctl(&["node", "promote", "n1"])?;
        wait("it to vote", SOON, || {
            let standing = standing(&cluster[2], "n1")?;
            ensure!(standing.as_deref() == Some("reachable"), "{standing:?}");
            Ok(())
        })?;
        create_by_any(&[&cluster[0]], "promoted", &mut number)?;
        load.end().none_failed()
    })
}

fn ensure_some(answers: &[String]) -> Result<()> {
    ensure!(!answers.is_empty(), "no answer");
    Ok(())
}

/// Managers are made, by promotion and by joining as one, demoted, and leave.
#[test]
fn managers_are_made_and_unmade() -> Result<()> {
    run(3, |cluster| {
        let token = cluster[0].ctl(&["join-token", "--quiet", "manager"])?;
        cluster[1].ctl(&["node", "ls"])?;
        cluster[2].ctl(&["leave"])?;
        let manager = SocketAddr::from((cluster[0].address(), 2377)).to_string();
        let address = cluster[2].address().to_string();
        let joined = cluster[2].ctl(&[
            "join",
            "--token",
            token.trim(),
            "--name",
            "n3",
            "--advertise-addr",
            &address,
            &manager,
        ])?;
        ensure!(joined.contains("as a manager"), "{joined}");
        cluster[2].ctl(&["node", "promote", "n2"])?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
        let mut number = 0;
        for node in cluster.nodes() {
            create_by_any(&[node], "by", &mut number)?;
        }
        // The one that leads goes on as a worker.
        let name = leader(&cluster[1])?;
        let leading = cluster.nodes().iter().find(|node| node.name() == name).context("who leads")?;
        let other = cluster.nodes().iter().find(|node| node.name() != name).context("the others")?;
        other.ctl(&["node", "demote", &name])?;
        wait("the demoted manager to stop", SOON, || {
            let refused = leading.refused(&["network", "create", "never"])?;
            ensure!(refused.message.contains("is a worker"), "{}", refused.message);
            ensure!(!leading.state_folder().join("raft").exists(), "its state is still there");
            Ok(())
        })?;
        wait("the others to be two", SOON, || {
            let nodes = nodes(other)?;
            let voting = nodes.iter().filter(|(_, _, standing)| standing.is_some()).count();
            ensure!(voting == 2, "{nodes:?}");
            Ok(())
        })?;
        // Of two, one leaves in order, the leader or not; the last may only by force.
        let third = cluster.nodes().iter().find(|node| node.name() != name && node.name() != other.name());
        let third = third.context("the third")?;
        third.ctl(&["leave"])?;
        create_by_any(&[other], "after", &mut number)?;
        wait("the one that left to be gone", SOON, || {
            let nodes = nodes(other)?;
            ensure!(nodes.len() == 2, "{nodes:?}");
            Ok(())
        })?;
        let refused = other.refused(&["leave"])?;
        ensure!(refused.message.contains("only manager"), "{}", refused.message);
        leading.ctl(&["leave"])?;
        Ok(())
    })
}

/// A backup is written, damaged copies are refused, and the cluster is made anew of it while its worker's tasks go on.
#[test]
fn a_backup_restores_the_cluster() -> Result<()> {
    run(2, |cluster| {
        let (_task, load) = publish(cluster)?;
        let folder = cluster[0].run_folder();
        let (good, bad) = (folder.join("backup"), folder.join("damaged"));
        let words = |path: &Path| path.display().to_string();
        cluster[0].ctl(&["cluster", "backup", &words(&good)])?;
        let refused = cluster[0].refused(&["cluster", "backup", &words(&good)])?;
        ensure!(refused.message.contains(&words(&good)), "{}", refused.message);
        let refused = cluster[1].refused(&["cluster", "backup", &words(&bad)])?;
        ensure!(refused.message.contains("worker") && !bad.exists(), "{}", refused.message);
        let refused = cluster[0].refused(&["cluster", "restore", &words(&good)])?;
        ensure!(refused.message.contains("already part of cluster"), "{}", refused.message);
        cluster[0].ctl(&["leave", "--force"])?;

        let bytes = fs::read(&good).context("the backup")?;
        let restore = |file: &Path| -> Vec<String> {
            let address = cluster[0].address().to_string();
            let name = cluster[0].name();
            let words = ["cluster", "restore", "--name", &name, "--advertise-addr", &address];
            words.iter().map(|word| (*word).to_owned()).chain([words_of(file)]).collect()
        };
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        let damages =
            [(&bytes[..bytes.len() - 1], "cut short"), (&changed[..], "damaged"), (b"nothing", "no backup")];
        for (content, word) in damages {
            fs::write(&bad, content).context("a damaged backup")?;
            let line = restore(&bad);
            let refused = cluster[0].refused(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
            ensure!(
                refused.message.contains(word) && refused.message.contains("damaged"),
                "{}",
                refused.message
            );
        }
        let line = restore(&good);
        cluster[0].ctl(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
        cluster.wait_for_members(2)?;
        let mut number = 0;
        let name = create_by_any(&[&cluster[0]], "new", &mut number)?;
        wait_for_networks(&cluster[1], &[name, "prod".to_owned()])?;
        load.end().none_failed()
    })
}

fn words_of(path: &Path) -> String {
    path.display().to_string()
}

/// A tmpfs over a folder, taken away on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// With what the folder holds.
    fn over(folder: &Path, size: &str) -> Result<Self> {
        let kept = folder.with_extension("kept");
        succeed(Command::new("cp").arg("-a").arg(folder).arg(&kept))?;
        succeed(
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder),
        )?;
        let disk = Self(folder.to_owned());
        succeed(Command::new("cp").arg("-a").arg(kept.join(".")).arg(folder))?;
        Ok(disk)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no room at all.
    fn fill(&self) -> Result<()> {
        let filler = format!("of={}", self.filler().display());
        // It ends with "no space left": that is what is wanted.
        Command::new("dd").args(["if=/dev/zero", &filler, "bs=4096"]).output().context("cannot run dd")?;
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon may have files open.
        if let Err(error) = succeed(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

fn status_says(node: &Node, word: &str) -> Result<()> {
    wait("the damage to be told", SOON, || {
        let status = node.ctl(&["status"])?;
        ensure!(status.contains(word), "{status}");
        Ok(())
    })
}

/// A manager's state is cut short or changed: it says so and its tasks go on, the others go on, and joining anew mends it.
#[test]
fn a_damaged_manager_is_told_and_mended() -> Result<()> {
    told(start(3, 3)?, |cluster| {
        let mut number = 0;
        let file = cluster[2].state_folder().join("raft/raft.redb");
        for damage in ["cut short", "changed"] {
            cluster[2].stop()?;
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            let damaged = match damage {
                "cut short" => bytes[..bytes.len() / 2].to_vec(),
                // Every page's checksum, somewhere.
                _ => bytes.iter().enumerate().map(|(at, b)| if at % 4096 == 100 { !b } else { *b }).collect(),
            };
            fs::write(&file, damaged).with_context(|| file.display().to_string())?;
            cluster[2].start()?;
            status_says(&cluster[2], "raft.redb")?;
            let name = create_by_any(&[&cluster[0], &cluster[1]], "meanwhile", &mut number)?;
            wait_for_networks(&cluster[2], &[name])?;
            cluster[0].ctl(&["node", "demote", "n3"])?;
            wait("the damaged state to go", SOON, || {
                ensure!(!file.exists(), "{} is still there", file.display());
                Ok(())
            })?;
            cluster[0].ctl(&["node", "promote", "n3"])?;
            wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
            create_by_any(&[&cluster[2]], "mended", &mut number)?;
        }
        Ok(())
    })
}

/// A manager's disk is full: it says so, the others go on, and with room again it goes on by itself.
#[test]
fn a_full_disk_stops_one_manager_only() -> Result<()> {
    told(start(3, 3)?, |cluster| {
        let mut number = 0;
        cluster[2].stop()?;
        let disk = SmallDisk::over(&cluster[2].state_folder(), "24m")?;
        cluster[2].start()?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
        disk.fill()?;
        let others = [&cluster[0], &cluster[1]];
        wait("the full disk to be met", SOON, || {
            create_by_any(&others, "filling", &mut number)?;
            let status = cluster[2].ctl(&["status"])?;
            ensure!(status.contains("raft.redb"), "{status}");
            Ok(())
        })?;
        let name = create_by_any(&others, "without", &mut number)?;
        fs::remove_file(disk.filler()).context("make room")?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
        create_by_any(&[&cluster[2]], "room", &mut number)?;
        wait_for_networks(&cluster[2], &[name])?;
        cluster[2].stop()
    })
}
