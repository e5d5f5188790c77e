//! The plugin's operations one after the other, with the daemon there, away, killed and back.

use anyhow::{Context, Result, ensure};
use mesh_tests::{CniPlugin, NetNs, TaskSpec, output, run, succeed, wait};
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

/// Behind Debian's `bridge`: an interface of its own, and the default route stays the bridge's.
#[test]
fn behind_a_bridge_both_networks_are_reached() -> Result<()> {
    run(1, |cluster| {
        prepare(cluster)?;
        let node = &cluster[0];
        let there = node.run_idle(&TaskSpec { name: "there", network: "prod", ..TaskSpec::default() })?;
        let container = NetNs::create(&cluster.net().prefix().namespace("c1"))?;
        let path = container.path();
        let leases = node.run_folder().join("leases");
        let bridge = CniPlugin::reference(
            node,
            json!({
                "cniVersion": "1.0.0", "name": "both", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
                "ipam": {"type": "host-local", "dataDir": leases, "subnet": "10.99.0.0/24"},
            }),
        )?;
        let first = bridge.call("ADD", "c1", &path)?;
        let plugin = CniPlugin::mesh(node, "prod")?.with(json!({
            "cniVersion": "1.0.0", "name": "both", "interface": "mesh0",
        }));
        let second = plugin.with(json!({ "prevResult": first }));
        let added = second.call("ADD", "c1", &path)?;
        let names = added["interfaces"].as_array().context("interfaces")?.iter().map(|i| i["name"].as_str());
        let names: Vec<&str> = names.flatten().collect();
        ensure!(names.len() == 5 && names[2] == "eth0" && names[4] == "mesh0", "{added}");
        ensure!(added["routes"] == first["routes"], "{added}");

        let routes = output(container.command("ip")?.args(["-4", "route", "show", "default"]))?;
        ensure!(routes.trim().starts_with("default via 10.99.0.1 dev eth0"), "{routes}");
        ensure!(routes.trim().lines().count() == 1, "{routes}");
        for address in ["10.99.0.1".to_owned(), there.address()?.to_string()] {
            wait("an answer on both networks", SOON, || {
                succeed(container.command("ping")?.args(["-n", "-c1", "-W1", &address]))
            })?;
        }
        let check = plugin.with(json!({ "prevResult": added }));
        check.call("CHECK", "c1", &path)?;
        check.call("DEL", "c1", &path)?;
        bridge.call("DEL", "c1", &path)?;
        let links = output(container.command("ip")?.args(["-br", "link"]))?;
        ensure!(links.lines().all(|line| line.starts_with("lo ")), "{links}");
        Ok(())
    })
}
