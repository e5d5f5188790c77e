//! The managers' page over real nodes and real traffic: what a browser shows, what is done by click at tasks of other managers'
//! nodes, managers that die, and when the page ends.

#[path = "../../../control/dashboard/tests/support/browser.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "of the page's own tests, all of it"
)]
mod browser;
mod ends;
mod page;
mod walk;

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::{Node, wait};
use serde_json::Value;

/// On a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

/// What this node's daemon answers to `meshctl dashboard`.
fn open(node: &Node, words: &[&str]) -> Result<Value> {
    node.ctl_json(&[&["dashboard"], words].concat())
}

/// Waits until just these nodes are managers, and one of them leads.
fn wait_for_managers(of: &Node, names: &[&str]) -> Result<()> {
    wait("the managers to vote", SOON, || {
        let nodes = of.ctl_json(&["node", "ls"])?;
        let mut leads = false;
        for node in nodes.as_array().into_iter().flatten() {
            let (name, standing) = (node["name"].as_str().unwrap_or(""), node["manager_status"].as_str());
            let is = matches!(standing, Some("leader" | "reachable"));
            ensure!(is == names.contains(&name), "{name}: {standing:?}");
            leads |= standing == Some("leader");
        }
        ensure!(leads, "nobody leads");
        Ok(())
    })
}
