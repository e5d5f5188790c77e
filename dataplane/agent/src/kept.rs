//! Files that the agent keeps, so that a node comes back with no manager in sight.
//!
//! Each is one value: a magic word, a format version, a SHA-256 digest, and postcard bytes. A file is replaced whole
//! or not at all (written beside, then renamed). Only what the others run is a log (`heard.rs`).

use std::{
    fs, io,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::agent::lock;

const MAGIC: &[u8; 7] = b"meshd/k";
/// Raised when a kept type changes. The version before is read too ([`Format::before`]).
const VERSION: u8 = 5;
const DIGEST: usize = 32;

/// A value that is kept in a file.
pub trait Format: Serialize + DeserializeOwned {
    /// From the payload of the format version before this one; a type that has changed since says how.
    fn before(payload: &[u8]) -> Option<Self> {
        postcard::from_bytes(payload).ok()
    }
}

/// Why a kept file cannot be used. The file is left as it is.
#[derive(Debug, Error)]
pub enum KeptError {
    /// The operating system refused.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `write`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Cut short, or not ours.
    #[error("{path}: the file is damaged ({problem}); restore it, or move it away to start without it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: &'static str,
    },
    /// Written by an earlier version, before the first release.
    #[error(
        "{path}: format version {found} is of a meshd before the first release, this one reads {VERSION}: move the file \
         away, or make the cluster anew"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// Written by a later version.
    #[error("{path}: format version {found} is newer than this meshd's ({VERSION}); upgrade meshd")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
}

/// Whether a file must survive a loss of power, or only the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Waits for the disk.
    Disk,
    /// The end of the process at once, a loss of power after [`settle`], which waits for the disk and may be called by somebody
    /// who has the time: disks take seconds when others write much. Until then the file is beside the one before it.
    Soon,
    /// Faster; for what a reboot makes void anyway.
    Process,
}

/// Ends the name of a file that the disk may not have yet.
const SOON: &str = "now";
/// Held while such files take their place or go.
static SETTLING: Mutex<()> = Mutex::new(());

/// Replaces the file at `path` by `value`.
pub fn save<T: Format>(path: &Path, value: &T, durability: Durability) -> Result<(), KeptError> {
    let failed = |source| KeptError::Io { path: path.to_owned(), action: "write", source };
    let payload = postcard::to_stdvec(value).map_err(|e| failed(io::Error::other(e)))?;
    let mut bytes = header();
    bytes.extend_from_slice(&Sha256::digest(&payload));
    bytes.extend_from_slice(&payload);
    replace(path, &bytes, durability).map_err(failed)
}

fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Disk => {
            file.sync_all()?;
            fs::rename(&beside, path)?;
            sync_folder(path)
        }
        Durability::Soon => {
            let _turn = lock(&SETTLING);
            fs::rename(&beside, path.with_extension(SOON))
        }
        Durability::Process => fs::rename(&beside, path),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

/// Waits until the disk has what was last saved at `path` with [`Durability::Soon`], and gives it its name.
pub fn settle(path: &Path) -> Result<(), KeptError> {
    let failed = |source| KeptError::Io { path: path.to_owned(), action: "write", source };
    let soon = path.with_extension(SOON);
    let Some(file) = unless_missing(fs::File::open(&soon)).map_err(failed)? else { return Ok(()) };
    file.sync_all().map_err(failed)?;
    {
        let _turn = lock(&SETTLING);
        let Some(now) = unless_missing(fs::metadata(&soon)).map_err(failed)? else { return Ok(()) };
        let then = file.metadata().map_err(failed)?;
        if (now.dev(), now.ino()) != (then.dev(), then.ino()) {
            // Another has come meanwhile, and is settled by a call of its own.
            return Ok(());
        }
        fs::rename(&soon, path).map_err(failed)?;
    }
    sync_folder(path).map_err(failed)
}

/// Removes the file at `path`, whatever was saved there last; none is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    let _turn = lock(&SETTLING);
    for path in [&path.with_extension(SOON), path] {
        unless_missing(fs::remove_file(path))?;
    }
    Ok(())
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// What every file begins with.
pub(crate) fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes
}

/// The version of the file at `path` and what follows its header.
pub(crate) fn after_header<'a>(path: &Path, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), KeptError> {
    let damaged = |problem| KeptError::Damaged { path: path.to_owned(), problem };
    let (header, rest) = bytes.split_at_checked(MAGIC.len() + 1).ok_or_else(|| damaged("it is cut short"))?;
    if !header.starts_with(MAGIC) {
        return Err(damaged("it does not begin as a file of meshd does"));
    }
    let version = header[MAGIC.len()];
    if version > VERSION {
        return Err(KeptError::Newer { path: path.to_owned(), found: version });
    }
    if (1..VERSION - 1).contains(&version) {
        return Err(KeptError::Older { path: path.to_owned(), found: version });
    }
    Ok((version, rest))
}

/// The bytes of the file at `path`; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, KeptError> {
    unless_missing(fs::read(path)).map_err(|source| KeptError::Io {
        path: path.to_owned(),
        action: "read",
        source,
    })
}

/// Reads the file at `path`; `None` when there is none.
pub fn load<T: Format>(path: &Path) -> Result<Option<T>, KeptError> {
    let soon = path.with_extension(SOON);
    // An older daemon, which knows nothing of it, may have written since.
    if written(&soon) >= written(path) {
        match load_at(&soon) {
            // The disk did not have all of it when the power went: it has the one before.
            Err(KeptError::Damaged { problem, .. }) => {
                tracing::warn!(path = %soon.display(), problem, "a kept file is left out");
            }
            Ok(None) => {}
            loaded => return loaded,
        }
    }
    load_at(path)
}

fn written(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|about| about.modified()).ok()
}

fn load_at<T: Format>(path: &Path) -> Result<Option<T>, KeptError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let damaged = |problem| KeptError::Damaged { path: path.to_owned(), problem };
    let (version, rest) = after_header(path, &bytes)?;
    let (digest, payload) = rest.split_at_checked(DIGEST).ok_or_else(|| damaged("it is cut short"))?;
    if Sha256::digest(payload).as_slice() != digest {
        return Err(damaged("its digest does not fit its contents"));
    }
    let read = match version {
        VERSION => postcard::from_bytes(payload).ok(),
        _ => T::before(payload),
    };
    read.map(Some).ok_or_else(|| damaged("its contents cannot be read"))
}

#[cfg(test)]
mod tests;
