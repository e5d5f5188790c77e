//! `meshctl trace`: packets and their answers, followed through the programs of all nodes on the way; by both paths between
//! nodes, in both families, and where replies go straight.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Node, Task, TaskSpec, Wire, run, run_on, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const BOTH: Wire = Wire { v4: true, v6: true, mtu: 1500, second: false };
const SIX: Wire = Wire { v4: false, v6: true, mtu: 1500, second: false };

fn spec<'a>(name: &'a str, network: &'a str, service: Option<&'a str>) -> TaskSpec<'a> {
    TaskSpec { name, network, service, ..TaskSpec::default() }
}

/// The network `prod` of both families with the service `web`, published as 8080 and, replies going straight, as 8081, whose task
/// is on the second node; and the service `empty`. `probe` is a task of the first node.
fn world(cluster: &Cluster) -> Result<[Task; 2]> {
    let subnets = ["--subnet", "10.10.3.0/24", "--subnet", "fd00:3::/64"];
    cluster[0].ctl(&[&["network", "create", "--attachable"][..], &subnets, &["prod"]].concat())?;
    let direct = "published=8081,target=80,return=direct";
    let ports = ["--publish", "8080:80", "--publish", direct];
    cluster[0].ctl(&[&["service", "create", "--network", "prod"][..], &ports, &["web"]].concat())?;
    cluster[0].ctl(&["service", "create", "--network", "prod", "empty"])?;
    cluster.wait_for_view()?;
    let web = cluster[1].run_idle(&spec("web.1", "prod", Some("web")))?;
    let probe = cluster[0].run_idle(&spec("probe", "prod", None))?;
    Ok([web, probe])
}

/// The virtual address of a service in one of the families.
fn vip(node: &Node, service: &str, v4: bool) -> Result<IpAddr> {
    let told = node.ctl_json(&["service", "inspect", service])?;
    let text = told.to_string();
    let vips = text.split("\"vips\":[").nth(1).and_then(|rest| rest.split(']').next());
    let vips = vips.with_context(|| format!("no VIPs in {text}"))?;
    let mut all = vips.split(',').filter_map(|vip| vip.trim_matches('"').parse::<IpAddr>().ok());
    all.find(|vip| vip.is_ipv4() == v4).with_context(|| format!("no such VIP in {text}"))
}

fn address6(task: &Task) -> Result<Ipv6Addr> {
    let mut all = task.addresses()?.into_iter();
    let found = all.find_map(|a| if let IpAddr::V6(a) = a { Some(a) } else { None });
    found.with_context(|| format!("task {} has no IPv6 address", task.name()))
}

/// Waits until no node knows a flow that nobody has answered: what traces noted is gone again.
fn nothing_noted(cluster: &Cluster) -> Result<()> {
    wait("what the traces noted to be gone", SOON, || {
        for node in cluster.nodes() {
            let left = node.ctl(&["--format", "json", "flows", "--state", "new"])?;
            ensure!(left.trim().is_empty(), "{}: {left}", node.name());
        }
        Ok(())
    })
}

/// What a trace tells, whatever becomes of the packet and its answer.
fn trace(node: &Node, from: &str, to: &str, words: &[&str]) -> Result<Value> {
    let mut meshctl = node.meshctl()?;
    let output =
        meshctl.args(["--format", "json", "trace", "--from", from, "--to", to]).args(words).output()?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{from} to {to}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let arrives = |end: &Value| end["fate"] == "delivered" || end["fate"] == "left";
    let works = arrives(&told) && (told["back"].is_null() || arrives(&told["back"]));
    ensure!(output.status.success() == works, "{:?}: {told}", output.status);
    Ok(told)
}

/// Waits until a trace ends so; the stations are given as `NODE PLACE`.
fn ends(node: &Node, from: &str, to: &str, fate: &str, about: &str, stations: &[&str]) -> Result<()> {
    ends_by(node, from, to, &[], fate, about, stations)
}

/// The same, with these further words.
fn ends_by(
    node: &Node,
    from: &str,
    to: &str,
    words: &[&str],
    fate: &str,
    about: &str,
    stations: &[&str],
) -> Result<()> {
    wait("the trace", SOON, || {
        let told = trace(node, from, to, words)?;
        let passed = stations_of(&told)?;
        ensure!(told["fate"] == fate && told.to_string().contains(about), "{from} to {to}: {told}");
        ensure!(passed == stations, "{from} to {to}: {passed:?}, {told}");
        Ok(())
    })
}

/// Node and place of each step.
fn stations_of(way: &Value) -> Result<Vec<String>> {
    let steps = way["steps"].as_array().context("steps")?;
    let station = |step: &Value| Some(format!("{} {}", step["node"].as_str()?, step["place"].as_str()?));
    Ok(steps.iter().filter_map(station).collect())
}

/// Waits until the answer to a traced packet arrives so; by these stations, in words that hold these parts.
fn answers(
    node: &Node,
    from: &str,
    to: &str,
    words: &[&str],
    stations: &[&str],
    parts: &[&str],
) -> Result<()> {
    wait("the answer of a trace", SOON, || {
        let told = trace(node, from, to, words)?;
        let back = &told["back"];
        ensure!(told["fate"] == "delivered" && back["fate"] == "delivered", "{from} to {to}: {told}");
        let passed = stations_of(back)?;
        ensure!(passed == stations, "{from} to {to}: {passed:?}, {told}");
        let text = back.to_string();
        ensure!(parts.iter().all(|part| text.contains(part)), "{from} to {to}: {parts:?} are not in {text}");
        Ok(())
    })
}

#[test]
fn packets_and_their_answers_are_followed() -> Result<()> {
    run(2, |cluster| {
        let [web, _probe] = world(cluster)?;
        cluster[0].ctl(&[
            "network",
            "create",
            "--subnet",
            "10.10.4.0/24",
            "--internal",
            "--attachable",
            "closed",
        ])?;
        cluster.wait_for_view()?;
        let _shut = cluster[0].run_idle(&spec("shut", "closed", None))?;
        let front = SocketAddr::new(vip(&cluster[0], "web", true)?, 80);
        let port = SocketAddr::from((cluster.net().address(0), 8080));
        let outside = cluster.net().client_address().to_string();

        // Each packet's way, by name.
        let resolver = "n1 the task's resolver";
        let node = &cluster[0];
        let web_address = web.address()?;
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
        // What the task would answer comes back to whoever asked, as from where that spoke to.
        let vip = format!("source {web_address}:80 becomes {front}");
        let there_and_back = ["n2 from_task", "n1 uplink"];
        answers(node, "probe", "web:80", &[], &there_and_back, &["into task probe", &vip])?;
        answers(node, "probe", "web:80", &["--protocol", "udp"], &there_and_back, &["into task probe"])?;
        answers(node, "probe", &format!("{web_address}:80"), &[], &there_and_back, &["into task probe"])?;
        answers(
            node,
            "probe",
            &web_address.to_string(),
            &["--protocol", "icmp"],
            &there_and_back,
            &["task probe"],
        )?;
        let to_client = format!("{outside} gets it as {port} -> {outside}");
        answers(node, &from_outside, "web:8080", &[], &there_and_back, &[&to_client])?;
        let on_its_node = format!("{outside}@n2");
        answers(node, &on_its_node, "web:8080", &[], &["n2 from_task"], &["out by the uplink"])?;
        // The data path answers for addresses that only it has.
        let pinged = trace(node, "probe", "web", &["--protocol", "icmp"])?;
        ensure!(
            pinged["fate"] == "delivered" && pinged.to_string().contains("the data path itself"),
            "{pinged}"
        );
        for (to, words, why) in [
            ("web", &["--protocol", "tcp"], "write NAME:PORT"),
            ("web:80", &["--protocol", "icmp"], "icmp has no ports"),
            ("nowhere:80", &["--protocol", "tcp"], "nowhere has no address"),
        ] {
            let refused = node.refused(&[&["trace", "--from", "probe", "--to", to][..], words].concat())?;
            ensure!(refused.message.contains(why), "{to}: {}", refused.message);
        }
        nothing_noted(cluster)?;
        let unknown = cluster[0].refused(&["trace", "--from", "nobody", "--to", "web:80"])?;
        ensure!(unknown.message.contains("no such task: nobody"), "{}", unknown.message);

        // By the address of the sender's own node, and of another one.
        for at in [0, 1] {
            let to = format!("{}:8080", cluster.net().address(at));
            ends(node, "probe", &to, "delivered", "web.1", &["n1 from_task", "n2 uplink"])?;
        }
        // Replies go straight: the node that the client spoke to sees none.
        ends(node, &from_outside, "web:8081", "delivered", "web.1", &["n1 uplink", "n2 uplink"])?;
        let straight = format!("{outside} gets it as {}:8081 -> {outside}", cluster.net().address(0));
        answers(node, &from_outside, "web:8081", &[], &["n2 from_task"], &["out by the uplink", &straight])?;
        nothing_noted(cluster)
    })
}

/// Each kind of flow between tasks, from `probe` on the first node to `web.1` on the second; `there` and `back` are the stations.
fn both_families(cluster: &Cluster, web: &Task, there: &[&str], back: &[&str]) -> Result<()> {
    let node = &cluster[0];
    for v4 in [true, false] {
        let family = if v4 { "-4" } else { "-6" };
        let own = if v4 { IpAddr::from(web.address()?) } else { address6(web)?.into() };
        let virtually = vip(node, "web", v4)?;
        for protocol in ["tcp", "udp"] {
            let words = [family, "--protocol", protocol];
            let by_name = [&["n1 the task's resolver"][..], there].concat();
            ends_by(node, "probe", "web:80", &words, "delivered", "web.1", &by_name)?;
            let (from, to) = (SocketAddr::new(own, 80), SocketAddr::new(virtually, 80));
            let translated = format!("source {from} becomes {to}");
            answers(node, "probe", "web:80", &words, back, &["into task probe", &translated])?;
            let straight = SocketAddr::new(own, 80).to_string();
            ends_by(node, "probe", &straight, &words, "delivered", "web.1", there)?;
            answers(node, "probe", &straight, &words, back, &["into task probe"])?;
        }
        let echo = [family, "--protocol", "icmp"];
        ends_by(node, "probe", &own.to_string(), &echo, "delivered", "its kernel answers", there)?;
        answers(node, "probe", &own.to_string(), &echo, back, &["into task probe"])?;
        // The data path answers itself for a virtual address.
        ends_by(
            node,
            "probe",
            &virtually.to_string(),
            &echo,
            "delivered",
            "the data path itself",
            &["n1 from_task"],
        )?;
        ends_by(
            node,
            "probe",
            "empty:80",
            &[family],
            "dropped",
            "no-backend",
            &["n1 the task's resolver", "n1 from_task"],
        )?;
    }
    Ok(())
}

/// The client outside, by the published ports of the first node and the task on the second.
fn published(cluster: &Cluster, v4: bool, there: &[&str], back: &[&str]) -> Result<()> {
    let net = cluster.net();
    let (client, at) = match v4 {
        true => (IpAddr::from(net.client_address()), IpAddr::from(net.address(0))),
        false => (net.client_address6().into(), net.address6(0).into()),
    };
    let from = format!("{client}@n1");
    let [port, direct] = [8080, 8081].map(|port| SocketAddr::new(at, port));
    let name = if v4 { client.to_string() } else { format!("[{client}]") };
    let gets = |port: SocketAddr| format!("{client} gets it as {port} -> {name}");
    ends(&cluster[0], &from, &port.to_string(), "delivered", "web.1", there)?;
    answers(&cluster[0], &from, &port.to_string(), &[], back, &[&gets(port)])?;
    ends(&cluster[0], &from, &direct.to_string(), "delivered", "web.1", there)?;
    answers(&cluster[0], &from, &direct.to_string(), &[], &["n2 from_task"], &[&gets(direct)])
}

const FAST: [&str; 2] = ["n1 from_task", "n2 uplink"];
const FAST_BACK: [&str; 2] = ["n2 from_task", "n1 uplink"];
const GENERAL: [&str; 3] = ["n1 from_task", "n2 uplink", "n2 vxlan"];
const GENERAL_BACK: [&str; 3] = ["n2 from_task", "n1 uplink", "n1 vxlan"];

#[test]
fn both_families_are_traced() -> Result<()> {
    run_on(BOTH, 2, |cluster| {
        let [web, _probe] = world(cluster)?;
        both_families(cluster, &web, &FAST, &FAST_BACK)?;
        for v4 in [true, false] {
            published(cluster, v4, &["n1 uplink", "n2 uplink"], &FAST_BACK)?;
        }
        nothing_noted(cluster)
    })
}

fn choose_general_path(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        node.stop()?;
        let config = fs::read_to_string(node.config())?;
        fs::write(node.config(), format!("path = \"general\"\n{config}"))?;
        node.start()?;
    }
    cluster.wait_for_members(cluster.nodes().len())?;
    cluster.wait_for_view()
}

#[test]
fn the_general_path_is_traced() -> Result<()> {
    run_on(BOTH, 2, |cluster| {
        choose_general_path(cluster)?;
        let [web, _probe] = world(cluster)?;
        both_families(cluster, &web, &GENERAL, &GENERAL_BACK)?;
        for v4 in [true, false] {
            published(cluster, v4, &["n1 uplink", "n2 uplink", "n2 vxlan"], &GENERAL_BACK)?;
        }
        nothing_noted(cluster)
    })
}

#[test]
fn the_general_path_over_ipv6_is_traced() -> Result<()> {
    run_on(SIX, 2, |cluster| {
        choose_general_path(cluster)?;
        let [web, _probe] = world(cluster)?;
        both_families(cluster, &web, &GENERAL, &GENERAL_BACK)?;
        published(cluster, false, &["n1 uplink", "n2 uplink", "n2 vxlan"], &GENERAL_BACK)?;
        nothing_noted(cluster)
    })
}
