//! The main path on a kernel without links for tc: a cluster, a network, a service, a published port, seen from outside
//! and from inside; and what the programs are attached by.

use std::{
    collections::BTreeSet,
    fmt,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{
    Cluster, Nginx, Node, Task, TaskSpec, curl, iperf3, output, sctp_connect, sctp_listen, succeed, wait,
};
use serde_json::Value;

use crate::{findings::Findings, progress::step};

const SOON: Duration = Duration::from_secs(5);
/// The VLAN of tagged uplinks.
pub const VLAN: u16 = 7;

/// What the nodes' uplinks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Ends of veth pairs, on a bridge.
    Veth,
    /// Network cards (virtio_net).
    Cards,
}

/// What a story is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// What the uplinks are.
    pub wire: Wire,
    /// Whether the addresses are on VLAN devices upon them.
    pub tagged: bool,
    /// Whether the object has an XDP program, which daemons choose for network cards.
    pub xdp: bool,
}

impl Setting {
    /// The kinds of hooks that `status` must show for the uplink's interface, sorted.
    fn uplink_hooks(self) -> &'static [&'static str] {
        match self.wire {
            // VLAN devices do not run XDP programs by themselves.
            Wire::Cards if self.xdp && !self.tagged => &["clsact", "xdp"],
            Wire::Veth | Wire::Cards => &["clsact"],
        }
    }

    /// The interface that `status` must show as uplink.
    fn uplink(self) -> String {
        if self.tagged { format!("eth0.{VLAN}") } else { "eth0".to_owned() }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wire, tagged, .. } = self;
        if *tagged { write!(f, "VLAN {VLAN} on {wire}") } else { write!(f, "{wire}") }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Veth => "veth",
            Self::Cards => "virtio_net",
        })
    }
}

/// Tells it; what is seen goes to `findings`, an error ends it early.
pub fn tell(cluster: &Cluster, setting: Setting, findings: &mut Findings) -> Result<()> {
    let at = |what: &str| format!("{setting}: {what}");
    let (first, second) = (&cluster[0], &cluster[1]);
    step(&at("meshctl init on n1, join on n2"), || cluster.form())?;
    step(&at("network prod, service web published as 8080:80 and 9100:9100/sctp"), || {
        first.ctl(&["network", "create", "--driver", "overlay", "--attachable", "prod"])?;
        let publish = ["--publish", "8080:80", "--publish", "9100:9100/sctp"];
        first.ctl(&[&["service", "create", "--network", "prod"], &publish[..], &["web"]].concat())?;
        cluster.wait_for_view()
    })?;
    let (web, asker) = step(&at("nginx as a task of web on n2, a task to ask from on n1"), || {
        let web = TaskSpec { name: "web1", network: "prod", service: Some("web"), ..TaskSpec::default() };
        let asker = TaskSpec { name: "asker", network: "prod", ..TaskSpec::default() };
        Ok((second.run_nginx(&web)?, first.run_idle(&asker)?))
    })?;
    for node in cluster.nodes() {
        findings.look(&at(&format!("client: curl http://{}:8080 ({})", node.address(), node.name())), || {
            published(cluster, node)
        });
    }
    findings.look(&at("n1: curl http://localhost:8080"), || {
        asked("web1", || curl(first.command("curl")?, "http://localhost:8080/"))
    });
    findings.look(&at("task: ping the other task over the overlay"), || ping(&asker, &web));
    findings.look(&at("task: the largest packet to the other task"), || largest(first, &asker, &web));
    findings.look(&at("task: curl http://web by its name"), || {
        asked("web1", || curl(asker.command("curl")?, "http://web/"))
    });
    findings.look(&at("client: SCTP through either node"), || sctp(cluster, &web));
    findings.look(&at("status: a process of n1 that listens on the SCTP port"), || sctp_shadowed(cluster));
    findings.look(&at("iperf3 over the overlay for 1 s"), || {
        let rate = iperf3(&asker.namespace(), &web.task.namespace(), web.task.address()?, 1, None)?;
        ensure!(rate > 0.0, "nothing came through");
        Ok(format!("{rate:.2} Gbit/s, emulated"))
    });
    findings.look(&at("status: the uplink"), || uplink(first, setting));
    findings.look(&at("status: what the programs are attached by"), || hooks(first, setting));
    findings.look(&at("status: the kernel lacks links for tc"), || {
        let status = first.ctl_json(&["status"])?;
        let missing = status["data_path"]["missing_features"].to_string();
        ensure!(missing.contains("links for tc"), "{missing}");
        Ok("said".to_owned())
    });
    findings.look(&at("a restarted daemon takes its filters over"), || restarted(cluster, first, setting));
    findings.look(&at("client: curl goes on through n1"), || published(cluster, first));
    findings.look(&at("status: packets by path"), || packets(cluster, setting));
    findings.look(&at("status: drops"), || counted(cluster, "drops"));
    drop((web, asker));
    findings.look(&at("meshctl leave removes the filters of n2"), || {
        // Its session with the manager that was restarted may not be back yet.
        wait("leave", SOON, || second.ctl(&["leave"]))?;
        let left = filters(second)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok("none left".to_owned())
    });
    mesh_tests::interrupt::check()
}

fn asked(task: &str, ask: impl Fn() -> Result<String>) -> Result<String> {
    wait("the service to answer", SOON, || {
        let body = ask()?;
        ensure!(body.starts_with(task), "{body}");
        Ok(body)
    })
}

/// The client sees the service on `node`, and the service sees the client's own address.
fn published(cluster: &Cluster, node: &Node) -> Result<String> {
    let url = format!("http://{}:8080/", node.address());
    let expected = format!("web1 {}", cluster.net().client_address());
    wait("the published port", SOON, || {
        let body = curl(cluster.net().client().command("curl")?, &url)?;
        ensure!(body == expected, "{body}, not {expected}");
        Ok(body)
    })
}

fn ping(asker: &Task, web: &Nginx) -> Result<String> {
    let address = web.task.address()?.to_string();
    wait("an answer", SOON, || {
        succeed(asker.command("ping")?.args(["-c3", "-i0.2", "-W2", "-n", &address]))
    })?;
    Ok(address)
}

/// One that fills the underlay's frames: nobody on the way may cut it.
fn largest(node: &Node, asker: &Task, web: &Nginx) -> Result<String> {
    let status = node.ctl_json(&["status"])?;
    let mtu = status["data_path"]["task_mtu"].as_u64().context("`status` has no task_mtu")?;
    let (size, address) = ((mtu - 28).to_string(), web.task.address()?.to_string());
    wait("an answer", SOON, || {
        succeed(asker.command("ping")?.args(["-c1", "-W2", "-n", "-M", "do", "-s", &size, &address]))
    })?;
    Ok(format!("{mtu} bytes"))
}

/// Associations with the task by both nodes: what is said comes back, with checksums by whoever makes them.
fn sctp(cluster: &Cluster, web: &Nginx) -> Result<String> {
    succeed(Command::new("modprobe").arg("sctp"))?;
    let port = 9100;
    let listener = web.task.inside(move || sctp_listen((Ipv4Addr::UNSPECIFIED, port).into()))?;
    let listener = listener.context("SCTP port 9100")?;
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut buffer = [0; 2000];
                stream.write_all(from.ip().to_string().as_bytes())?;
                loop {
                    let len = stream.read(&mut buffer)?;
                    if len == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..len])?;
                }
            });
        }
    });
    for node in cluster.nodes() {
        let to = SocketAddr::from((node.address(), port));
        let associate = || cluster.net().client().run(|| sctp_connect(to))?.with_context(|| to.to_string());
        let mut stream = wait("an association", SOON, associate)?;
        stream.set_read_timeout(Some(SOON)).context("a socket's timeout")?;
        let mut buffer = [0; 2000];
        let len = stream.read(&mut buffer).context("a greeting")?;
        let seen = String::from_utf8_lossy(&buffer[..len]);
        ensure!(seen == cluster.net().client_address().to_string(), "{to}: the task sees {seen}");
        for len in [5, 1300] {
            let said: Vec<u8> = (0..len).map(|at| at as u8).collect();
            stream.write_all(&said).context("sending")?;
            let heard = stream.read(&mut buffer).context("an echo")?;
            ensure!(buffer[..heard] == said, "{to}: other bytes came back than the {len} that were sent");
        }
    }
    Ok("2 associations".to_owned())
}

/// A process of the node's own that the published port keeps clients from.
fn sctp_shadowed(cluster: &Cluster) -> Result<String> {
    let node = &cluster[0];
    let listen = || sctp_listen((Ipv4Addr::UNSPECIFIED, 9100).into());
    let listener = cluster.net().nodes()[0].run(listen)?.context("SCTP port 9100")?;
    // Sockets are looked at when ports change.
    node.ctl(&["publish", "9101:9101/sctp", "web"])?;
    let found = wait("the listener to be found", SOON, || {
        let status = node.ctl_json(&["status"])?;
        let found = status["listeners"].as_array().into_iter().flatten().next();
        found.cloned().context("`status` names none")
    })?;
    drop(listener);
    ensure!(found["port"] == 9100 && found["pid"] == std::process::id(), "{found}");
    Ok(found.to_string())
}

/// Interface, program and kind of every hook that `status` shows.
fn shown(node: &Node) -> Result<Vec<[String; 3]>> {
    let status = node.ctl_json(&["status"])?;
    let hooks = status["data_path"]["hooks"].as_array().context("`status` shows no hooks")?;
    let text = |hook: &Value, key: &str| hook[key].as_str().unwrap_or_default().to_owned();
    Ok(hooks.iter().map(|hook| ["interface", "program", "kind"].map(|key| text(hook, key))).collect())
}

/// It is the interface with the data path address.
fn uplink(node: &Node, setting: Setting) -> Result<String> {
    let status = node.ctl_json(&["status"])?;
    let uplinks = status["data_path"]["uplinks"].as_array().context("`status` shows no uplinks")?;
    let names: Vec<&str> = uplinks.iter().filter_map(|uplink| uplink["interface"].as_str()).collect();
    ensure!(names == [setting.uplink()], "{names:?}, not {}", setting.uplink());
    Ok(names.concat())
}

fn hooks(node: &Node, setting: Setting) -> Result<String> {
    let shown = shown(node)?;
    let all = || shown.iter().map(|hook| hook.join(" ")).collect::<Vec<_>>().join(", ");
    let tcx = shown.iter().filter(|[_, _, kind]| kind == "tcx").count();
    ensure!(tcx == 0, "there is no tcx here: {}", all());
    let kinds = |program: &str| -> BTreeSet<&str> {
        let of = shown.iter().filter(|[_, name, _]| name.starts_with(program));
        of.map(|[_, _, kind]| kind.as_str()).collect()
    };
    let expected: BTreeSet<&str> = setting.uplink_hooks().iter().copied().collect();
    ensure!(kinds("uplink") == expected, "the uplink has {:?}, not {expected:?}: {}", kinds("uplink"), all());
    ensure!(kinds("from_task") == BTreeSet::from(["clsact"]), "{}", all());
    ensure!(kinds("connect4") == BTreeSet::from(["cgroup"]), "{}", all());
    let uplink = shown.iter().filter(|[_, name, _]| name.starts_with("uplink"));
    Ok(uplink.map(|hook| hook.join(" ")).collect::<Vec<_>>().join(", "))
}

/// The filters that are ours, by interface; those in use are marked `direct-action`.
fn filters(node: &Node) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for link in node.links()? {
        for direction in ["ingress", "egress"] {
            let text = output(node.command("tc")?.args(["filter", "show", "dev", &link, direction]))?;
            let ours = text.lines().filter(|line| line.contains("direct-action"));
            // Ids and tags tell programs apart, not places.
            found.extend(ours.map(|_| format!("{link} {direction}")));
        }
    }
    found.sort();
    Ok(found)
}

fn restarted(cluster: &Cluster, node: &Node, setting: Setting) -> Result<String> {
    let before = filters(node)?;
    ensure!(!before.is_empty(), "no filters");
    node.stop()?;
    ensure!(filters(node)? == before, "stopping has removed filters: {:?}", filters(node)?);
    node.start()?;
    cluster.wait_for_members(cluster.nodes().len())?;
    wait("the hooks", SOON, || hooks(node, setting))?;
    let after = filters(node)?;
    ensure!(after == before, "{after:?}, not {before:?}");
    Ok(format!("{} filters", after.len()))
}

/// Where XDP is on the uplink, it must have had packets: those that the client sent through n1 to a task on n2.
fn packets(cluster: &Cluster, setting: Setting) -> Result<String> {
    if setting.uplink_hooks().contains(&"xdp") {
        let status = cluster[0].ctl_json(&["status"])?;
        let packets = status["data_path"]["packets"]["xdp"].as_u64();
        ensure!(packets > Some(0), "no packets by XDP: {}", counted(cluster, "packets")?);
    }
    counted(cluster, "packets")
}

/// Counters of both nodes' data paths that are not 0, for people to see.
fn counted(cluster: &Cluster, which: &str) -> Result<String> {
    let mut lines = Vec::new();
    for node in cluster.nodes() {
        let status = node.ctl_json(&["status"])?;
        let counters = status["data_path"][which].as_object();
        let counters = counters.with_context(|| format!("`status` has no {which}"))?;
        let counted = counters.iter().filter(|(_, count)| count.as_u64() != Some(0));
        let counted: Vec<String> = counted.map(|(name, count)| format!("{name} {count}")).collect();
        let counted = if counted.is_empty() { "none".to_owned() } else { counted.join(", ") };
        lines.push(format!("{}: {counted}", node.name()));
    }
    Ok(lines.join("\n"))
}
