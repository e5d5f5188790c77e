//! One bit of a manager's state changes on the disk, by itself or together with the checksums around it. The manager says so
//! and does not use it; the others go on, and joining anew or a backup mends it.

use super::*;

/// How long the only manager may take to end over its file.
const END: Duration = Duration::from_secs(20);

fn state_of(node: &Node) -> PathBuf {
    node.state_folder().join("raft")
}

/// The last entry's index and bytes.
fn last_entry(node: &Node) -> Result<(u64, Vec<u8>)> {
    mesh_raft::simulation::last_entry(&state_of(node)).context("the file")?.context("the log is empty")
}

/// Changes a bit of the last entry, the file's checksums with it; what the manager will say.
fn change_entry(node: &Node) -> Result<String> {
    let (index, _) = last_entry(node)?;
    mesh_raft::simulation::change_last_entry(&state_of(node)).context("the file")?;
    Ok(format!("log entry {index} cannot be decrypted"))
}

/// Changes one bit of the last entry where it stands in the file.
fn change_file(node: &Node) -> Result<String> {
    let (_, entry) = last_entry(node)?;
    let file = state_of(node).join("raft.redb");
    let mut bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    // Pages that were written anew leave copies behind.
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes.get(*at..*at + entry.len()) == Some(&entry[..])).collect();
    ensure!(!places.is_empty(), "the entry is not in the file");
    places.iter().for_each(|at| bytes[at + entry.len() / 2] ^= 1);
    fs::write(&file, bytes).with_context(|| file.display().to_string())?;
    Ok("raft.redb is damaged".to_owned())
}

#[test]
fn a_changed_bit_is_told_and_mended() -> Result<()> {
    told(start(3, 3)?, |cluster| {
        let mut number = 0;
        let changes: [fn(&Node) -> Result<String>; 2] = [change_entry, change_file];
        for change in changes {
            cluster[2].stop()?;
            let word = change(&cluster[2])?;
            cluster[2].start()?;
            status_says(&cluster[2], &word)?;
            status_says(&cluster[2], "`meshctl node demote` and then `node promote`")?;
            let name = create_by_any(&[&cluster[0], &cluster[1]], "meanwhile", &mut number)?;
            wait_for_networks(&cluster[2], &[name])?;
            cluster[0].ctl(&["node", "demote", "n3"])?;
            wait("the damaged state to go", SOON, || {
                ensure!(!state_of(&cluster[2]).exists(), "it is still there");
                Ok(())
            })?;
            cluster[0].ctl(&["node", "promote", "n3"])?;
            wait_for_managers(&cluster[0], &["n1", "n2", "n3"])?;
            create_by_any(&[&cluster[2]], "mended", &mut number)?;
        }
        Ok(())
    })
}

/// With one manager there is nobody to bring it the state: it does not start, changes nothing, and a backup is what helps.
#[test]
fn the_only_manager_is_mended_by_its_backup() -> Result<()> {
    run(2, |cluster| {
        let (_task, load) = publish(cluster)?;
        let backup = cluster[0].run_folder().join("backup").display().to_string();
        cluster[0].ctl(&["cluster", "backup", &backup])?;
        cluster[0].stop()?;
        let word = change_entry(&cluster[0])?;
        let damaged = last_entry(&cluster[0])?;
        let ended = cluster[0].meshd()?.output().context("run meshd")?;
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        ensure!(!ended.status.success() && said.contains(&word), "{said}");
        ensure!(said.contains("restore"), "it does not say what to do: {said}");
        ensure!(last_entry(&cluster[0])? == damaged, "it was changed");

        // As docs/managers.md says: begin anew from the backup.
        fs::rename(cluster[0].state_folder(), cluster[0].state_folder().with_extension("damaged"))
            .context("move the state away")?;
        cluster[0].start()?;
        let (name, address) = (cluster[0].name(), cluster[0].address().to_string());
        cluster[0].ctl(&["cluster", "restore", "--name", &name, "--advertise-addr", &address, &backup])?;
        let mut number = 0;
        let made = create_by_any(&[&cluster[0]], "restored", &mut number)?;
        wait("the worker to follow", SOON + END, || {
            wait_for_networks(&cluster[1], std::slice::from_ref(&made))
        })?;
        cluster.wait_for_members(2)?;
        load.end().none_failed()
    })
}
