//! The state folder between memberships: empty but for the lock, also when the daemon was killed on the way.

use std::{fs, io, path::Path};

use anyhow::{Context, Result, bail};

/// Stays for as long as the daemon lives.
const LOCK: &str = "lock";
/// Lies beside what an `init`, `join` or `leave` under way makes or removes. Where it lies without a membership, a start
/// removes the rest.
const UNFINISHED: &str = "unfinished";
/// See [`crate::membership`].
const MEMBERSHIP: &str = "membership";

/// Refuses a folder without a membership but with other files: they are not ours to remove.
pub fn refuse_leftovers(state_dir: &Path) -> Result<()> {
    let entries = fs::read_dir(state_dir).with_context(|| format!("state folder {}", state_dir.display()))?;
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let names: Vec<_> = names.filter(|name| name != LOCK).collect();
    if names.is_empty() {
        return Ok(());
    }
    bail!(
        "the state folder {} holds {} but no membership; restore it, or move these files away to start anew",
        state_dir.display(),
        names.join(", ")
    )
}

/// Marks what follows as unfinished.
pub fn begin(state_dir: &Path) -> Result<()> {
    let path = state_dir.join(UNFINISHED);
    let made = fs::File::create(&path).and_then(|file| file.sync_all());
    made.with_context(|| format!("make {}", path.display()))
}

/// Whether something was cut off.
pub fn is_unfinished(state_dir: &Path) -> bool {
    state_dir.join(UNFINISHED).exists()
}

/// Takes the mark away.
pub fn finished(state_dir: &Path) -> Result<()> {
    remove(&state_dir.join(UNFINISHED))
}

/// Removes everything but the lock: the membership first, the mark last.
pub fn wipe(state_dir: &Path) -> Result<()> {
    begin(state_dir)?;
    remove(&state_dir.join(MEMBERSHIP))?;
    let failed = || format!("empty the state folder {}", state_dir.display());
    for entry in fs::read_dir(state_dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry.file_name() == LOCK || entry.file_name() == UNFINISHED {
            continue;
        }
        let removed = match entry.file_type().with_context(failed)?.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.with_context(|| format!("remove {}", entry.path().display()))?;
    }
    finished(state_dir)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn others_files_are_refused_and_ours_removed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join(LOCK), "").unwrap();
        refuse_leftovers(dir).unwrap();
        begin(dir).unwrap();
        fs::write(dir.join("identity.pem"), "key").unwrap();
        fs::create_dir(dir.join("raft")).unwrap();
        fs::write(dir.join("raft/raft.redb"), "log").unwrap();
        assert!(is_unfinished(dir));
        wipe(dir).unwrap();
        assert_eq!(names(dir), [LOCK]);

        fs::write(dir.join("identity.pem"), "key").unwrap();
        assert!(!is_unfinished(dir));
        let refusal = refuse_leftovers(dir).unwrap_err().to_string();
        assert!(
            refusal.contains("identity.pem") && refusal.contains(&dir.display().to_string()),
            "{refusal}"
        );
    }
}
