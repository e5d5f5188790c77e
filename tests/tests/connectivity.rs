//! `meshctl connectivity test`: a well cluster passes, what is cut is named, and nothing is left.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, run, succeed, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// A manager that leads removes what another left once the test's time is over, and half a minute and more for its tasks.
const SWEPT: Duration = Duration::from_secs(120);

/// meshctl that tests; killed when it is dropped.
struct Running(Child);

impl Running {
    fn start(node: &Node, seconds: &str) -> Result<Self> {
        let mut meshctl = node.meshctl()?;
        meshctl.args(["connectivity", "test", "--timeout", seconds]);
        let running = meshctl.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Ok(Self(running.context("cannot run meshctl")?))
    }

    /// Its exit code, once it has ended, and what it said.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        let status = wait("meshctl to end", SOON, || self.0.try_wait()?.context("it runs"))?;
        let mut said = String::new();
        self.0.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
        Ok((status.code(), said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What has ended already is neither killed nor waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_task(node: &Node) -> Result<()> {
    ensure!(node.links()?.iter().any(|link| link.starts_with("msh")), "no task on {}", node.name());
    Ok(())
}

fn nothing_is_left(nodes: &[Node]) -> Result<()> {
    wait("the test's network and tasks to go", SWEPT, || {
        for node in nodes {
            let networks = node.ctl_json(&["network", "ls"])?;
            let left = networks.as_array().context("a list")?;
            let test =
                |network: &&Value| network["name"].as_str().is_some_and(|name| name.starts_with("mesh-test"));
            ensure!(!left.iter().any(|network| test(&network)), "{}: {networks}", node.name());
            let services = node.ctl_json(&["service", "ls"])?;
            ensure!(services.as_array().is_some_and(Vec::is_empty), "{}: {services}", node.name());
            ensure!(has_task(node).is_err(), "{}: a task's link", node.name());
        }
        Ok(())
    })
}

#[test]
fn every_pair_is_tried_and_what_does_not_work_is_named() -> Result<()> {
    run(3, |cluster| {
        let told = cluster[0].ctl_json(&["connectivity", "test"])?;
        let cells = told["cells"].as_array().context("cells")?;
        ensure!(cells.len() == 9, "{told}");
        let worked = |from: &str, to: &str| -> Result<Vec<String>> {
            let cell =
                cells.iter().find(|cell| cell["from"] == from && cell["to"] == to).context("a cell")?;
            let worked = cell["worked"].as_array().context("a list")?.iter();
            Ok(worked.filter_map(|check| check.as_str()).map(str::to_owned).collect())
        };
        for check in ["name", "tcp", "udp", "mtu", "tcp6", "udp6", "mtu6", "port", "port-udp"] {
            ensure!(worked("n2", "n3")?.iter().any(|done| done == check), "{check}: {told}");
        }
        let local = ["localhost", "localhost-udp", "localhost6", "localhost6-udp"];
        for check in
            [&["vip", "vip-udp", "vip6", "vip6-udp", "service", "port", "port-udp"][..], &local].concat()
        {
            ensure!(worked("n3", "n3")?.iter().any(|done| done == check), "{check}: {told}");
        }
        nothing_is_left(cluster.nodes())?;

        // Managers' alone.
        let refused = cluster[1].refused(&["connectivity", "test"])?;
        ensure!(refused.message.contains("n1"), "{}", refused.message);

        // What large packets meet on a narrow wire, and datagrams to published ports where somebody drops them.
        cluster.net().hub().ip("link set n2 mtu 1400")?;
        let rule = format!("ip daddr {} udp dport 30000-32767 drop", cluster[1].address());
        let rules = format!(
            "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; add rule inet cut out {rule}"
        );
        succeed(cluster[0].command("nft")?.arg(&rules))?;
        let narrow = cluster[0].meshctl()?.args(["connectivity", "test", "--timeout", "90"]).output()?;
        let text = String::from_utf8_lossy(&narrow.stdout);
        ensure!(
            narrow.status.code() == Some(1) && text.contains("n1 -> n2: mtu: packets of 1450 bytes"),
            "{text}"
        );
        ensure!(text.contains("n1 -> n2: port-udp: ") && !text.contains("n1 -> n2: port: "), "{text}");
        ensure!(!text.contains("n1 -> n3: ") && !text.contains("n3 -> n2: port"), "{text}");
        cluster.net().hub().ip("link set n2 mtu 1500")?;
        nothing_is_left(cluster.nodes())
    })
}

#[test]
fn a_test_that_is_cut_off_leaves_nothing() -> Result<()> {
    run(3, |cluster| {
        // Without it the tests wait: else they may be over before anybody looks.
        cluster[2].kill()?;
        let others = &cluster.nodes()[..2];

        // meshctl is killed while the test runs.
        let running = Running::start(&cluster[0], "60")?;
        wait("the test to begin", SOON, || others.iter().try_for_each(has_task))?;
        drop(running);
        nothing_is_left(others)?;

        // Ctrl-C.
        let running = Running::start(&cluster[0], "60")?;
        wait("the test to begin", SOON, || others.iter().try_for_each(has_task))?;
        succeed(Command::new("kill").args(["-INT", &running.0.id().to_string()]))?;
        let (code, said) = running.end()?;
        ensure!(code == Some(130) && said.contains("interrupted: the test has ended"), "{code:?}: {said}");

        // The node whose daemon is away does not report, and is named.
        let told = cluster[0].meshctl()?.args(["connectivity", "test", "--timeout", "15"]).output()?;
        let text = String::from_utf8_lossy(&told.stdout);
        ensure!(told.status.code() == Some(1) && text.contains("n3: did not report"), "{text}");
        cluster[2].start()?;
        cluster.wait_for_members(3)?;
        nothing_is_left(cluster.nodes())
    })
}

#[test]
fn the_next_leader_removes_what_one_that_died_left() -> Result<()> {
    run(4, |cluster| {
        cluster[0].ctl(&["node", "promote", "n2", "n3"])?;
        let managers = &cluster.nodes()[..3];
        let standing = |of: &Node, word: &str| -> Result<Vec<usize>> {
            let nodes = of.ctl_json(&["node", "ls"])?;
            let nodes = nodes.as_array().context("a list")?;
            let stands = |name: &str| nodes.iter().any(|n| n["name"] == name && n["manager_status"] == word);
            Ok(managers.iter().filter(|node| stands(&node.name())).map(Node::index).collect())
        };
        let leads = wait("three managers, one of which leads", SOON, || {
            let (leaders, others) = (standing(&cluster[0], "leader")?, standing(&cluster[0], "reachable")?);
            ensure!(leaders.len() == 1 && others.len() == 2, "{leaders:?} {others:?}");
            Ok(leaders[0])
        })?;
        // Without it the test waits.
        cluster[3].kill()?;
        let running = Running::start(&cluster[leads], "10")?;
        wait("the test to begin", SOON, || has_task(&cluster[leads]))?;
        cluster[leads].kill()?;
        let (code, said) = running.end()?;
        ensure!(code == Some(69) && said.contains("managers remove what it made"), "{code:?}: {said}");
        let other = managers.iter().find(|node| node.index() != leads).context("one manager alone")?;
        wait("the next leader", SOON, || {
            let leaders = standing(other, "leader")?;
            ensure!(leaders.len() == 1 && leaders[0] != leads, "{leaders:?}");
            Ok(())
        })?;
        cluster[leads].start()?;
        cluster[3].start()?;
        nothing_is_left(cluster.nodes())
    })
}
