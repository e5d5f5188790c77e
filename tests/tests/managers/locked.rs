//! Managers that are locked, when they are made workers, lose the others or are made anew of a backup.

use std::{io::Write, process::Stdio};

use super::*;

fn state(node: &Node) -> Result<String> {
    let status = node.ctl_json(&["status"])?;
    Ok(status["state"].as_str().context("no state")?.to_owned())
}

fn unlock(node: &Node, key: &str) -> Result<()> {
    let mut meshctl = node.meshctl()?;
    let mut unlocking = meshctl
        .arg("unlock")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("meshctl unlock")?;
    let mut stdin = unlocking.stdin.take().context("its standard input")?;
    writeln!(stdin, "{key}").context("give it the key")?;
    drop(stdin);
    let ended = unlocking.wait().context("wait for meshctl unlock")?;
    ensure!(ended.success(), "{} refused its key", node.name());
    Ok(())
}

fn wait_until_sealed(node: &Node, sealed: bool) -> Result<()> {
    wait("the node's key to be sealed, or not", SOON, || {
        let text = fs::read_to_string(node.state_folder().join("identity.pem")).context("identity.pem")?;
        ensure!(text.contains("BEGIN PRIVATE KEY") != sealed, "{}: sealed: {}", node.name(), !sealed);
        Ok(())
    })
}

/// Starts it again, which locks it.
fn restart_locked(node: &Node) -> Result<()> {
    node.stop()?;
    node.start()?;
    wait("the locked manager", SOON, || {
        let state = state(node)?;
        ensure!(state == "locked", "{} is {state}", node.name());
        Ok(())
    })
}

#[test]
fn locks_outlive_the_loss_of_managers_and_a_backup() -> Result<()> {
    told(start(4, 3)?, |cluster| {
        let mut number = 0;
        let locked = cluster[0].ctl_json(&["cluster", "update", "--autolock=true"])?;
        let key = locked["unlock_key"].as_str().context("no key")?.to_owned();
        for manager in &cluster.nodes()[..3] {
            wait_until_sealed(manager, true)?;
        }
        let file = words_of(&cluster[3].run_folder().join("backup"));
        cluster[0].ctl(&["cluster", "backup", &file])?;

        // A worker is not locked, and has nothing of the managers' keys.
        cluster[0].ctl(&["node", "demote", "n3"])?;
        wait("the demoted manager to forget", SOON, || {
            let folder = cluster[2].state_folder();
            ensure!(!folder.join("raft").exists() && !folder.join("manager.keys").exists(), "it has not");
            Ok(())
        })?;
        wait_until_sealed(&cluster[2], false)?;
        cluster[2].stop()?;
        cluster[2].start()?;
        wait("the worker's session", SOON, || {
            let status = cluster[2].ctl_json(&["status"])?;
            let session = status["manager_session"].as_str().unwrap_or_default();
            ensure!(session.starts_with("connected"), "{session}");
            Ok(())
        })?;
        cluster[0].ctl(&["node", "promote", "n3"])?;
        wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
        wait_until_sealed(&cluster[2], true)?;

        // The others are lost. A locked manager goes on alone only when it is unlocked, and stays locked.
        cluster[0].kill()?;
        cluster[1].kill()?;
        restart_locked(&cluster[2])?;
        let refused = cluster[2].refused(&["init", "--force-new-cluster"])?;
        ensure!(refused.message.contains("meshctl unlock"), "{}", refused.message);
        unlock(&cluster[2], &key)?;
        cluster[2].ctl(&["init", "--force-new-cluster"])?;
        create_by_any(&[&cluster[2]], "alone", &mut number)?;
        restart_locked(&cluster[2])?;
        unlock(&cluster[2], &key)?;
        let alone = create_by_any(&[&cluster[2]], "unlocked", &mut number)?;
        wait_for_networks(&cluster[3], &[alone])?;

        // Made anew of the backup, by the key of that time.
        cluster[3].ctl(&["leave", "--force"])?;
        cluster[2].kill()?;
        let address = cluster[3].address().to_string();
        cluster[3].ctl(&["cluster", "restore", "--name", "n4", "--advertise-addr", &address, &file])?;
        create_by_any(&[&cluster[3]], "restored", &mut number)?;
        wait_until_sealed(&cluster[3], true)?;
        restart_locked(&cluster[3])?;
        unlock(&cluster[3], &key)?;
        create_by_any(&[&cluster[3]], "again", &mut number)?;
        Ok(())
    })
}
