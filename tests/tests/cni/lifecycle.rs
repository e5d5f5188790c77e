//! The plugin's operations one after the other, with the daemon there, away, killed and back.

use anyhow::{Context, Result, ensure};
use mesh_tests::{CniPlugin, NetNs, run, wait};
use serde_json::{Value, json};

use crate::{SOON, no_tasks, prepare};

#[test]
fn each_operation_can_be_done_again() -> Result<()> {
    run(1, |cluster| {
        prepare(cluster)?;
        let node = &cluster[0];
        let plugin = CniPlugin::mesh(node, "prod")?;
        let container = NetNs::create(&cluster.net().prefix().namespace("c1"))?;
        let path = container.path();
        plugin.call("STATUS", "", &path)?;

        let added = plugin.call("ADD", "c1", &path)?;
        ensure!(plugin.call("ADD", "c1", &path)? == added, "another answer to the same ADD");
        let address = added["ips"][0]["address"].as_str().context("no address")?.to_owned();
        ensure!(address.starts_with("10.10.3.") && address.ends_with("/24"), "{added}");
        ensure!(added["interfaces"][1]["sandbox"] == path.display().to_string(), "{added}");
        ensure!(added["dns"]["nameservers"] == json!(["127.0.0.11"]), "{added}");
        ensure!(added["routes"] == json!([{"dst": "0.0.0.0/0", "gw": "10.10.3.1"}]), "{added}");
        let host = added["interfaces"][0]["name"].as_str().context("no interface")?;
        ensure!(node.links()?.iter().any(|link| link == host), "the node has no {host}");

        let check = plugin.with(json!({ "prevResult": added }));
        check.call("CHECK", "c1", &path)?;
        container.ip("link set eth0 down")?;
        let refused = check.refused("CHECK", "c1", &path)?;
        ensure!(refused.code == 101 && refused.text.contains("eth0 is down"), "{refused}");
        container.ip(&format!("addr del {address} dev eth0\nlink set eth0 up"))?;
        let refused = check.refused("CHECK", "c1", &path)?;
        ensure!(refused.text.contains(&address), "{refused}");

        for _ in 0..2 {
            plugin.call("DEL", "c1", &path)?;
            no_tasks(node)?;
        }
        ensure!(check.refused("CHECK", "c1", &path)?.code == 3, "CHECK after DEL");
        // The namespace goes first, as when a container is killed.
        plugin.call("ADD", "c1", &path)?;
        drop(container);
        ensure!(plugin.refused("ADD", "c1", &path)?.code == 3, "ADD without a namespace");
        plugin.call("DEL", "c1", &path)?;
        no_tasks(node)
    })
}

#[test]
fn a_daemon_that_is_away_or_killed_loses_nothing() -> Result<()> {
    run(1, |cluster| {
        prepare(cluster)?;
        let node = &cluster[0];
        let plugin = CniPlugin::mesh(node, "prod")?;
        let namespace = |name: &str| NetNs::create(&cluster.net().prefix().namespace(name));
        let (first, second, third) = (namespace("c1")?, namespace("c2")?, namespace("c3")?);
        let added = plugin.call("ADD", "c1", &first.path())?;
        plugin.call("ADD", "c2", &second.path())?;

        node.kill()?;
        for (operation, code) in [("STATUS", 50), ("ADD", 11), ("DEL", 11)] {
            let refused = plugin.refused(operation, "c3", &third.path())?;
            ensure!(refused.code == code && refused.text.contains("meshd"), "{operation}: {refused}");
        }
        node.start()?;
        ensure!(plugin.call("ADD", "c1", &first.path())? == added, "another answer after a restart");
        plugin.with(json!({ "prevResult": added })).call("CHECK", "c1", &first.path())?;

        // An ADD during which the daemon is killed is done by another one, or undone by a DEL.
        let adding = plugin.command("ADD", "c3", &third.path())?;
        let done = std::thread::scope(|scope| -> Result<_> {
            let adding = scope.spawn(|| plugin.run(adding));
            node.kill()?;
            node.start()?;
            adding.join().map_err(|_| anyhow::anyhow!("a thread panicked"))
        })?;
        if let Err(error) = done {
            let refused = error.downcast::<mesh_tests::CniError>()?;
            ensure!(refused.code == 11, "{refused}");
        }
        wait("the ADD that was cut off", SOON, || plugin.call("ADD", "c3", &third.path()))?;

        // The runtime forgot two of them.
        let gc = |valid: Value| {
            plugin.with(json!({ "cni.dev/valid-attachments": valid })).call("GC", "", &first.path())
        };
        gc(json!([{"containerID": "c1", "ifname": "eth0"}]))?;
        let tasks = node.ctl_json(&["status"])?["tasks"].clone();
        ensure!(tasks == 1, "{tasks} tasks after GC");
        gc(json!([]))?;
        no_tasks(node)
    })
}
