//! What people see of flows: `meshctl flows`, `top`, `monitor` and `capture`, with real clients and servers.

use std::{
    fs::File,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use mesh_abi::{Watch, watch_kinds};
use mesh_tests::{Cluster, Nginx, Node, Task, TaskSpec, get, output, run, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
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

#[test]
fn flows_are_listed() -> Result<()> {
    run(2, |cluster| {
        let (_web, probe, _closed) = world(cluster)?;
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

        // One look at all, where nobody watches.
        let node = &cluster[0];
        let text = output(node.meshctl()?.args(["top"]))?;
        ensure!(text.contains("web") && text.contains("probe"), "{text}");
        // All nodes report to the manager while somebody looks.
        wait("reports of all nodes", SOON, || {
            let all = node.ctl_json(&["top", "--cluster"])?;
            let nodes = all["nodes"].as_array().context("nodes")?;
            ensure!(nodes.len() == 2 && nodes.iter().all(|node| node["rate"].is_object()), "{all}");
            let services = all["services"].as_array().context("services")?;
            ensure!(services.iter().any(|service| service["name"] == "web"), "{all}");
            Ok(())
        })?;
        let refused = cluster[1].refused(&["top", "--cluster"])?;
        ensure!(refused.message.contains("only managers know of all nodes"), "{}", refused.message);
        Ok(())
    })
}

/// meshctl that follows something; killed when it is dropped.
struct Following {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Following {
    /// Starts it, and waits until it says that what was asked for is watched.
    fn start(node: &Node, name: &str, words: &[&str]) -> Result<Self> {
        let (out, log) =
            (node.run_folder().join(format!("{name}.out")), node.run_folder().join(format!("{name}.err")));
        let mut meshctl = node.meshctl()?;
        meshctl.args(words).stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&log)?);
        let child = meshctl.spawn().context("cannot run meshctl")?;
        let following = Self { child, out, log };
        wait("meshctl to watch", SOON, || {
            let said = following.said()?;
            ensure!(said.contains("Ctrl-C ends it"), "{said}");
            Ok(())
        })?;
        Ok(following)
    }

    /// What it has printed.
    fn text(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.out)?)
    }

    /// What it has said on stderr.
    fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Presses Ctrl-C.
    fn interrupt(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?)
    }

    /// Waits until it has ended.
    fn end(&mut self) -> Result<ExitStatus> {
        wait("meshctl to end", SOON, || self.child.try_wait()?.context("it goes on"))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // What has ended already is neither killed nor waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file system that is full soon; gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let tmpfs = ["-t", "tmpfs", "-o", "size=32k", "tmpfs"];
        output(Command::new("mount").args(tmpfs).arg(&folder))?;
        Ok(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("umount").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

/// What the programs of a node are asked to tell: bits of [`mesh_abi::watch_kinds`].
fn watched_kinds(node: &Node) -> Result<u32> {
    let map = node.bpf_folder().join(format!("v{}/WATCH", mesh_abi::LAYOUT_VERSION));
    let map: Array<_, Watch> = Map::from_map_data(MapData::from_pin(map)?)?.try_into()?;
    Ok(map.get(&0, 0)?.kinds)
}

/// What tshark reads in a file: these fields of each packet.
fn dissect(file: &Path, fields: &[&str]) -> Result<String> {
    let mut tshark = Command::new("tshark");
    tshark
        .args(["-n", "-T", "fields"])
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .arg("-r")
        .arg(file);
    output(&mut tshark)
}

/// What tcpdump reads in a file.
fn read_capture(file: &Path) -> Result<String> {
    output(Command::new("tcpdump").arg("-nn").arg("-r").arg(file))
}

#[test]
fn what_happens_is_followed_and_packets_are_captured() -> Result<()> {
    run(2, |cluster| {
        let (web, probe, shut) = world(cluster)?;
        let port = SocketAddr::from((cluster.net().address(0), 8080));
        let ask = || cluster.net().client().run(|| get(port, Duration::from_secs(2)))?.context("no answer");
        wait("the published port", SOON, ask)?;

        let mut watched = Following::start(&cluster[0], "monitor", &["monitor"])?;
        let file = cluster[1].run_folder().join("web.pcapng");
        let path = file.to_str().context("a path")?;
        let mut capture =
            Following::start(&cluster[1], "capture", &["capture", "web", "-w", path, "--port", "80"])?;
        let closed = "203.0.113.1:80".parse::<SocketAddr>()?;
        wait("a new flow, its end and a drop to be told", SOON, || {
            ask()?;
            let refused = shut.inside(|| TcpStream::connect_timeout(&closed, Duration::from_millis(100)))?;
            ensure!(refused.is_err(), "an internal network has a way out");
            let told = watched.text()?;
            // A ping of nobody, and the question who has its address.
            let nobody = shut.command("ping")?.args(["-c", "1", "-W", "0.1", "203.0.113.2"]).output()?;
            ensure!(!nobody.status.success(), "an internal network has a way out");
            let arp = shut.command("ping")?.args(["-c", "1", "-W", "0.1", "10.10.4.77"]).output()?;
            ensure!(!arp.status.success(), "somebody has 10.10.4.77");
            for part in [
                "web (",
                " new tcp ",
                " closed tcp ",
                "by web.1 (",
                "internal-network",
                " icmp shut (",
                ") -> 203.0.113.2 (echo request): internal-network",
                " arp shut (",
                ") -> 10.10.4.77: no-endpoint",
            ] {
                ensure!(told.contains(part), "{part:?} is not in {told}");
            }
            Ok(())
        })?;
        wait("the packets in the file", SOON, || {
            ask()?;
            let text = read_capture(&file)?;
            let (client, task) = (cluster.net().client_address(), web.task.address()?);
            ensure!(text.contains(&format!("{client}.")) && text.contains(&format!("{task}.80")), "{text}");
            ensure!(text.contains("HTTP"), "{text}");
            Ok(())
        })?;
        let all = dissect(&file, &["frame.interface_name", "ip.dst", "tcp.dstport", "frame.comment"])?;
        // Requests as the task gets them, translated, and its answers as it sent them. What is still spoken to port 8080, before
        // and behind, `--port 80` leaves out.
        let task = web.task.address()?.to_string();
        let asked = format!("to-task web.1\t{task}\t80\t");
        ensure!(all.lines().any(|line| line.starts_with(&asked)), "{asked:?}: {all}");
        ensure!(all.lines().any(|line| line.starts_with("from-task web.1\t")), "{all}");
        ensure!(all.contains("web"), "no flow is named: {all}");
        watched.interrupt()?;
        let ended = watched.end()?;
        ensure!(ended.code() == Some(0), "{ended}: {}", watched.said()?);
        wait("the programs to be told nothing any more", SOON, || {
            let kinds = watched_kinds(&cluster[0])?;
            ensure!(kinds == 0, "{kinds}");
            Ok(())
        })?;
        let watched = Following::start(&cluster[0], "again", &["monitor"])?;
        ensure!(
            watched_kinds(&cluster[0])? == watch_kinds::NEW | watch_kinds::CLOSED | watch_kinds::DROP,
            "kinds"
        );
        capture.interrupt()?;
        let ended = capture.end()?;
        let said = capture.said()?;
        ensure!(ended.success() && said.contains(" packets"), "{ended}: {said}");
        ensure!(read_capture(&file)?.contains("HTTP"), "what was written cannot be read any more");

        // On a full disk what fits can be read.
        let disk = SmallDisk::mount(cluster[1].run_folder().join("small"))?;
        let file = disk.0.join("web.pcapng");
        let path = file.to_str().context("a path")?;
        let mut capture = Following::start(&cluster[1], "full", &["capture", "web.1", "-w", path])?;
        wait("the disk to be full", SOON, || {
            ask()?;
            capture.child.try_wait()?.context("it goes on")
        })?;
        let (ended, said) = (capture.end()?, capture.said()?);
        ensure!(ended.code() == Some(1), "{ended}: {said}");
        ensure!(said.contains("what was written before can be read: No space left"), "{said}");
        ensure!(read_capture(&file)?.contains("HTTP"), "what fits on the disk cannot be read");
        drop(disk);

        // Whoever is killed makes room.
        let more = (0..7).map(|n| Following::start(&cluster[0], &format!("more{n}"), &["monitor"]));
        let mut more = more.collect::<Result<Vec<_>>>()?;
        let busy = cluster[0].refused(&["monitor"])?;
        ensure!(busy.message.contains("8 watch on this node already"), "{}", busy.message);
        drop(more.pop());
        wait("room for one more", SOON, || Following::start(&cluster[0], "room", &["monitor"]))?;
        drop((more, watched));

        // Of a task that is elsewhere there is nothing to be seen.
        let elsewhere = cluster[0].refused(&["capture", "web.1", "-w", "-"])?;
        ensure!(elsewhere.message.contains("n2"), "{}", elsewhere.message);
        let unknown = cluster[0].refused(&["monitor", "--service", "nobody"])?;
        ensure!(unknown.message.contains("no such service: nobody"), "{}", unknown.message);
        drop(probe);
        Ok(())
    })
}
