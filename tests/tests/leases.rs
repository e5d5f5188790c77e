//! Addresses of tasks: without a manager in reach tasks are attached while the node's lease has room; a silent node keeps
//! what its tasks use and nothing else; what no manager heard of is given up in time; three nodes share a /29.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Cluster, NetNs, Node, output, run, wait};

const SOON: Duration = Duration::from_secs(30);

fn create(cluster: &Cluster, subnet: &str) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", subnet, "--attachable", "open"])?;
    cluster.wait_for_view()
}

/// A namespace, and its address once it is attached.
struct Guest {
    namespace: NetNs,
    name: String,
    path: String,
}

impl Guest {
    fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let namespace = NetNs::create(&cluster.net().prefix().namespace(name))?;
        let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
        Ok(Self { namespace, name: name.to_owned(), path })
    }

    fn attached(cluster: &Cluster, node: &Node, name: &str) -> Result<Self> {
        let guest = Self::new(cluster, name)?;
        guest.attach(node, &[])?;
        Ok(guest)
    }

    fn words<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["attach", "--network", "open", "--name", &self.name];
        words.into_iter().chain(more.iter().copied()).chain([self.path.as_str()]).collect()
    }

    fn attach(&self, node: &Node, more: &[&str]) -> Result<()> {
        node.ctl(&self.words(more)).map(drop)
    }

    /// What the kernel says of its address; none while it has none.
    fn link(&self) -> Result<Option<serde_json::Value>> {
        let words = ["-json", "addr", "show", "dev", "eth0", "scope", "global"];
        let text = output(self.namespace.command("ip")?.args(words))?;
        let links: serde_json::Value = serde_json::from_str(&text).context("what ip prints")?;
        Ok(links[0]["addr_info"].get(0).filter(|info| info["local"].is_string()).cloned())
    }

    fn address(&self) -> Result<IpAddr> {
        let info = self.link()?.context("it has no address")?;
        info["local"].as_str().context("no address")?.parse().context("an address")
    }
}

/// Waits until the managers know which addresses the node's tasks use.
fn confirmed(node: &Node) -> Result<()> {
    wait("the managers to hear of all addresses", SOON, || {
        let status = node.ctl_json(&["status"])?;
        ensure!(status["leases"]["unconfirmed"] == 0, "{}", status["leases"]);
        Ok(())
    })
}

fn tasks(node: &Node) -> Result<Vec<String>> {
    let tasks = node.ctl_json(&["task", "ls"])?;
    let names = tasks.as_array().context("`task ls` is no list")?.iter();
    Ok(names.filter_map(|task| task["name"].as_str()).map(str::to_owned).collect())
}

#[test]
fn tasks_are_attached_without_a_manager() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        create(cluster, "10.10.4.0/24")?;
        let _first = Guest::attached(cluster, worker, "first")?;
        confirmed(worker)?;
        manager.kill()?;
        let second = Guest::attached(cluster, worker, "second")?;
        // A daemon that starts meanwhile goes on with what it had.
        worker.kill()?;
        worker.start()?;
        let _third = Guest::attached(cluster, worker, "third")?;
        let mut more = Vec::new();
        let refused = loop {
            let guest = Guest::new(cluster, &format!("more{}", more.len()))?;
            match guest.attach(worker, &[]) {
                Ok(()) => more.push(guest),
                Err(error) => break error.to_string(),
            }
            ensure!(more.len() < 20, "a lease without an end");
        };
        ensure!(refused.contains("no manager is reachable"), "{refused}");
        let asked = Guest::new(cluster, "asked")?;
        let refusal = worker.refused(&asked.words(&["--ip", "10.10.4.99"]))?;
        ensure!(refusal.message.contains("no manager is reachable"), "{refusal:?}");
        worker.ctl(&["detach", "second"])?;
        second.attach(worker, &[])?;
        manager.start()?;
        wait("a session", SOON, || asked.attach(worker, &["--ip", "10.10.4.99"]))?;
        confirmed(worker)
    })
}

#[test]
fn three_nodes_share_a_29() -> Result<()> {
    run(3, |cluster| {
        create(cluster, "10.10.5.0/29")?;
        let mut guests = Vec::new();
        for node in cluster.nodes() {
            guests.push(Guest::attached(cluster, node, &format!("on-{}", node.name()))?);
        }
        // What the others have to spare comes back when it is wanted.
        for name in ["fourth", "fifth"] {
            let guest = Guest::new(cluster, name)?;
            wait("an address", SOON, || guest.attach(&cluster[0], &[]))?;
            guests.push(guest);
        }
        let mut addresses = guests.iter().map(Guest::address).collect::<Result<Vec<_>>>()?;
        addresses.sort();
        addresses.dedup();
        ensure!(addresses.len() == 5, "{addresses:?}");
        for node in cluster.nodes() {
            confirmed(node)?;
        }
        let sixth = Guest::new(cluster, "sixth")?;
        let refusal = cluster[1].refused(&sixth.words(&[]))?;
        for part in ["no free address", "n1: 3 (3 in use)", "n2: 1 (1 in use)", "n3: 1 (1 in use)"] {
            ensure!(refusal.message.contains(part), "{refusal:?} lacks {part:?}");
        }
        cluster[2].ctl(&["detach", "on-n3"])?;
        wait("the address that was given up", SOON, || sixth.attach(&cluster[1], &[]))
    })
}

#[test]
fn a_silent_node_keeps_what_its_tasks_use() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        manager.ctl(&["cluster", "update", "--lease-grace", "10s"])?;
        create(cluster, "10.10.6.0/28")?;
        let first = Guest::attached(cluster, worker, "first")?;
        confirmed(worker)?;
        let used = first.address()?;
        worker.kill()?;
        // Every other address can be had in time, also those that were leased to the node.
        let mut others = Vec::new();
        for last in 2..15u8 {
            let address = IpAddr::from([10, 10, 6, last]);
            if address == used {
                continue;
            }
            let guest = Guest::new(cluster, &format!("g{last}"))?;
            let words = address.to_string();
            wait("the address", 2 * SOON, || guest.attach(manager, &["--ip", &words]))?;
            others.push(guest);
        }
        let asked = Guest::new(cluster, "asked")?;
        let refusal = manager.refused(&asked.words(&["--ip", &used.to_string()]))?;
        ensure!(refusal.message.contains("leased to node n2"), "{refusal:?}");
        // It comes back with its task, and gives nothing that is others' by now.
        worker.start()?;
        wait("its task to be listed", SOON, || {
            let tasks = tasks(worker)?;
            ensure!(tasks.contains(&"first".to_owned()), "{tasks:?}");
            Ok(())
        })?;
        ensure!(first.address()? == used, "it has another address");
        wait("it to know that there is no other address", SOON, || {
            let refusal = worker.refused(&asked.words(&[])).inspect_err(|_| {
                let _ = worker.ctl(&["detach", "asked"]);
            })?;
            ensure!(refusal.message.contains("no free address"), "{refusal:?}");
            Ok(())
        })
    })
}

#[test]
fn an_address_that_no_manager_heard_of_is_given_up() -> Result<()> {
    run(2, |cluster| {
        let (manager, worker) = (&cluster[0], &cluster[1]);
        manager.ctl(&["cluster", "update", "--lease-grace", "40s"])?;
        create(cluster, "10.10.7.0/24")?;
        let first = Guest::attached(cluster, worker, "first")?;
        confirmed(worker)?;
        manager.kill()?;
        let second = Guest::attached(cluster, worker, "second")?;
        wait("the kernel to be told how long it may have the address", SOON, || {
            let info = second.link()?.context("it has no address")?;
            let left = info["valid_life_time"].as_u64().context("no lifetime")?;
            ensure!(left < 60, "it has it for {left} s");
            Ok(())
        })?;
        // The daemon is there: it detaches the task.
        wait("the task to be detached", 2 * SOON, || {
            let tasks = tasks(worker)?;
            ensure!(tasks == ["first"], "{tasks:?}");
            Ok(())
        })?;
        wait("nothing to be left of it", SOON, || {
            let refusal = worker.refused(&second.words(&[]))?;
            ensure!(refusal.message.contains("no manager is reachable"), "{refusal:?}");
            Ok(())
        })?;
        manager.start()?;
        wait("a manager to lease an address", SOON, || second.attach(worker, &[]))?;
        confirmed(worker)?;

        // The daemon is not there: the kernel takes the address.
        manager.kill()?;
        let third = Guest::attached(cluster, worker, "third")?;
        wait("the kernel to be told again", SOON, || {
            let info = third.link()?.context("it has no address")?;
            ensure!(info["valid_life_time"].as_u64().is_some_and(|left| left < 60), "{info}");
            Ok(())
        })?;
        worker.kill()?;
        wait("the kernel to take the address", 2 * SOON, || match third.link()? {
            None => Ok(()),
            Some(info) => bail!("it has {info}"),
        })?;
        first.address()?;
        second.address()?;
        worker.start()?;
        wait("the task without an address to go", SOON, || {
            let mut left = tasks(worker)?;
            left.sort();
            ensure!(left == ["first", "second"], "{left:?}");
            Ok(())
        })?;
        manager.start()
    })
}
