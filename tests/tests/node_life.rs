//! The life of a node: it goes and comes back, is removed, and its machine reboots.

use std::{ffi::OsStr, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Node, TaskSpec, output, run, wait};

const SOON: Duration = Duration::from_secs(30);

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.4.0/24", "--attachable", "open"])?;
    cluster.wait_for_view()
}

fn status(node: &Node, of: &str) -> Result<String> {
    let nodes = node.ctl_json(&["node", "ls"])?;
    let nodes = nodes.as_array().context("`node ls` is no list")?;
    let found = nodes.iter().find(|n| n["name"] == of).with_context(|| format!("no {of} in {nodes:?}"))?;
    Ok(found["status"].as_str().unwrap_or_default().to_owned())
}

fn wait_for(node: &Node, of: &str, wanted: &str) -> Result<()> {
    wait("the right status", SOON, || {
        let status = status(node, of)?;
        ensure!(status == wanted, "{of} is {status} to {}, not {wanted}", node.name());
        Ok(())
    })
}

fn names(node: &Node) -> Result<Vec<String>> {
    let tasks = node.ctl_json(&["task", "ls"])?;
    let names = tasks.as_array().context("`task ls` is no list")?.iter();
    Ok(names.filter_map(|task| task["name"].as_str()).map(str::to_owned).collect())
}

#[test]
fn a_node_that_runs_is_removed_by_force_only() -> Result<()> {
    run(3, |cluster| {
        let manager = &cluster[0];
        wait_for(manager, "n2", "ready")?;
        let refusal = manager.refused(&["node", "rm", "n2"])?;
        ensure!(refusal.message.contains("is ready") && refusal.message.contains("--force"), "{refusal:?}");
        manager.ctl(&["node", "rm", "--force", "n2"])?;
        wait("the node to learn of it", SOON, || {
            let refusal = cluster[1].refused(&["run", "--network", "ingress", "--", "true"])?;
            let status = cluster[1].ctl_json(&["status"])?;
            let warnings = status["warnings"].to_string();
            ensure!(warnings.contains("removed this node"), "{warnings} {refusal:?}");
            Ok(())
        })?;
        cluster[1].ctl(&["leave", "--force"])?;
        cluster.join(1)?;
        cluster.wait_for_members(3)?;

        cluster[2].kill()?;
        // Its tasks would run on.
        wait_for(manager, "n3", "unattended")?;
        let refusal = manager.refused(&["node", "rm", "n3"])?;
        ensure!(refusal.message.contains("unattended") && refusal.message.contains("--force"), "{refusal:?}");
        cluster.net().cut(2)?;
        wait_for(manager, "n3", "down")?;
        manager.ctl(&["node", "rm", "n3"]).map(drop)
    })
}

#[test]
fn a_manager_knows_who_is_there() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        worker.kill()?;
        wait_for(manager, "n2", "unattended")?;
        worker.start()?;
        wait_for(manager, "n2", "ready")?;
        cluster.net().cut(1)?;
        wait_for(manager, "n2", "down")?;
        wait_for(worker, "n1", "down")?;
        cluster.net().heal(1)?;
        wait_for(manager, "n2", "ready")?;
        wait_for(worker, "n1", "ready")
    })
}

/// Tasks of namespaces that have names come back with them, from the node's disk alone; those of processes are forgotten.
#[test]
fn a_rebooted_node_comes_back_without_a_manager() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        create(cluster)?;
        let name = cluster.net().prefix().namespace("guest");
        let namespace = NetNs::create(&name)?;
        let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
        worker.ctl(&["attach", "--network", "open", "--name", "guest", "--ip", "10.10.4.77", &path])?;
        let spec = TaskSpec { name: "ghost", network: "open", ..TaskSpec::default() };
        let mut ghost = worker.run_task(&spec, &[OsStr::new("sleep"), OsStr::new("600")])?;
        wait("the managers to hear of the addresses", SOON, || {
            let status = worker.ctl_json(&["status"])?;
            ensure!(status["leases"]["unconfirmed"] == 0, "{}", status["leases"]);
            Ok(())
        })?;
        manager.kill()?;
        worker.kill()?;
        ghost.kill()?;
        drop(namespace);
        worker.reboot()?;
        wait("those of processes to be forgotten", SOON, || {
            let names = names(worker)?;
            ensure!(names.is_empty(), "{names:?}");
            Ok(())
        })?;
        let links = worker.links()?;
        let namespace = NetNs::create(&name)?;
        wait("the task to come back", SOON, || {
            let names = names(worker)?;
            ensure!(names == ["guest"], "{names:?}");
            Ok(())
        })?;
        let addresses = output(namespace.command("ip")?.args(["-br", "-4", "addr", "show", "dev", "eth0"]))?;
        ensure!(addresses.contains("10.10.4.77/24"), "{addresses}");
        ensure!(worker.links()?.len() == links.len() + 1, "{:?}", worker.links()?);
        // What was not known to be in use before the reboot is not given out on this node's word.
        let other = NetNs::create(&cluster.net().prefix().namespace("other"))?;
        let other_path = other.path().to_str().context("the namespace's path")?.to_owned();
        let refusal = worker.refused(&["attach", "--network", "open", "--name", "other", &other_path])?;
        ensure!(refusal.message.contains("no manager is reachable"), "{refusal:?}");

        manager.start()?;
        wait("a manager to lease an address", SOON, || {
            worker.ctl(&["attach", "--network", "open", "--name", "other", &other_path])
        })?;
        // It is reached from the other node as before.
        let third = NetNs::create(&cluster.net().prefix().namespace("third"))?;
        let third_path = third.path().to_str().context("the namespace's path")?.to_owned();
        manager.ctl(&["attach", "--network", "open", "--name", "third", &third_path])?;
        wait("the task to answer", SOON, || {
            output(third.command("ping")?.args(["-c1", "-W1", "-n", "-q", "10.10.4.77"])).map(drop)
        })?;
        worker.ctl(&["detach", "guest"]).map(drop)
    })
}

/// A manager that is stuck, not dead: its kernel still accepts connections.
#[test]
fn a_stuck_manager_is_left_for_another() -> Result<()> {
    run(4, |cluster| {
        let (first, worker) = (&cluster[0], &cluster[3]);
        first.ctl(&["node", "promote", "n2"])?;
        first.ctl(&["node", "promote", "n3"])?;
        wait("three managers", 2 * SOON, || {
            let status = worker.ctl_json(&["status"])?;
            let managers = status["managers"].as_array().map_or(0, Vec::len);
            let nodes = first.ctl_json(&["node", "ls"])?;
            let there = |n: &&serde_json::Value| {
                ["leader", "reachable"].map(Some).contains(&n["manager_status"].as_str())
            };
            let voters = nodes.as_array().into_iter().flatten().filter(there).count();
            ensure!(managers == 3 && voters == 3, "{managers} {voters}");
            Ok(())
        })?;
        create(cluster)?;
        let session = || -> Result<String> {
            let status = worker.ctl_json(&["status"])?;
            let session = status["manager_session"].as_str().unwrap_or_default();
            Ok(session.strip_prefix("connected to ").with_context(|| session.to_owned())?.to_owned())
        };
        let with = wait("a session", SOON, session)?;
        let stuck = cluster.nodes().iter().find(|n| with.starts_with(&format!("{}:", n.underlay())));
        let stuck = stuck.with_context(|| format!("no node has {with}"))?;
        let pid = stuck.pid()?.to_string();
        output(std::process::Command::new("kill").args(["-STOP", &pid]))?;
        let moved = wait("another manager", SOON, || {
            let now = session()?;
            ensure!(now != with, "still with {with}");
            Ok(now)
        });
        // What another manager decides arrives, and it leases addresses.
        let attached = moved.and_then(|_| {
            let other = cluster.nodes().iter().find(|n| n.index() < 3 && n.index() != stuck.index());
            let other = other.context("no other manager")?;
            wait("a change", SOON, || {
                other.ctl(&["network", "create", "--subnet", "10.10.5.0/24", "--attachable", "more"])
            })?;
            let namespace = NetNs::create(&cluster.net().prefix().namespace("guest"))?;
            let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
            wait("an attach", SOON, || {
                worker.ctl(&["attach", "--network", "more", "--name", "guest", &path])
            })?;
            worker.ctl(&["detach", "guest"]).map(drop)
        });
        output(std::process::Command::new("kill").args(["-CONT", &pid]))?;
        attached
    })
}
