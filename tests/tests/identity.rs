//! Who nodes are: the CA's root changes under load, and a locked manager's data path goes on without it.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Load, NetNs, Node, TaskSpec, get, run, wait};

/// What comes about by itself within seconds, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const RATE: u32 = 20;

fn publish(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster.wait_for_view()
}

/// Makes managers of all nodes.
fn promote(cluster: &Cluster) -> Result<()> {
    let names: Vec<String> = cluster.nodes().iter().map(Node::name).collect();
    for name in names.iter().skip(1) {
        cluster[0].ctl(&["node", "promote", name])?;
    }
    wait("every node to be a manager that votes", SOON, || {
        let nodes = cluster[0].ctl_json(&["node", "ls"])?;
        for node in nodes.as_array().context("no list")? {
            let standing = node["manager_status"].as_str().unwrap_or_default();
            ensure!(matches!(standing, "leader" | "reachable"), "{}: {standing}", node["name"]);
        }
        Ok(())
    })
}

fn spec(name: &str) -> TaskSpec<'_> {
    TaskSpec { name, network: "prod", service: Some("web"), ..TaskSpec::default() }
}

fn state(node: &Node) -> Result<String> {
    let status = node.ctl_json(&["status"])?;
    Ok(status["state"].as_str().context("no state")?.to_owned())
}

/// Gives `meshctl unlock` a key; whether it was taken.
fn unlock(node: &Node, key: &str) -> Result<bool> {
    let mut command = node.meshctl()?;
    let mut unlocking = command
        .arg("unlock")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("run meshctl unlock")?;
    let mut stdin = unlocking.stdin.take().context("its standard input")?;
    writeln!(stdin, "{key}").context("give it the key")?;
    drop(stdin);
    Ok(unlocking.wait().context("wait for meshctl unlock")?.success())
}

#[test]
fn the_root_changes_under_load() -> Result<()> {
    run(3, |cluster| {
        publish(cluster)?;
        promote(cluster)?;
        let _task = cluster[2].run_nginx(&spec("web1"))?;
        let client = cluster.net().client().path();
        let servers: Vec<SocketAddr> = cluster.nodes().iter().map(|n| (n.address(), 8080).into()).collect();
        wait("the service", SOON, || NetNs::run_at(&client, || get(servers[0], SOON))?)?;
        let before = cluster.worker_token()?;
        let load = Load::start(&client, servers, RATE, Duration::from_secs(5))?;
        cluster[0].ctl(&["ca", "rotate", "--wait", "--timeout", "2m"])?;
        load.end().none_failed()?;
        let ca = cluster[0].ctl_json(&["ca"])?;
        ensure!(ca["rotating"] == false && ca["generation"] == 3, "{ca}");
        ensure!(cluster.worker_token()? != before, "the join token carries the root's digest");

        // What nodes keep is what they use: daemons that start again are known by it, and managers agree by it.
        for node in cluster.nodes() {
            node.stop()?;
            node.start()?;
        }
        wait("the sessions after a restart", SOON, || {
            for node in cluster.nodes() {
                let status = node.ctl_json(&["status"])?;
                let session = status["manager_session"].as_str().unwrap_or_default();
                ensure!(session.starts_with("connected"), "{}: {session}", node.name());
            }
            Ok(())
        })?;
        wait("a change by any manager", SOON, || cluster[1].ctl(&["network", "create", "after"]).map(drop))?;
        wait("all nodes to hear of it", SOON, || cluster.wait_for_view())
    })
}

#[test]
fn a_locked_manager_waits_while_packets_flow() -> Result<()> {
    run(2, |cluster| {
        publish(cluster)?;
        let manager = &cluster[0];
        let _task = manager.run_nginx(&spec("web1"))?;
        let client = cluster.net().client().path();
        let servers: Vec<SocketAddr> = cluster.nodes().iter().map(|n| (n.address(), 8080).into()).collect();
        for server in servers.clone() {
            wait("the service", SOON, || NetNs::run_at(&client, || get(server, SOON))?)?;
        }
        let locked = manager.ctl_json(&["cluster", "update", "--autolock=true"])?;
        let key = locked["unlock_key"].as_str().context("no key")?.to_owned();
        let shown = manager.ctl(&["unlock-key", "--quiet"])?;
        ensure!(shown.trim() == key, "{shown:?}");
        let identity = manager.state_folder().join("identity.pem");
        wait("the keys to be sealed", SOON, || {
            let text = std::fs::read_to_string(&identity).context("identity.pem")?;
            ensure!(!text.contains("BEGIN PRIVATE KEY"), "the private key lies open");
            Ok(())
        })?;

        let load = Load::start(&client, servers, RATE, Duration::from_secs(5))?;
        manager.kill()?;
        manager.start()?;
        wait("the locked manager", SOON, || {
            let state = state(manager)?;
            ensure!(state == "locked", "it is {state}");
            Ok(())
        })?;
        let refusal = manager.refused(&["network", "create", "other"])?;
        ensure!(refusal.message.contains("meshctl unlock"), "{}", refusal.message);
        ensure!(!unlock(manager, "MESHKEY-1-0")?, "a key that is cut off");
        let wrong = format!("MESHKEY-1-{}", "0".repeat(50));
        ensure!(!unlock(manager, &wrong)?, "another key");
        ensure!(state(manager)? == "locked", "a wrong key unlocked it");
        std::thread::sleep(Duration::from_secs(2));
        load.end().none_failed()?;

        ensure!(unlock(manager, &key)?, "the key was refused");
        let begun = Instant::now();
        wait("the unlocked manager to decide", SOON, || {
            let name = format!("after-{}", begun.elapsed().as_millis());
            manager.ctl(&["network", "create", &name]).map(drop)
        })?;
        wait("its view at the other node", SOON, || cluster.wait_for_view())?;
        let rotated = manager.ctl(&["unlock-key", "--rotate", "--quiet"])?;
        ensure!(rotated.trim() != key, "the same key");
        manager.ctl(&["cluster", "update", "--autolock=false"])?;
        wait("the keys to lie open", SOON, || {
            let text = std::fs::read_to_string(&identity).context("identity.pem")?;
            ensure!(text.contains("BEGIN PRIVATE KEY"), "the private key is sealed");
            Ok(())
        })?;
        manager.stop()?;
        manager.start()?;
        wait("a start without a key", SOON, || manager.ctl(&["network", "create", "last"]).map(drop))
    })
}
