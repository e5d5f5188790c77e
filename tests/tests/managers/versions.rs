//! Managers of two neighbouring versions. Debug builds of the daemon play the version before when `MESHD_NEWEST_FORMAT` says so.

use super::*;

/// The newest format of the version before.
const BEFORE: &str = "4";

/// Starts the daemon as one of the version before.
fn start_older(node: &Node) -> Result<()> {
    let mut daemon = node.meshd()?;
    daemon.env("MESHD_NEWEST_FORMAT", BEFORE);
    node.start_as(daemon)
}

/// The version of a node as `of` has it.
fn version(of: &Node, name: &str) -> Result<String> {
    let node = of.ctl_json(&["node", "inspect", name])?;
    let node = node.as_array().and_then(|nodes| nodes.first()).unwrap_or(&node);
    Ok(node["version"].as_u64().with_context(|| format!("no version: {node}"))?.to_string())
}

/// The managers are brought to this version one after the other while requests run. What only this version knows is refused
/// until the last one has it. One that goes back does no harm and says what is wrong.
#[test]
fn managers_of_two_versions_go_on_together() -> Result<()> {
    let cluster = Cluster::daemons(Prefix::unique(), 4, Binaries::find()?, Lifetime::Owner)?;
    told(cluster, |cluster| {
        for node in &cluster.nodes()[..3] {
            node.stop()?;
            start_older(node)?;
        }
        cluster.form()?;
        let names = ["n1", "n2", "n3"];
        cluster[0].ctl(&["node", "promote", "n2", "n3"])?;
        wait_for_managers(&cluster[0], &names)?;
        let (_task, load) = publish(cluster)?;
        let mut number = 0;
        let mut made = Vec::new();
        for (turn, node) in [&cluster[2], &cluster[0], &cluster[1]].into_iter().enumerate() {
            node.stop()?;
            node.start()?;
            wait_for_managers(node, &names)?;
            for by in &cluster.nodes()[..3] {
                made.push(create_by_any(&[by], "mixed", &mut number)?);
            }
            if turn < 2 {
                let version = version(node, "n4")?;
                let refused = node.refused(&["node", "rm", "--force", "--if-version", &version, "n4"])?;
                ensure!(refused.message.contains("an older meshd"), "{}", refused.message);
            }
        }
        for node in cluster.nodes() {
            wait_for_networks(node, &made)?;
        }
        wait("the managers to agree", SOON, || {
            let refused = cluster[2].refused(&["node", "rm", "--force", "--if-version", "1", "n4"])?;
            ensure!(refused.message.contains("was changed meanwhile"), "{}", refused.message);
            Ok(())
        })?;

        // One goes back: it refuses what it cannot read, and the others go on.
        cluster[1].stop()?;
        start_older(&cluster[1])?;
        wait("the older meshd to say so", SOON, || {
            let status = cluster[1].ctl(&["status"])?;
            ensure!(status.contains("format 5") && status.contains("use the newer meshd"), "{status}");
            Ok(())
        })?;
        let others = [&cluster[0], &cluster[2]];
        let without = create_by_any(&others, "without", &mut number)?;
        wait_for_networks(&cluster[1], std::slice::from_ref(&without))?;
        cluster[1].stop()?;
        cluster[1].start()?;
        wait_for_managers(&cluster[1], &names)?;
        load.end().none_failed()?;
        let version = version(&cluster[1], "n4")?;
        cluster[1].ctl(&["node", "rm", "--force", "--if-version", &version, "n4"])?;
        ensure!(nodes(&cluster[1])?.len() == 3, "n4 is still there");
        Ok(())
    })
}

/// Before anything is made of it: the others know nothing of a node that cannot be a manager of theirs. A worker needs to read
/// nothing of what managers agree on, but is not made a manager then, whichever of them is asked.
#[test]
fn an_older_manager_is_told_before_it_joins_or_is_promoted() -> Result<()> {
    let cluster = Cluster::daemons(Prefix::unique(), 3, Binaries::find()?, Lifetime::Owner)?;
    told(cluster, |cluster| {
        cluster[1].stop()?;
        start_older(&cluster[1])?;
        cluster.init()?;
        wait("the manager to agree with itself", SOON, || {
            let refused = cluster[0].refused(&["node", "rm", "--force", "--if-version", "999", "n1"])?;
            ensure!(!refused.message.contains("an older meshd"), "{}", refused.message);
            Ok(())
        })?;
        let token = cluster[0].ctl(&["join-token", "--quiet", "manager"])?;
        let (name, address) = (cluster[1].name(), cluster[1].address().to_string());
        let manager = SocketAddr::from((cluster[0].address(), 2377)).to_string();
        let words =
            ["join", "--token", token.trim(), "--name", &name, "--advertise-addr", &address, &manager];
        let refused = cluster[1].refused(&words)?;
        ensure!(refused.message.contains("an older meshd"), "{}", refused.message);
        ensure!(nodes(&cluster[0])?.len() == 1, "something was made of it");
        cluster.join(1)?;
        cluster.join(2)?;
        cluster.wait_for_members(3)?;
        cluster[0].ctl(&["node", "promote", "n3"])?;
        wait_for_managers(&cluster[0], &["n1", "n3"])?;
        // Nodes that follow this have told all that they tell of themselves. One manager alone has n2's session.
        cluster[0].ctl(&["network", "create", "--wait", "told"])?;
        for by in [&cluster[0], &cluster[2]] {
            let refused = by.refused(&["node", "promote", "n2"])?;
            let words =
                ["node n2 runs an older meshd", "bring it to the managers' version and promote it again"];
            ensure!(words.iter().all(|word| refused.message.contains(word)), "{}", refused.message);
        }
        ensure!(
            cluster[0].ctl_json(&["node", "inspect", "n2"])?.to_string().contains("\"worker\""),
            "it was promoted"
        );
        cluster[1].ctl(&["leave"])?;
        cluster[1].stop()?;
        cluster[1].start()?;
        cluster[1].ctl(&words)?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])
    })
}
