//! Services of systemd in networks: what the units that `meshctl systemd-attach` writes call, in the order in which systemd
//! calls it, against real daemons. That systemd takes the units is shown beside meshctl, by `systemd-analyze`.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Greeter, NetNs, Node, Talk, TaskSpec, run, wait};

const SOON: Duration = Duration::from_secs(20);

/// The namespace of a unit, in the place that all nodes of this machine share. Removed on drop.
struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    fn new(cluster: &Cluster) -> Self {
        let name = cluster.net().prefix().namespace("unit");
        let path = Path::new("/run/netns").join(format!("meshd-{name}"));
        Self { name, path }
    }

    fn text(&self) -> Result<&str> {
        self.path.to_str().context("the namespace's path")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.path.exists() {
            let _ = Command::new("umount").arg(&self.path).stderr(Stdio::null()).status();
            let _ = std::fs::remove_file(&self.path);
        }
        let _ = std::fs::remove_dir_all(Path::new("/run/meshd-netns").join(&self.name));
    }
}

/// A server in the namespace, until this process ends.
fn serve(namespace: &Namespace, name: &str) -> Result<()> {
    let listener = NetNs::run_at(&namespace.path, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)))?;
    Greeter::serve(listener.context("port 80")?, name);
    Ok(())
}

fn id(node: &Node) -> Result<String> {
    Ok(node.ctl(&["task", "inspect", "--format", "{{.ID}}", "web.1"])?.trim().to_owned())
}

#[test]
fn a_unit_gets_its_network_and_gives_it_back() -> Result<()> {
    run(2, |cluster| {
        let (first, second) = (&cluster[0], &cluster[1]);
        first.ctl(&["network", "create", "--subnet", "10.10.3.0/24", "--attachable", "--wait", "prod"])?;
        let create = ["service", "create", "--network", "prod", "--drain-timeout", "1s", "--wait", "web"];
        first.ctl(&create)?;
        // What --wait promised.
        let version = first.ctl(&["service", "inspect", "--format", "{{.Version}}", "web"])?;
        let version: u64 = version.trim().parse().context("a version")?;
        for node in cluster.nodes() {
            let has: u64 = node.ctl(&["status", "--format", "{{.ViewVersion}}"])?.trim().parse()?;
            ensure!(has >= version, "{} has version {has} of {version}", node.name());
        }
        let vip =
            first.ctl(&["service", "inspect", "--format", "{{index (index .Networks 0).VIPs 0}}", "web"])?;
        let vip: IpAddr = vip.trim().parse().with_context(|| format!("an address, not {vip:?}"))?;
        let client = first.run_idle(&TaskSpec { name: "client", network: "prod", ..TaskSpec::default() })?;

        let unit = Namespace::new(cluster);
        let up = ["systemd-netns", "up", "--service", "web", "--name", "web.1", &unit.name];
        // As at boot: the daemon comes later.
        second.stop()?;
        let mut early = second.meshctl()?.args(up).stdout(Stdio::null()).spawn().context("meshctl")?;
        second.start()?;
        ensure!(early.wait().context("meshctl")?.success(), "it did not wait for the daemon");
        serve(&unit, "unit")?;
        let talk = || client.inside(|| Talk::open(SocketAddr::new(vip, 80), Duration::from_secs(3)))?;
        let answers = || {
            let name = wait("the unit's answer", SOON, talk)?.name;
            ensure!(name == "unit", "{name} answers");
            Ok(())
        };
        answers()?;
        let resolv_conf = Path::new("/run/meshd-netns").join(&unit.name).join("resolv.conf");
        let resolv_conf = std::fs::read_to_string(&resolv_conf).context("the unit's resolv.conf")?;
        ensure!(resolv_conf.contains("nameserver 127.0.0.11"), "{resolv_conf}");

        // Called again it changes nothing, and a daemon that was killed is not missed.
        let task = id(second)?;
        second.ctl(&up)?;
        ensure!(id(second)? == task, "another task");
        second.kill()?;
        second.start()?;
        answers()?;
        ensure!(id(second)? == task, "another task after the daemon");

        // The service stops and starts again: it drains, and then the task is another one.
        second.ctl(&["task", "drain", "--wait", unit.text()?])?;
        wait("the drained task to be out", SOON, || {
            ensure!(talk().is_err(), "it still answers");
            Ok(())
        })?;
        second.ctl(&up)?;
        ensure!(id(second)? != task, "a drained task was kept");
        answers()?;

        second.ctl(&["systemd-netns", "down", &unit.name])?;
        ensure!(!unit.path.exists(), "the namespace stays");
        let tasks = second.ctl(&["task", "ls", "--filter", "name=web.1", "-q"])?;
        ensure!(tasks.trim().is_empty(), "a task stays: {tasks}");
        second.ctl(&["systemd-netns", "down", &unit.name]).map(drop)
    })
}
