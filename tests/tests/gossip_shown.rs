//! What operators see of gossip: who is there, that tables agree, and what one node knows otherwise than another.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{TaskSpec, run, wait};

/// Longer than it takes until each table has been compared with some other node's.
const COMPARED: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

#[test]
fn convergence_is_shown_and_differences_are_told() -> Result<()> {
    run(3, |cluster| {
        let create =
            ["network", "create", "--driver", "overlay", "--subnet", "10.10.3.0/24", "--attachable", "prod"];
        cluster[0].ctl(&create)?;
        cluster.wait_for_view()?;
        let spec = |name| TaskSpec { name, network: "prod", ..TaskSpec::default() };
        let _first = cluster[1].run_idle(&spec("first"))?;
        let mut second = cluster[2].run_idle(&spec("second"))?;

        wait("status to say that all tables agree", COMPARED, || {
            for node in cluster.nodes() {
                let status = node.ctl_json(&["status"])?;
                let gossip = &status["gossip"];
                ensure!(gossip["tables_behind"] == 0 && gossip["equal_millis"].is_u64(), "{gossip}");
                ensure!(gossip["datagrams_in_per_second"].as_f64() > Some(0.0), "{gossip}");
                let members = gossip["members"].as_array().context("members")?;
                ensure!(members.len() == 3 && members.iter().all(|m| m["state"] == "alive"), "{gossip}");
            }
            Ok(())
        })?;
        let nodes = cluster[0].ctl_json(&["node", "ls"])?;
        let nodes = nodes.as_array().context("a list")?;
        ensure!(nodes.iter().all(|node| node["gossip"]["statement"].as_u64() >= Some(1)), "{nodes:?}");

        // A manager has every table, so has node 2 that of its task.
        let other = cluster[1].socket();
        let other = other.to_str().context("the socket's path")?;
        wait("the two to know the same", SOON, || {
            let told = cluster[0].ctl_json(&["debug", "gossip", "--diff", other])?;
            ensure!(told["differences"].as_array().is_some_and(Vec::is_empty), "{told}");
            Ok(())
        })?;
        let page = cluster[0].ctl(&["debug", "gossip"])?;
        ensure!(page.contains("first") && page.contains("second") && page.contains("prod"), "{page}");

        // What was so before is told from what is.
        let before = cluster[0].run_folder().join("before.json");
        std::fs::write(&before, cluster[0].ctl(&["--format", "json", "debug", "gossip"])?)?;
        second.stop()?;
        drop(second);
        let before = before.to_str().context("the file's path")?;
        wait("the difference", SOON, || {
            let told = cluster[1].ctl_json(&["debug", "gossip", "--diff", before])?;
            let differences = told["differences"].as_array().context("a list")?;
            ensure!(differences.len() == 1 && differences[0]["what"] == "second", "{told}");
            Ok(())
        })
    })
}
