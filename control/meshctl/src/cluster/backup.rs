//! `meshctl cluster backup`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use mesh_api::v1::BackupRequest;
use serde::Serialize;

use crate::{context::Context, daemon::answer};

/// Write all that the managers decide by into a file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshctl cluster backup /var/backups/mesh-$(date +%F)

The file holds the cluster's CA key, join tokens and gossip keys: only root may read it. A file that is there is not
overwritten. `meshctl cluster restore` makes a cluster of it.")]
pub struct Args {
    /// File to write
    file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    bytes: usize,
}

/// Asks a manager, by way of the daemon.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let daemon = context.daemon().await?;
    let backup =
        answer(daemon.control().backup(BackupRequest {})).await.context("cannot make a backup")?.backup;
    write(&args.file, &backup).with_context(|| format!("cannot write {}", args.file.display()))?;
    let report = Report { file: args.file, bytes: backup.len() };
    context.show(&report, |report| {
        format!("Backup of {} bytes written to {}: keep it secret.", report.bytes, report.file.display())
    })
}

/// Under another name first: a file of this name is whole.
fn write(file: &Path, backup: &[u8]) -> io::Result<()> {
    if file.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let written = write_part(&part, backup).and_then(|()| fs::rename(&part, file));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_part(part: &Path, backup: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part)?;
    file.write_all(backup)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_may_read_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backup");
        write(&file, b"secret").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"secret");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&file, b"other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"secret");
        write(&dir.path().join("nowhere/backup"), b"x").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
