//! Tasks and what is the host's own: its processes, its firewall, its ports.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Node, OUTSIDE, TaskSpec, output, run, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

fn create(cluster: &Cluster) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
    cluster.wait_for_view()
}

fn task<'a>(name: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network: "prod", service, ..TaskSpec::default() }
}

/// A listener in a node's own namespace.
fn listen(cluster: &Cluster, node: usize, port: u16) -> Result<TcpListener> {
    let bind = move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    cluster.net().nodes()[node].run(bind)?.with_context(|| format!("port {port}"))
}

fn warnings(node: &Node) -> Result<Vec<String>> {
    let status = node.ctl_json(&["status"])?;
    let warnings = status["warnings"].as_array().context("`status` has no warnings")?;
    Ok(warnings.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_told_with_its_cure() -> Result<()> {
    run(1, |cluster| {
        create(cluster)?;
        let (node, namespace) = (&cluster[0], &cluster.net().nodes()[0]);
        let nft = |line: &str| output(namespace.command("sh")?.args(["-c", line]));
        nft(
            "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        )?;
        nft("nft add rule ip filter FORWARD iifname docker0 accept")?;
        let before = nft("nft list table ip filter")?;
        let asker = node.run_idle(&task("asker", None))?;
        let server = cluster.net().hub().run(|| TcpListener::bind((OUTSIDE, 9000)))?.context("port 9000")?;
        let reach = || {
            let to = SocketAddr::from((OUTSIDE, 9000));
            asker
                .inside(move || TcpStream::connect_timeout(&to, Duration::from_millis(500)))?
                .context("connect")
        };
        let warning = wait("a word about the firewall", SOON, || {
            warnings(node)?.into_iter().find(|w| w.contains("FORWARD")).context("no warning")
        })?;
        ensure!(reach().is_err(), "the firewall did not drop");
        ensure!(nft("nft list table ip filter")? == before, "the host's own rules were changed");
        // What is told helps, in nft's words or those of iptables, which this machine may not have.
        ensure!(warning.contains("iptables -I FORWARD -s 169.254.64.0/18 -j ACCEPT"), "{warning}");
        nft("nft insert rule ip filter FORWARD ip saddr 169.254.64.0/18 accept; \
             nft insert rule ip filter FORWARD ip daddr 169.254.64.0/18 ct state established,related accept")?;
        wait("the way out", SOON, reach)?;
        drop(server);
        node.kill()?;
        node.start()?;
        wait("the warning to end", SOON, || {
            let warnings = warnings(node)?;
            ensure!(!warnings.iter().any(|w| w.contains("FORWARD")), "{warnings:?}");
            Ok(())
        })
    })
}

#[test]
fn tasks_reach_the_ports_of_nodes_and_see_no_other_way_in() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let _servers = [listen(cluster, 0, 9000)?, listen(cluster, 1, 9000)?];
        for node in cluster.nodes() {
            let name = format!("asker{}", node.index());
            let asker = node.run_idle(&task(&name, None))?;
            for server in cluster.nodes() {
                let to = SocketAddr::from((server.address(), 9000));
                let reach =
                    || asker.inside(move || TcpStream::connect_timeout(&to, SOON))?.context("connect");
                wait("a node's port", SOON, reach).with_context(|| format!("{to} from {}", node.name()))?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_process_that_a_published_port_shadows_is_told() -> Result<()> {
    run(2, |cluster| {
        create(cluster)?;
        let held = listen(cluster, 1, 8080)?;
        let _other = listen(cluster, 1, 8081)?;
        let listeners = |node: &Node| -> Result<Vec<Value>> {
            let status = node.ctl_json(&["status"])?;
            Ok(status["listeners"].as_array().cloned().unwrap_or_default())
        };
        cluster[0].ctl(&["publish", "8080:80", "web"])?;
        let found = wait("the listener to be found", SOON, || {
            let found = listeners(&cluster[1])?;
            ensure!(found.len() == 1, "{found:?}");
            Ok(found[0].clone())
        })?;
        ensure!(found["port"] == 8080 && found["pid"] == std::process::id(), "{found}");
        ensure!(listeners(&cluster[0])?.is_empty(), "{:?}", listeners(&cluster[0])?);
        // Managers know it of every node.
        wait("the manager to know it", SOON, || {
            let service = cluster[0].ctl(&["service", "inspect", "web"])?;
            ensure!(service.contains("listened on") && service.contains("n2"), "{service}");
            Ok(())
        })?;
        drop(held);
        // Looked for again when ports change.
        cluster[0].ctl(&["publish", "8090:80", "web"])?;
        wait("the listener to be forgotten", SOON, || {
            ensure!(listeners(&cluster[1])?.is_empty(), "{:?}", listeners(&cluster[1])?);
            let service = cluster[0].ctl(&["service", "inspect", "web"])?;
            ensure!(!service.contains("listened on"), "{service}");
            Ok(())
        })
    })
}

/// The table makes the kernel track every connection of the node: it is there for tasks with a way out alone.
#[test]
fn the_way_out_is_there_for_as_long_as_somebody_has_one() -> Result<()> {
    run(1, |cluster| {
        create(cluster)?;
        cluster[0].ctl(&[
            "network",
            "create",
            "--subnet",
            "10.10.4.0/24",
            "--attachable",
            "--internal",
            "back",
        ])?;
        cluster.wait_for_view()?;
        let node = &cluster[0];
        let tables = || -> Result<bool> {
            Ok(output(node.command("nft")?.args(["list", "tables"]))?.contains("table ip meshd"))
        };
        let shall_be = |there: bool| {
            wait("the node's table", SOON, || {
                let is = tables()?;
                ensure!(is == there, "it is there: {is}");
                Ok(())
            })
        };
        shall_be(false)?;
        let inner = node.run_idle(&TaskSpec { name: "inner", network: "back", ..TaskSpec::default() })?;
        shall_be(false)?;
        let mut one = node.run_idle(&task("one", None))?;
        let mut two = node.run_idle(&task("two", None))?;
        shall_be(true)?;
        one.kill()?;
        node.kill()?;
        node.start()?;
        shall_be(true)?;
        two.kill()?;
        shall_be(false)?;
        // As they come and go on a running task.
        node.ctl(&["network", "connect", "prod", "inner"])?;
        shall_be(true)?;
        node.ctl(&["network", "disconnect", "prod", "inner"])?;
        shall_be(false)?;
        drop(inner);
        Ok(())
    })
}

/// With `egress_linger` the table outlives the last task: the next one has its way out at once, and so has the node's first.
/// Then the table goes.
#[test]
fn the_way_out_lingers_for_the_next_task() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let linger = Duration::from_secs(8);
        node.stop()?;
        let config = std::fs::read_to_string(node.config())?;
        ensure!(config.contains("egress_linger = 0\n"), "another configuration: {config}");
        let config =
            config.replace("egress_linger = 0\n", &format!("egress_linger = {}\n", linger.as_secs()));
        std::fs::write(node.config(), config).context("the configuration")?;
        node.start()?;
        cluster.wait_for_view()?;
        create(cluster)?;
        let handle = || -> Result<Option<String>> {
            let told = output(node.command("nft")?.args(["--handle", "list", "tables"]))?;
            Ok(told.lines().find(|line| line.contains("table ip meshd")).map(str::to_owned))
        };
        let server = cluster.net().hub().run(|| TcpListener::bind((OUTSIDE, 9000)))?.context("port 9000")?;
        // Tried once: whoever was told that the task is attached may rely on it.
        let reaches = |name: &str| -> Result<()> {
            let mut task = node.run_idle(&task(name, None))?;
            let to = SocketAddr::from((OUTSIDE, 9000));
            let connected = task.inside(move || TcpStream::connect_timeout(&to, SOON))?;
            connected.with_context(|| format!("the way out of task {name}"))?;
            task.kill()?;
            wait("the task to end", SOON, || {
                ensure!(node.ctl_json(&["status"])?["tasks"] == 0, "it is there");
                Ok(())
            })
        };
        ensure!(handle()?.is_none(), "a table without tasks");
        reaches("first")?;
        let table = handle()?.context("the table did not stay")?;
        for name in ["second", "third"] {
            reaches(name)?;
            ensure!(handle()?.as_ref() == Some(&table), "the table was made anew for task {name}");
        }
        wait("the table to go", linger + SOON * 2, || {
            ensure!(handle()?.is_none(), "it is there");
            Ok(())
        })?;
        drop(server);
        Ok(())
    })
}
