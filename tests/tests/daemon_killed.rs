//! A daemon killed with SIGKILL stops no flow, new ones included; the next daemon adopts what it finds, answers for
//! names within a second and can change everything.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Task, TaskSpec, curl, get, run, wait};

const SOON: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// One connection over which requests go.
struct Flow {
    name: String,
    stream: TcpStream,
}

impl Flow {
    /// Connects from the calling thread's namespace.
    fn open(name: &str, server: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&server, SOON).with_context(|| format!("{name}: {server}"))?;
        // Less than what four lost packets in a row cost; the rest is for a busy machine.
        stream.set_read_timeout(Some(Duration::from_secs(3))).context("a socket's timeout")?;
        Ok(Self { name: name.to_owned(), stream })
    }

    fn request(&mut self) -> Result<()> {
        let name = &self.name;
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .with_context(|| format!("{name}: sending"))?;
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while !answer.ends_with(b"\n") || !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
            let size = self.stream.read(&mut buffer).with_context(|| format!("{name}: no answer"))?;
            ensure!(size > 0, "{name}: closed");
            answer.extend(buffer.iter().take(size));
        }
        Ok(())
    }
}

fn keep_going(flows: &mut [Flow], length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        for flow in &mut *flows {
            flow.request()?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[test]
fn flows_survive_and_the_next_daemon_adopts() -> Result<()> {
    run(3, |cluster| {
        cluster[0].ctl(&[
            "network",
            "create",
            "--driver",
            "overlay",
            "--subnet",
            "10.10.3.0/24",
            "--attachable",
            "prod",
        ])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "web"])?;
        cluster[0].ctl(&["publish", "8080:80", "web"])?;
        cluster.wait_for_view()?;
        let spec = |name| TaskSpec { name, network: "prod", service: Some("web"), ..TaskSpec::default() };
        let web = cluster[1].run_nginx(&spec("web1"))?;
        let alone = TaskSpec { name: "alone", network: "prod", ..TaskSpec::default() };
        let observer = cluster[2].run_idle(&alone)?;
        let published = SocketAddr::from((cluster[0].address(), 8080));
        let direct = SocketAddr::from((web.task.address()?, 80));
        let client = cluster.net().client();
        wait("the published port", SOON, || client.run(|| get(published, SOON))?)?;
        wait("the task", SOON, || observer.inside(|| get(direct, SOON))?)?;
        let vip: SocketAddr =
            format!("{}:80", observer.dig(&["web"])?.concat()).parse().context("the VIP")?;
        let mut flows = [
            client.run(|| Flow::open("published port", published))??,
            observer.inside(|| Flow::open("task to task", direct))??,
            observer.inside(|| Flow::open("VIP", vip))??,
        ];
        let links: Vec<Vec<String>> = cluster.nodes().iter().map(|n| n.links()).collect::<Result<_>>()?;

        for node in cluster.nodes() {
            node.kill()?;
        }
        keep_going(&mut flows, Duration::from_secs(3))?;
        for _ in 0..50 {
            client.run(|| get(published, SOON))??;
            observer.inside(|| get(vip, SOON))??;
        }
        let body = curl(cluster[2].command("curl")?, "http://localhost:8080/")?;
        ensure!(body.starts_with("web1 "), "localhost with no daemon: {body}");

        for node in cluster.nodes() {
            node.start()?;
        }
        names_are_back(&observer)?;
        keep_going(&mut flows, Duration::from_secs(2))?;
        cluster.wait_for_members(3)?;
        keep_going(&mut flows, Duration::from_secs(1))?;
        for (node, before) in cluster.nodes().iter().zip(links) {
            ensure!(node.links()? == before, "{} has other links after the restart", node.name());
        }
        can_change(cluster, &observer)
    })
}

fn names_are_back(observer: &Task) -> Result<()> {
    wait("names after the restart", SOON, || {
        let found = observer.dig(&["+time=1", "tasks.web"])?;
        ensure!(found.len() == 1, "tasks.web is {found:?}");
        Ok(())
    })
}

/// The adopted data path follows new tasks, and lets old ones go.
fn can_change(cluster: &Cluster, observer: &Task) -> Result<()> {
    wait("the task from before to be listed", SOON, || {
        let listed = cluster[1].ctl(&["task", "ls"])?;
        ensure!(listed.contains("web1"), "{listed}");
        Ok(())
    })?;
    let spec = TaskSpec { name: "web2", network: "prod", service: Some("web"), ..TaskSpec::default() };
    let second = cluster[0].run_nginx(&spec)?;
    let server = SocketAddr::from((cluster[2].address(), 8080));
    let client = cluster.net().client();
    wait("the new task", SOON, || {
        let body = client.run(|| get(server, SOON))??;
        ensure!(body.starts_with("web2 "), "still {body}");
        Ok(())
    })?;
    drop(second);
    wait("the new task to be gone", SOON, || {
        let found = observer.dig(&["tasks.web"])?;
        ensure!(found.len() == 1, "tasks.web is {found:?}");
        Ok(())
    })
}

/// A daemon is killed in the moment in which its data path has learnt of another node's task, and the next one finds nobody
/// who could tell of it.
#[test]
fn what_was_heard_a_moment_before_the_kill_is_believed_after_it() -> Result<()> {
    run(2, |cluster| {
        let (server_node, client_node) = (&cluster[0], &cluster[1]);
        server_node.ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "prod"])?;
        cluster.wait_for_view()?;
        let web = server_node.run_nginx(&TaskSpec { name: "web", network: "prod", ..TaskSpec::default() })?;
        let server = SocketAddr::from((web.task.address()?, 80));
        for name in ["first", "second", "third"] {
            let spec = TaskSpec { name, network: "prod", ..TaskSpec::default() };
            let client = client_node.run_idle(&spec)?;
            let open = || {
                wait("the server", SOON, || get(server, Duration::from_millis(5)))?;
                Flow::open(name, server)
            };
            let mut flows = [client.inside(open)??];
            server_node.kill()?;
            client_node.kill()?;
            server_node.start()?;
            keep_going(&mut flows, Duration::from_secs(1))?;
            client_node.start()?;
            keep_going(&mut flows, Duration::from_millis(200))?;
        }
        Ok(())
    })
}
