//! The walk through a living cluster: three managers, two workers, a page at one manager while the workers' nodes speak to others.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Load, Nginx, Node, Task, TaskSpec, curl, run, wait};
use serde_json::{Value, json};

use super::{SOON, page::Page, wait_for_managers};

/// Connections each second.
const PER_SECOND: u32 = 20;

/// A program that is ended on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Result<Running> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Running(child.with_context(|| format!("{command:?}"))?))
}

/// What carries the traffic.
struct World {
    web: Vec<Nginx>,
    client: Task,
    _iperf: [Running; 2],
    load: Load,
    /// Asks for what has no task, again and again.
    _refused: Running,
}

#[test]
fn a_cluster_is_seen_and_changed_in_a_browser() -> Result<()> {
    run(5, |cluster| {
        cluster[0].ctl(&["node", "promote", "n2", "n3"])?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
        let world = World::begin(cluster)?;
        let asked = manager_of(cluster, &cluster[3])?;
        let other = cluster.nodes()[..3].iter().find(|node| node.name() != asked.name());
        let other = other.context("another manager")?;
        let page = Page::open(cluster, other, true)?;
        rates_drops_and_latencies(&page, &world)?;
        who_talks_to_whom(cluster, &page)?;
        ports_by_click(cluster, &page)?;
        tasks_of_other_managers_nodes(cluster, &page)?;
        events_as_they_happen(cluster, &page)?;
        world.load.end().none_failed()?;
        another_manager_dies(cluster, &page, asked)?;
        this_manager_dies(&page, other)
    })
}

impl World {
    fn begin(cluster: &Cluster) -> Result<Self> {
        let first = &cluster[0];
        first.ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
        let web = ["service", "create", "--network", "prod", "--publish", "8080:80"];
        first.ctl(&[&web[..], &["--health", "http:80/", "--health-interval", "1s", "web"]].concat())?;
        first.ctl(&["service", "create", "--network", "prod", "--publish", "8090:80", "idle"])?;
        cluster.wait_for_view()?;
        let spec = |name, service| TaskSpec { name, network: "prod", service, ..TaskSpec::default() };
        let web = vec![
            cluster[3].run_nginx(&spec("web1", Some("web")))?,
            cluster[4].run_nginx(&spec("web2", Some("web")))?,
        ];
        let client = cluster[4].run_idle(&spec("client", None))?;
        let (outside, entry) = (cluster.net().client(), cluster[1].address());
        wait("the published port", SOON, || {
            curl(outside.command("curl")?, &format!("http://{entry}:8080/")).map(drop)
        })?;
        let server = (entry, 8080).into();
        let load = Load::start(&outside.path(), vec![server], PER_SECOND, Duration::from_secs(5))?;
        let receiver = start(web[0].task.command("iperf3")?.args(["-s"]))?;
        let address = web[0].task.address()?;
        wait("iperf3 to listen", SOON, || {
            Ok(client.inside(|| TcpStream::connect((address, 5201)))?.map(drop)?)
        })?;
        let words = ["-c", &address.to_string(), "-b", "20M", "-t", "600"];
        let sender = start(client.command("iperf3")?.args(words))?;
        let refused = format!(
            "while :; do curl -s --max-time 1 http://{}:8090/; sleep 0.2; done",
            cluster[2].address()
        );
        let refused = start(outside.command("sh")?.args(["-c", &refused]))?;
        Ok(Self { web, client, _iperf: [sender, receiver], load, _refused: refused })
    }
}

/// The manager that a node is in session with.
fn manager_of<'a>(cluster: &'a Cluster, node: &Node) -> Result<&'a Node> {
    wait("a session with a manager", SOON, || {
        let status = node.ctl_json(&["status"])?;
        let session = status["manager_session"].as_str().context("the session")?.to_owned();
        let found = cluster.nodes().iter().find(|n| session.contains(&format!(" {}:", n.address())));
        found.with_context(|| session)
    })
}

fn number(of: &Value, pointer: &str) -> f64 {
    of.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
}

fn rates_drops_and_latencies(page: &Page, world: &World) -> Result<()> {
    wait("rates of all nodes", SOON, || {
        let view = page.view("nodes");
        let rows = view["list"]["rows"].as_array().context("rows")?;
        ensure!(rows.len() == 5 && view["cluster"]["reporting"] == 5, "{view}");
        ensure!(rows.iter().all(|row| number(row, "/latency_ms") > 0.0), "{view}");
        Ok(())
    })?;
    // 20 Mbit/s go into one, and the answers of nginx come out of both.
    page.wait_row("tasks", world.client.name(), |row| number(row, "/rates/bytes_out") > 1e6)?;
    page.wait_row("tasks", "web1", |row| {
        number(row, "/rates/bytes_in") > 1e6
            && number(row, "/rates/flows") > 0.0
            && number(row, "/latency_ms") > 0.0
    })?;
    let passes = |row: &Value| number(row, "/rates/bytes_out") > 0.0 && number(row, "/rates/flows") > 0.0;
    page.wait_row("tasks", "web2", passes)?;
    page.wait_row("nodes", "n4", |row| number(row, "/rates/bytes_in") > 1e6)?;
    page.wait_row("networks", "prod", |row| number(row, "/rates/bytes_in") > 1e6)?;
    page.wait_row("services", "web", |row| passes(row) && row["serving"] == 2)?;
    page.wait_row("services", "idle", |row| row["state"] == "empty")?;
    page.wait_row("nodes", "n3", |row| number(row, "/rates/drops") > 0.0)?;
    // The same as a person reads it.
    page.go("overview");
    page.browser.wait_text("[aria-label='Dropped packets'] tbody", "no-backend");
    page.browser.wait(
        "/[1-9].*\\/s/.test(document.querySelector(\"[aria-label='Dropped packets'] tbody .num\").innerText)",
    );
    page.browser.wait_text("[aria-label='Traffic'] .value", "MB/s");
    page.browser.wait_text("[aria-label='Busiest services'] tbody", "web");
    page.go("tasks?q=web1");
    page.browser.wait_text("tbody tr:not(.space)", "MB/s");
    page.browser.wait("/\\d (ms|µs)/.test(document.querySelector('tbody tr:not(.space)').innerText)");
    page.browser.wait_text("tbody tr:not(.space)", "healthy");
    ensure!(world.web.len() == 2, "{}", page.text());
    // A node whose report is late for a moment is told to be so.
    page.browser.wait("!document.body.innerText.includes('report no rates')");
    Ok(())
}

fn who_talks_to_whom(cluster: &Cluster, page: &Page) -> Result<()> {
    let entry = SocketAddr::from((cluster[1].address(), 8080));
    let _open = cluster.net().client().run(|| TcpStream::connect(entry))??;
    page.go("map");
    page.browser.wait("[...document.querySelectorAll('main tbody tr')].some((row) => /web/.test(row.innerText) && /8080.tcp/.test(row.innerText))");
    page.browser.wait("document.querySelectorAll('.mapbox a').length >= 1");
    Ok(())
}

/// Opens the page of a service by click.
fn of_service(page: &Page, name: &str) {
    page.browser.click("nav a[href='#/services']");
    page.browser.wait_text("tbody", name);
    page.browser.script(&format!(
        "[...document.querySelectorAll('tbody a')].find((link) => link.innerText === {}).click()",
        json!(name)
    ));
    page.browser.wait_text("h1", name);
}

fn ports_by_click(cluster: &Cluster, page: &Page) -> Result<()> {
    let (client, url) = (cluster.net().client(), format!("http://{}:9000/", cluster[4].address()));
    of_service(page, "web");
    page.browser.wait_text(".ports", "8080:80/tcp");
    page.browser.wait_text(".tiles", "2 / 2");
    page.browser.enter(".form input[name=port]", "9000:80");
    page.browser.click(".form button");
    page.browser.wait_text("#notes", "Published 9000:80/tcp of web");
    page.browser.wait_text(".ports", "9000:80/tcp");
    wait("the port that was published", SOON, || curl(client.command("curl")?, &url))?;
    // What a manager refuses is told.
    page.browser.enter(".form input[name=port]", "8090:80");
    page.browser.click(".form button");
    page.browser.wait_text("#notes", "idle");
    page.confirm("Unpublish 9000:80/tcp");
    page.browser.wait("!document.querySelector('.ports').innerText.includes('9000')");
    wait("the port to be closed", SOON, || {
        ensure!(curl(client.command("curl")?, &url).is_err(), "it still answers");
        Ok(())
    })
}

fn tasks_of_other_managers_nodes(cluster: &Cluster, page: &Page) -> Result<()> {
    of_service(page, "web");
    page.browser.enter("[aria-label='Weight of web1']", "7");
    page.browser.click("[aria-label='Set the weight of web1']");
    page.browser.wait_text("#notes", "Task web1 has weight 7 now");
    wait_for_task(&cluster[4], "web1", "weight", &json!(7))?;
    page.confirm("Drain web2");
    page.browser.wait_text("#notes", "Task web2 drains");
    page.browser.wait("[...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes('web2') && /drain(ing|ed)/.test(row.innerText))");
    wait_for_task(&cluster[0], "web2", "state", &json!("drained"))?;
    page.browser.click("nav a[href='#/nodes']");
    page.confirm("Drain n5");
    page.browser.wait("document.querySelector(\"[aria-label='Activate n5']\")");
    page.browser.click("[aria-label='Activate n5']");
    page.browser.wait("document.querySelector(\"[aria-label='Drain n5']\")");
    wait("the node to be active", SOON, || {
        let node = cluster[3].ctl_json(&["node", "inspect", "n5"])?;
        ensure!(node.to_string().contains("\"active\""), "{node}");
        Ok(())
    })
}

/// Waits until `node` tells so of a task of web.
fn wait_for_task(node: &Node, task: &str, field: &str, wanted: &Value) -> Result<()> {
    wait(&format!("{field} of {task}"), SOON, || {
        let tasks = node.ctl_json(&["service", "ps", "web"])?;
        let found = tasks.as_array().into_iter().flatten().find(|t| t["name"] == task);
        ensure!(found.is_some_and(|task| task[field] == *wanted), "{tasks}");
        Ok(())
    })
}

fn events_as_they_happen(cluster: &Cluster, page: &Page) -> Result<()> {
    page.browser.click("nav a[href='#/events']");
    page.browser.wait_text(".count", "events");
    ensure!(!page.text().contains("newcomer"), "{}", page.text());
    cluster[1].ctl(&["network", "create", "--attachable", "newcomer"])?;
    page.browser.wait_text("tbody", "newcomer");
    cluster[1].ctl(&["network", "rm", "newcomer"])?;
    wait("the network's end among the events", SOON, || {
        let rows = page.view("events?q=newcomer")["list"]["matched"].clone();
        ensure!(rows == 2, "{rows}");
        Ok(())
    })
}

fn another_manager_dies(cluster: &Cluster, page: &Page, dead: &Node) -> Result<()> {
    page.browser.click("nav a[href='#/overview']");
    dead.kill()?;
    page.browser.wait_text(".problems", &format!("node {} is", dead.name()));
    // Its nodes go to another manager, and are heard of again.
    let now = wait("another session", SOON, || {
        let now = manager_of(cluster, &cluster[3])?;
        ensure!(now.name() != dead.name(), "{}", now.name());
        Ok(now.name())
    })?;
    page.wait_row("tasks", "web1", |row| number(row, "/rates/bytes_in") > 1e6).with_context(|| now)?;
    page.wait_row("nodes", &dead.name(), |row| row["rates"].is_null() && row["status"] != "ready")?;
    page.browser.wait_text(".note-line", "1 node reports no rates");
    dead.start()?;
    page.wait_row("nodes", &dead.name(), |row| row["status"] == "ready" && !row["rates"].is_null())?;
    page.browser.wait("document.querySelector('.note-line').hidden");
    Ok(())
}

fn this_manager_dies(page: &Page, manager: &Node) -> Result<()> {
    manager.kill()?;
    page.browser.wait_text("#live", "Connecting again");
    manager.start()?;
    // Sessions are of the daemon that gave them. Whoever asks for the page again finds that out.
    wait("the page to be served again", SOON, || {
        super::open(manager, &["--listen", &format!("{}:7380", manager.address())])
    })?;
    page.browser.wait_text("h1", "Sign in");
    page.browser.wait_text("[role=alert]", "The session has ended");
    page.sign_in(manager, false)?;
    page.wait_row("tasks", "web1", |row| number(row, "/rates/bytes_in") > 1e6)?;
    page.browser.click("#leave");
    page.browser.wait_text("[role=alert]", "You have signed out");
    let answer = page.view("nodes");
    ensure!(answer["error"].as_str().is_some_and(|error| error.starts_with("no session")), "{answer}");
    Ok(())
}
