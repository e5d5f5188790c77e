//! The key that seals gossip is replaced: under load, while a node is away, and when a node is removed.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Cluster, NetNs, Node, Task, TaskSpec, run, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// A change of the key reads the old one for some seconds.
const ROTATION: Duration = Duration::from_secs(60);

fn task<'a>(name: &'a str, network: &'a str) -> TaskSpec<'a> {
    TaskSpec { name, network, service: None, options: &[] }
}

fn keys(node: &Node) -> Result<Value> {
    Ok(node.ctl_json(&["cluster", "inspect"])?[0]["gossip_keys"].clone())
}

/// Waits for the end of a change that gives a key which came into use after `since`.
fn settled(node: &Node, since: u64) -> Result<u64> {
    wait("the change of the key to end", ROTATION, || {
        let keys = keys(node)?;
        let now = keys["since"].as_u64().context("no time")?;
        ensure!(keys["phase"] == "settled" && keys["urgent"] == false && now > since, "{keys}");
        Ok(now)
    })
}

fn since(node: &Node) -> Result<u64> {
    keys(node)?["since"].as_u64().context("no time")
}

/// The ids of the keys that seal what arrives at a node by gossip: bytes 2 to 5 of each datagram.
fn key_ids(namespace: &NetNs, from: &str) -> Result<BTreeSet<String>> {
    let mut command = namespace.command("timeout")?;
    let filter = format!("udp dst port 7946 and src host {from}");
    command.args(["30", "tcpdump", "-n", "-x", "-i", "eth0", "-Q", "in", "-c", "8", &filter]);
    let output = command.stderr(Stdio::null()).output().context("tcpdump")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut ids = BTreeSet::new();
    for packet in text.split("0x0000:").skip(1) {
        let lines = packet.lines().take_while(|line| !line.contains(" IP "));
        let bytes: String = lines
            .flat_map(|line| line.split_once(": ").map_or(line, |(_, rest)| rest).split_whitespace())
            .filter(|word| word.chars().all(|c| c.is_ascii_hexdigit()))
            .collect();
        // Behind 20 bytes of IPv4, 8 of UDP and the version.
        ids.insert(bytes.get(58..66).with_context(|| format!("a short packet: {packet}"))?.to_owned());
    }
    ensure!(!ids.is_empty(), "nothing was heard: {text}");
    Ok(ids)
}

fn sees(node: &Node, name: &str, there: bool) -> Result<()> {
    wait("a task to be seen", SOON, || {
        let tasks = node.ctl_json(&["task", "ls"])?;
        let tasks = tasks.as_array().context("`task ls` is no list")?;
        let seen = tasks.iter().any(|task| task["name"] == name);
        ensure!(seen == there, "{} sees {name}: {seen}", node.name());
        Ok(())
    })
}

/// Tasks come and go; every node is ready to every other one, at once or again.
fn works(cluster: &Cluster, nodes: &[usize], round: u32) -> Result<()> {
    let name = format!("t{round}");
    let [first, .., last] = nodes else { return Ok(()) };
    let task: Task = cluster[*last].run_idle(&task(&name, "open"))?;
    sees(&cluster[*first], &name, true)?;
    drop(task);
    sees(&cluster[*first], &name, false)?;
    // Its own node is the last to be through with it: the next task may be given a namespace with the same number.
    wait("the task to be gone", SOON, || cluster[*last].refused(&["task", "inspect", &name]).map(drop))?;
    let all: Vec<String> = nodes.iter().map(|node| cluster[*node].name()).collect();
    for node in nodes {
        // One that hears nothing for seconds, on a machine that is busy, is doubted until it answers again. That nobody is
        // deaf is what `unread` tells.
        wait("the nodes to be ready to each other", SOON, || {
            let listed = cluster[*node].ctl_json(&["node", "ls"])?;
            let listed = listed.as_array().context("`node ls` is no list")?;
            let doubted =
                |other: &&Value| all.iter().any(|name| other["name"] == **name) && other["status"] != "ready";
            match listed.iter().find(doubted) {
                None => Ok(()),
                Some(other) => bail!("{}: {other}", cluster[*node].name()),
            }
        })?;
    }
    Ok(())
}

/// The messages that each node could not read for want of the key.
fn unread(nodes: &[Node]) -> Result<Vec<u64>> {
    let of = |node: &Node| -> Result<u64> {
        let status = node.ctl_json(&["status"])?;
        let refused = status["gossip"]["refused"].as_object().with_context(|| format!("{status}"))?;
        Ok(refused.get("unknown_key").and_then(Value::as_u64).unwrap_or_default())
    };
    nodes.iter().map(of).collect()
}

#[test]
fn the_gossip_key_is_replaced() -> Result<()> {
    run(4, |cluster| {
        let manager = &cluster[0];
        manager.ctl(&["network", "create", "--subnet", "10.10.4.0/24", "--attachable", "open"])?;
        cluster.wait_for_view()?;
        let watch = &cluster.net().nodes()[1];
        let address = manager.address().to_string();
        let old = key_ids(watch, &address)?;
        let first = since(manager)?;
        let before = unread(cluster.nodes())?;

        // By command, while tasks come and go.
        let said = manager.ctl(&["cluster", "rotate-gossip-keys"])?;
        ensure!(said.contains("being replaced"), "{said}");
        let again = manager.refused(&["cluster", "rotate-gossip-keys"])?;
        ensure!(again.message.contains("being replaced already"), "{again:?}");
        let mut round = 0;
        while keys(manager)?["phase"] != "settled" {
            works(cluster, &[0, 1, 2, 3], round)?;
            round += 1;
            ensure!(round < 100, "it does not end: {}", keys(manager)?);
        }
        let second = settled(manager, first)?;
        ensure!(round > 0, "nothing was done meanwhile");
        // Whatever was sent, under either key, could be read by everybody.
        let now = unread(cluster.nodes())?;
        ensure!(now == before, "messages that could not be read: {now:?}, before {before:?}");
        let new = key_ids(watch, &address)?;
        ensure!(new.is_disjoint(&old), "{new:?} {old:?}");

        // A node that is away for two changes has none of the keys when it comes back.
        cluster[3].kill()?;
        wait("the others to notice", SOON, || {
            let nodes = manager.ctl(&["node", "ls"])?;
            ensure!(nodes.contains("unattended"), "{nodes}");
            Ok(())
        })?;
        let others = &cluster.nodes()[..3];
        let (mut last, before) = (second, unread(others)?);
        for _ in 0..2 {
            manager.ctl(&["cluster", "rotate-gossip-keys"])?;
            last = settled(manager, last)?;
        }
        let now = unread(others)?;
        ensure!(now == before, "messages that could not be read: {now:?}, before {before:?}");
        let kept = cluster[2].run_idle(&task("kept", "open"))?;
        cluster[3].start()?;
        cluster.wait_for_members(4)?;
        let back = cluster[3].run_idle(&task("back", "open"))?;
        sees(&cluster[3], "kept", true)?;
        sees(&cluster[2], "back", true)?;
        drop(back);
        works(cluster, &[0, 1, 2, 3], 1000)?;

        // A node that is removed knows the key. What is sent afterwards is sealed with others.
        let known = key_ids(watch, &address)?;
        manager.ctl(&["node", "rm", "--force", "n4"])?;
        settled(manager, last)?;
        let fresh = key_ids(watch, &address)?;
        ensure!(fresh.is_disjoint(&known), "{fresh:?} {known:?}");
        // It still runs; nobody takes it for a member.
        let status = cluster[3].ctl_json(&["status"])?;
        ensure!(status["warnings"].to_string().contains("removed this node"), "{status}");
        let before = unread(others)?;
        wait("all to be deaf to what it says", SOON, || {
            let now = unread(others)?;
            ensure!(now.iter().zip(&before).all(|(now, before)| now > before), "{now:?}, before {before:?}");
            Ok(())
        })?;
        works(cluster, &[0, 1, 2], 2000)?;
        drop(kept);
        Ok(())
    })
}
