//! What somebody broke by hand or by a kill mends by itself, or is undone: links removed under the daemon, a daemon
//! killed in the midst of `init`, a task's link gone at a restart, a manager out of reach for a node that leaves.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Binaries, Cluster, Lifetime, NetNs, Prefix, TaskSpec, curl, output, run, wait};

const SOON: Duration = Duration::from_secs(5);

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.4.0/24", "--attachable", "open"])?;
    cluster.wait_for_view()
}

fn sandbox(cluster: &Cluster, name: &str) -> Result<(NetNs, String)> {
    let namespace = NetNs::create(&cluster.net().prefix().namespace(name))?;
    let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
    Ok((namespace, path))
}

#[test]
fn links_that_somebody_removes_come_back_with_their_programs() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        create(cluster)?;
        node.ctl(&["service", "create", "--network", "open", "web"])?;
        node.ctl(&["publish", "8080:80", "web"])?;
        let spec = TaskSpec { name: "web1", network: "open", service: Some("web"), options: &[] };
        let _web = node.run_nginx(&spec)?;
        let fetch = || curl(node.command("curl")?, "http://localhost:8080/");
        wait("the port on localhost", SOON, fetch)?;
        for link in ["mesh-vxlan", "mesh-host"] {
            output(node.command("ip")?.args(["link", "del", link]))?;
            wait("the link", SOON, || {
                ensure!(node.links()?.iter().any(|l| l == link), "{link} is not there");
                Ok(())
            })?;
        }
        wait("the port on localhost after its link was removed", SOON, fetch).map(drop)
    })
}

#[test]
fn a_task_without_its_link_does_not_keep_the_daemon_from_starting() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        create(cluster)?;
        let before = node.links()?;
        let (_guest, path) = sandbox(cluster, "guest")?;
        node.ctl(&["attach", "--network", "open", "--name", "guest", &path])?;
        let links = node.links()?;
        let link = links.iter().find(|link| !before.contains(link)).context("the task has no link")?;
        node.kill()?;
        output(node.command("ip")?.args(["link", "del", link]))?;
        node.start()?;
        wait("the task without a link to go", SOON, || {
            let tasks = node.ctl_json(&["task", "ls"])?;
            ensure!(tasks.as_array().is_some_and(Vec::is_empty), "still listed: {tasks}");
            Ok(())
        })?;
        node.ctl(&["attach", "--network", "open", "--name", "guest", &path])?;
        node.ctl(&["detach", "guest"]).map(drop)
    })
}

#[test]
fn a_static_address_and_a_name_move_with_their_task() -> Result<()> {
    run(3, |cluster| {
        create(cluster)?;
        let (_guest, path) = sandbox(cluster, "guest")?;
        let (_other, other) = sandbox(cluster, "other")?;
        let words = ["attach", "--network", "open", "--name", "db", "--ip", "10.10.4.77", &path];
        for node in cluster.nodes() {
            // Until it has heard that the name is free again, it refuses.
            wait("the task to be attached", SOON, || node.ctl(&words))?;
            for elsewhere in cluster.nodes().iter().filter(|n| n.index() != node.index()) {
                wait("the other nodes to know the name", SOON, || {
                    // The address that a refused attach asked for must not stay with its node either.
                    let words = ["attach", "--network", "open", "--name", "DB", "--ip", "10.10.4.78", &other];
                    let refusal = elsewhere.refused(&words).inspect_err(|_| {
                        let _ = elsewhere.ctl(&["detach", "DB"]);
                    })?;
                    ensure!(refusal.message.contains(&node.name()), "{refusal:?}");
                    Ok(())
                })?;
            }
            node.ctl(&["detach", "db"])?;
        }
        Ok(())
    })
}

#[test]
fn a_daemon_killed_while_it_makes_a_cluster_starts_in_none() -> Result<()> {
    let cluster = Cluster::daemons(Prefix::unique(), 1, Binaries::find()?, Lifetime::Owner)?;
    let node = &cluster[0];
    let before = node.links()?;
    for pause in [20, 60, 100, 140, 180] {
        let mut init = node.meshctl()?;
        let init = init.arg("init").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut init = init.context("meshctl init")?;
        std::thread::sleep(Duration::from_millis(pause));
        node.kill()?;
        init.wait().context("meshctl init")?;
        node.start()?;
        let status = node.ctl_json(&["status"])?;
        if status["state"] == "active" {
            node.ctl(&["leave", "--force"])?;
        }
        wait("nothing to be left", SOON, || {
            ensure!(node.links()? == before, "after {pause} ms: links {:?}", node.links()?);
            ensure!(node.pins().is_empty(), "after {pause} ms: pins {:?}", node.pins());
            Ok(())
        })?;
    }
    cluster.init()
}

#[test]
fn a_node_leaves_without_a_manager_by_force_only() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        manager.kill()?;
        wait("the manager to be missed", SOON, || {
            let refusal = worker.refused(&["leave"])?;
            ensure!(refusal.message.contains("node rm n2"), "{refusal:?}");
            Ok(())
        })?;
        ensure!(worker.ctl_json(&["status"])?["state"] == "active", "a refused leave had an effect");
        worker.ctl(&["leave", "--force"])?;
        manager.start()?;
        wait("its name to be refused", SOON, || {
            let Err(refusal) = cluster.join(1) else { bail!("its name was given twice") };
            ensure!(format!("{refusal:#}").contains("taken"), "{refusal:#}");
            Ok(())
        })?;
        wait("the node to be given up", SOON, || manager.ctl(&["node", "rm", "n2"]).map(drop))?;
        cluster.join(1)
    })
}
