//! What people see of flows: `meshctl flows`, `trace`, `top`, `monitor` and `capture`, with real clients and servers.

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Nginx, Node, Task, TaskSpec, run, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn spec<'a>(name: &'a str, network: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network, service, ..TaskSpec::default() }
}

/// The network `prod` with the service `web`, published as 8080, whose task is on the second node; `probe` is a task of
/// the first one. The network `closed` has no way out.
fn world(cluster: &Cluster) -> Result<(Nginx, Task, Task)> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
    cluster[0].ctl(&[
        "network",
        "create",
        "--subnet",
        "10.10.4.0/24",
        "--internal",
        "--attachable",
        "closed",
    ])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "8080:80", "web"])?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "empty"])?;
    cluster.wait_for_view()?;
    let web = cluster[1].run_nginx(&spec("web.1", "prod", Some("web")))?;
    let probe = cluster[0].run_idle(&spec("probe", "prod", None))?;
    let closed = cluster[0].run_idle(&spec("shut", "closed", None))?;
    Ok((web, probe, closed))
}

/// The virtual address of a service.
fn vip(node: &Node, service: &str) -> Result<SocketAddr> {
    let told = node.ctl_json(&["service", "inspect", service])?;
    let text = told.to_string();
    let vip = text.split("\"vips\":[\"").nth(1).and_then(|rest| rest.split('"').next());
    let vip = vip.with_context(|| format!("no VIP in {text}"))?;
    Ok(SocketAddr::new(vip.parse()?, 80))
}

/// What `flows` lists.
fn flows(node: &Node, words: &[&str]) -> Result<Vec<Value>> {
    let text = node.ctl(&[&["--format", "json", "flows"], words].concat())?;
    text.lines().map(|line| serde_json::from_str(line).context("a flow a line")).collect()
}

/// What a trace tells, whatever becomes of the packet.
fn trace(node: &Node, from: &str, to: &str) -> Result<Value> {
    let mut meshctl = node.meshctl()?;
    let output = meshctl.args(["--format", "json", "trace", "--from", from, "--to", to]).output()?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{from} to {to}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let works = told["fate"] == "delivered" || told["fate"] == "left";
    ensure!(output.status.success() == works, "{:?}: {told}", output.status);
    Ok(told)
}

/// Waits until a trace ends so; the stations are given as `NODE PLACE`.
fn ends(node: &Node, from: &str, to: &str, fate: &str, about: &str, stations: &[&str]) -> Result<()> {
    wait("the trace", SOON, || {
        let told = trace(node, from, to)?;
        let steps = told["steps"].as_array().context("steps")?;
        let station = |step: &Value| Some(format!("{} {}", step["node"].as_str()?, step["place"].as_str()?));
        let passed: Vec<String> = steps.iter().filter_map(station).collect();
        ensure!(told["fate"] == fate && told.to_string().contains(about), "{from} to {to}: {told}");
        ensure!(passed == stations, "{from} to {to}: {passed:?}, {told}");
        Ok(())
    })
}

#[test]
fn flows_are_listed_and_traced() -> Result<()> {
    run(2, |cluster| {
        let (web, probe, _closed) = world(cluster)?;
        let (front, port) = (vip(&cluster[0], "web")?, SocketAddr::from((cluster.net().address(0), 8080)));
        let open = |to: SocketAddr| move || TcpStream::connect_timeout(&to, Duration::from_secs(2));

        // A task's connection by the virtual address, and one from outside by the published port of the other node.
        let by_vip = wait("the VIP", SOON, || probe.inside(open(front))?.context("connect"))?;
        let by_port = wait("the port", SOON, || cluster.net().client().run(open(port))?.context("connect"))?;
        let outside = cluster.net().client_address().to_string();
        wait("both flows on the node that they enter", SOON, || {
            let all = flows(&cluster[0], &["--service", "web"])?;
            let of = |address: &str| all.iter().find(|flow| flow["client_address"] == address);
            let by_vip =
                of(&probe.address()?.to_string()).with_context(|| format!("no flow by the VIP: {all:?}"))?;
            ensure!(by_vip["client"] == "probe" && by_vip["task"] == "web.1", "{by_vip}");
            ensure!(by_vip["node"] == "n2" && by_vip["network"] == "prod", "{by_vip}");
            let by_port = of(&outside).with_context(|| format!("no flow by the port: {all:?}"))?;
            ensure!(by_port["port"] == 8080 && by_port["task_port"] == 80, "{by_port}");
            ensure!(by_port["entrance"] == "n1" && by_port["client"].is_null(), "{by_port}");
            Ok(())
        })?;
        wait("the same flows on the task's node", SOON, || {
            let all = flows(&cluster[1], &["--task", "web.1", "--protocol", "tcp"])?;
            ensure!(all.len() == 2 && all.iter().all(|flow| flow["entrance"] == "n1"), "{all:?}");
            Ok(())
        })?;
        let count = |words: &[&str]| Ok::<_, anyhow::Error>(flows(&cluster[0], words)?.len());
        ensure!(count(&["--client", &format!("{outside}/32")])? == 1, "by client");
        ensure!(count(&["--client", "probe", "--port", "80"])? == 1, "by task");
        ensure!(count(&["--network", "closed"])? == 0, "by network");
        ensure!(count(&["--limit", "1"])? == 1, "with a limit");
        let refused = cluster[0].refused(&["flows", "--service", "nobody"])?;
        ensure!(refused.message.contains("no such service: nobody"), "{}", refused.message);
        let refused = cluster[0].refused(&["flows", "--client", "10.0.0.0/33"])?;
        ensure!(refused.message.contains("no address, no range"), "{}", refused.message);
        drop((by_vip, by_port));

        // Each packet's way, by name; what the traces noted is gone again.
        let resolver = "n1 the task's resolver";
        let node = &cluster[0];
        let web_address = web.task.address()?;
        ends(node, "probe", "web:80", "delivered", "web.1", &[resolver, "n1 from_task", "n2 uplink"])?;
        ends(
            node,
            "probe",
            &format!("{web_address}:80"),
            "delivered",
            "web.1",
            &["n1 from_task", "n2 uplink"],
        )?;
        ends(node, "probe", "empty:80", "dropped", "no-backend", &[resolver, "n1 from_task"])?;
        ends(node, "probe", "10.10.3.99:80", "dropped", "no-endpoint", &["n1 from_task"])?;
        ends(node, "shut", "203.0.113.1:80", "dropped", "internal-network", &["n1 from_task"])?;
        let from_outside = format!("{outside}@n1");
        ends(node, &from_outside, "web:8080", "delivered", "web.1", &["n1 uplink", "n2 uplink"])?;
        // The sender is elsewhere.
        ends(&cluster[1], "probe", "web:80", "delivered", "web.1", &[resolver, "n1 from_task", "n2 uplink"])?;
        // By a port of another node, from there on its own.
        ends(node, "probe", "n2:8080", "delivered", "web.1", &[resolver, "n1 from_task", "n2 uplink"])?;
        wait("what the traces noted to be gone", SOON, || {
            for node in cluster.nodes() {
                let left = flows(node, &["--state", "new"])?;
                ensure!(left.is_empty(), "{}: {left:?}", node.name());
            }
            Ok(())
        })?;
        let unknown = cluster[0].refused(&["trace", "--from", "nobody", "--to", "web:80"])?;
        ensure!(unknown.message.contains("no such task: nobody"), "{}", unknown.message);

        // One look at all, where nobody watches.
        let text = output_of(node.meshctl()?.args(["top"]))?;
        ensure!(text.contains("web") && text.contains("probe"), "{text}");
        Ok(())
    })
}

fn output_of(command: &mut Command) -> Result<String> {
    mesh_tests::output(command)
}
