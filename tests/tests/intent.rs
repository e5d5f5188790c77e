//! What people want of a cluster that runs: tasks join and leave networks, services change theirs, files declare it all,
//! and events tell what changed.

use std::{
    fs::File,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::Child,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, NetNs, Node, Task, TaskSpec, UdpEcho, output, run, wait};
use serde_json::Value;

/// The machine may be busy with much else.
const SOON: Duration = Duration::from_secs(20);

fn sandbox(cluster: &Cluster, name: &str) -> Result<(NetNs, String)> {
    let namespace = NetNs::create(&cluster.net().prefix().namespace(name))?;
    let path = namespace.path().to_str().context("the namespace's path")?.to_owned();
    Ok((namespace, path))
}

fn links(namespace: &NetNs) -> Result<String> {
    output(namespace.command("ip")?.args(["-br", "link"]))
}

/// What a program in the namespace finds at the task's own name server.
fn dig(namespace: &NetNs, name: &str) -> Result<Vec<String>> {
    let text =
        output(namespace.command("dig")?.args(["@127.0.0.11", "+short", "+tries=1", "+time=6", name]))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn create_networks(node: &Node) -> Result<()> {
    let create = ["network", "create", "--driver", "overlay", "--attachable", "--subnet"];
    node.ctl(&[&create[..], &["10.10.3.0/24", "a"]].concat())?;
    node.ctl(&[&create[..], &["10.10.4.0/24", "b"]].concat()).map(drop)
}

/// The networks of the task that a node knows by this name.
fn networks_of(node: &Node, task: &str) -> Result<Vec<String>> {
    let tasks = node.ctl_json(&["task", "ls"])?;
    let found = tasks.as_array().into_iter().flatten().find(|one| one["name"] == task);
    let places = found.context("the task is not listed")?["networks"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<_> =
        places.iter().filter_map(|on| on["network"].as_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// Asks UDP port 9 of `name` who answers.
fn ask(from: &Task, name: &str) -> Result<String> {
    let found = from.dig(&[name])?;
    let address: Ipv4Addr = found.first().context("no address")?.parse().context("no address")?;
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
        UdpEcho::ask(&socket, (address, 9).into(), "hello")
    };
    Ok(from.inside(ask)??.0)
}

#[test]
fn a_running_task_is_connected_and_disconnected() -> Result<()> {
    run(2, |cluster| {
        create_networks(&cluster[0])?;
        cluster[0].ctl(&["network", "create", "--driver", "overlay", "closed"])?;
        cluster.wait_for_view()?;
        let spec = TaskSpec { name: "observer", network: "b", ..TaskSpec::default() };
        let observer = cluster[0].run_idle(&spec)?;
        let (namespace, path) = sandbox(cluster, "guest")?;
        let node = &cluster[1];
        let (empty, nothing) = (links(&namespace)?, node.links()?);
        node.ctl(&["attach", "--network", "a", "--name", "guest", &path])?;
        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)))?.context("port 9")?;
        let _echo = UdpEcho::serve(socket, "guest")?;

        let (inside, outside) = (links(&namespace)?, node.links()?);
        let refusal = node.refused(&["network", "connect", "closed", "guest"])?;
        ensure!(refusal.message.contains("attachable"), "{refusal:?}");
        let taken = observer.address()?.to_string();
        wait("the observer to be known here", SOON, || {
            let refusal = node.refused(&["network", "connect", "--ip", &taken, "b", "guest"])?;
            ensure!(refusal.message.contains(&taken), "{refusal:?}");
            Ok(())
        })?;
        ensure!(links(&namespace)? == inside, "a refused connect left a link in the namespace");
        ensure!(node.links()? == outside, "a refused connect left a link on the node");

        node.ctl(&["network", "connect", "--ip", "10.10.4.77", "--alias", "visitor", "b", "guest"])?;
        for name in ["guest", "visitor"] {
            let who = wait("an answer by the new network", SOON, || ask(&observer, name))?;
            ensure!(who == "guest", "{who} answers as {name}");
        }
        wait("the names of the new network inside", SOON, || {
            let found = dig(&namespace, "observer")?;
            ensure!(found == [taken.clone()], "the guest finds {found:?}");
            Ok(())
        })?;
        let refusal = node.refused(&["network", "connect", "b", "guest"])?;
        ensure!(refusal.message.contains("already"), "{refusal:?}");
        let way = output(namespace.command("ip")?.args(["route", "show", "default"]))?;
        ensure!(way.contains("10.10.3.1"), "the way out moved: {way}");

        node.ctl(&["network", "disconnect", "a", "guest"])?;
        let way = output(namespace.command("ip")?.args(["route", "show", "default"]))?;
        ensure!(way.contains("10.10.4.1"), "no way out by the network that is left: {way}");
        ensure!(wait("an answer still", SOON, || ask(&observer, "visitor"))? == "guest");
        let refusal = node.refused(&["network", "disconnect", "b", "guest"])?;
        ensure!(refusal.message.contains("meshctl detach guest"), "{refusal:?}");
        node.ctl(&["detach", "guest"])?;
        ensure!(links(&namespace)? == empty, "a link stays in the namespace");
        ensure!(node.links()? == nothing, "a link stays on the node");
        Ok(())
    })
}

#[test]
fn tasks_follow_their_service_to_its_networks() -> Result<()> {
    run(2, |cluster| {
        let manager = &cluster[0];
        create_networks(manager)?;
        manager.ctl(&["service", "create", "--network", "a", "web"])?;
        cluster.wait_for_view()?;
        let observer =
            manager.run_idle(&TaskSpec { name: "observer", network: "b", ..TaskSpec::default() })?;
        let (namespace, path) = sandbox(cluster, "web1")?;
        cluster[1].ctl(&["attach", "--service", "web", "--name", "web1", &path])?;
        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)))?.context("port 9")?;
        let _echo = UdpEcho::serve(socket, "web1")?;

        let version = manager.ctl_json(&["service", "inspect", "web"])?[0]["version"].to_string();
        manager.ctl(&[
            "service",
            "update",
            "--network-add",
            "name=b,alias=shop",
            "--if-version",
            &version,
            "web",
        ])?;
        let refusal =
            manager.refused(&["service", "update", "--network-rm", "a", "--if-version", &version, "web"])?;
        ensure!(refusal.message.contains("changed meanwhile"), "{refusal:?}");
        for name in ["web", "shop", "tasks.web", "web1"] {
            let who = wait("the service on its new network", SOON, || ask(&observer, name))?;
            ensure!(who == "web1", "{who} answers as {name}");
        }

        manager.ctl(&["service", "update", "--network-rm", "a", "--alias-rm", "b:shop", "web"])?;
        wait("the task to leave with its service", SOON, || {
            let networks = networks_of(manager, "web1")?;
            ensure!(networks == ["b"], "it is on {networks:?}");
            ensure!(observer.dig(&["shop"])?.is_empty(), "the alias stays");
            Ok(())
        })?;
        ensure!(wait("an answer still", SOON, || ask(&observer, "web"))? == "web1");
        // Nothing of it is left there: the network can go.
        wait("the network to be free", SOON, || manager.ctl(&["network", "rm", "a"]).map(drop))
    })
}

/// `meshctl events` while it runs.
struct Follower(Child);

impl Follower {
    fn start(node: &Node, into: &Path) -> Result<Self> {
        let file = File::create(into).context("the file of events")?;
        let mut command = node.meshctl()?;
        command.args(["--format", "json", "events", "--since", "1h"]).stdout(file);
        Ok(Self(command.spawn().context("meshctl events")?))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `TYPE EVENT NAME` of each event so far; a last line may be half written.
fn told(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).context("the file of events")?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let line = |line: &str| -> Result<String> {
        let event: Value = serde_json::from_str(line).with_context(|| format!("event {line}"))?;
        Ok(format!("{} {} {}", word(&event, "type"), word(&event, "event"), word(&event, "name")))
    };
    whole.lines().map(line).collect()
}

const FILE: &str = r#"
networks:
  front: {subnets: [10.20.0.0/24], attachable: true, labels: {tier: "1"}}
  back: {internal: true, mtu: 1400}
services:
  web:
    networks: {front: {aliases: [www]}, back: {}}
    ports: ["8080:80", "81"]
    affinity: client-ip,30m
  db: {networks: [back], endpoint_mode: dnsrr}
"#;

#[test]
fn files_declare_what_there_is_and_events_tell_what_changed() -> Result<()> {
    run(1, |cluster| {
        let node = &cluster[0];
        let folder = node.state_folder();
        let events = folder.join("events.json");
        let _follower = Follower::start(node, &events)?;
        let apply = |name: &str, text: &str, options: &[&str]| -> Result<String> {
            let file = folder.join(name);
            std::fs::write(&file, text).context("the file to apply")?;
            let path = file.to_str().context("its path")?;
            node.ctl(&[&["apply", "-f", path], options].concat())
        };
        let shown = apply("mesh.yaml", FILE, &["--dry-run"])?;
        ensure!(shown.contains("4 would be created") && shown.contains("+ port 8080:80/tcp"), "{shown}");
        ensure!(node.ctl_json(&["service", "ls"])? == Value::Array(vec![]), "a dry run made something");
        apply("mesh.yaml", FILE, &[])?;
        let again = apply("mesh.yaml", FILE, &["--prune"])?;
        ensure!(again.trim() == "nothing to change", "{again}");
        let exported = node.ctl(&["export"])?;
        let same = apply("exported.yaml", &exported, &["--prune"])?;
        ensure!(same.trim() == "nothing to change", "{same}\n{exported}");

        let moved = FILE
            .replace("\"8080:80\", ", "")
            .replace("endpoint_mode: dnsrr", "endpoint_mode: vip, ports: [\"8080:80\"]");
        apply("mesh.yaml", &moved, &[])?;
        let ports = node.ctl_json(&["service", "inspect", "db"])?[0]["ports"].clone();
        ensure!(ports[0]["published"] == 8080, "the port did not move: {ports}");

        // Removed, and made again of what was exported.
        apply("empty.yaml", "", &["--prune"])?;
        ensure!(node.ctl_json(&["service", "ls"])? == Value::Array(vec![]), "a service stays");
        apply("exported.yaml", &exported, &[])?;
        ensure!(node.ctl(&["export"])? == exported, "what is made again is other than before");

        let expected = [
            "network create front",
            "network create back",
            "service create web",
            "service create db",
            "service update db",
            "service update web",
            "service remove web",
            "network remove back",
        ];
        wait("the events", SOON, || {
            let told = told(&events)?;
            for event in expected {
                ensure!(told.iter().any(|one| one == event), "{event} is not told of: {told:#?}");
            }
            Ok(())
        })?;
        node.ctl(&["service", "rm", "web", "db"])?;
        let pruned = node.ctl(&["network", "prune", "--force", "--filter", "label=tier"])?;
        ensure!(pruned.trim() == "front", "pruned: {pruned}");
        let pruned = node.ctl(&["network", "prune", "--force"])?;
        ensure!(pruned.trim() == "back", "pruned: {pruned}");
        Ok(())
    })
}
