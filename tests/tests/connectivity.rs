//! `meshctl connectivity test`: a well cluster passes, what is cut is named, and nothing is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, run, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    wait("the test's network and tasks to go", SOON, || {
        for node in cluster.nodes() {
            let networks = node.ctl_json(&["network", "ls"])?;
            let left = networks.as_array().context("a list")?;
            let test =
                |network: &&Value| network["name"].as_str().is_some_and(|name| name.starts_with("mesh-test"));
            ensure!(!left.iter().any(|network| test(&network)), "{}: {networks}", node.name());
            ensure!(
                !node.links()?.iter().any(|link| link.starts_with("msh")),
                "{}: a task's link",
                node.name()
            );
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
        for check in ["name", "tcp", "udp", "mtu", "tcp6", "udp6", "mtu6", "port"] {
            ensure!(worked("n2", "n3")?.iter().any(|done| done == check), "{check}: {told}");
        }
        for check in ["vip", "vip6", "service", "port"] {
            ensure!(worked("n3", "n3")?.iter().any(|done| done == check), "{check}: {told}");
        }
        nothing_is_left(cluster)?;

        // Managers' alone.
        let refused = cluster[1].refused(&["connectivity", "test"])?;
        ensure!(refused.message.contains("n1"), "{}", refused.message);

        // What large packets meet on a narrow wire.
        cluster.net().hub().ip("link set n2 mtu 1400")?;
        let narrow = cluster[0].meshctl()?.args(["connectivity", "test", "--timeout", "90"]).output()?;
        let text = String::from_utf8_lossy(&narrow.stdout);
        ensure!(
            narrow.status.code() == Some(1) && text.contains("n1 -> n2: mtu: packets of 1450 bytes"),
            "{text}"
        );
        ensure!(!text.contains("n1 -> n3: "), "{text}");
        cluster.net().hub().ip("link set n2 mtu 1500")?;
        nothing_is_left(cluster)
    })
}

#[test]
fn a_test_that_is_cut_off_leaves_nothing() -> Result<()> {
    run(2, |cluster| {
        // meshctl is killed while the test runs.
        let mut meshctl = cluster[0].meshctl()?;
        let mut running = meshctl
            .args(["connectivity", "test"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let begun = wait("the test to begin", SOON, || {
            ensure!(cluster[1].links()?.iter().any(|link| link.starts_with("msh")), "no task yet");
            Ok(())
        });
        running.kill()?;
        running.wait()?;
        begun?;
        nothing_is_left(cluster)?;

        // A node whose daemon is away does not report, and is named.
        cluster[1].kill()?;
        let told = cluster[0].meshctl()?.args(["connectivity", "test", "--timeout", "15"]).output()?;
        let text = String::from_utf8_lossy(&told.stdout);
        ensure!(told.status.code() == Some(1) && text.contains("n2: did not report"), "{text}");
        cluster[1].start()?;
        cluster.wait_for_members(2)?;
        nothing_is_left(cluster)
    })
}
