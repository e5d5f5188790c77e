//! Files that the agent keeps, so that a node comes back with no manager in sight.
//!
//! Each is one value: a magic word, a format version, a SHA-256 digest, and postcard bytes. A file is replaced whole
//! or not at all (written beside, then renamed). Only what the others run is a log: see [`crate::heard`].

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use thiserror::Error;

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
    /// Faster; for what a reboot makes void anyway.
    Process,
}

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
    if durability == Durability::Disk {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    match (durability, path.parent()) {
        (Durability::Disk, Some(folder)) => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
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
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeptError::Io { path: path.to_owned(), action: "read", source }),
    }
}

/// Reads the file at `path`; `None` when there is none.
pub fn load<T: Format>(path: &Path) -> Result<Option<T>, KeptError> {
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
mod tests {
    use super::*;

    impl Format for Vec<u32> {}

    #[test]
    fn round_trips_and_tells_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks");
        assert!(load::<Vec<u32>>(&path).unwrap().is_none());
        save(&path, &vec![1u32, 2, 3], Durability::Disk).unwrap();
        assert_eq!(load::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]));

        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = load::<Vec<u32>>(&path).unwrap_err();
            assert!(error.to_string().contains("tasks"), "{error}");
        }
        for flip in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[flip] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            assert!(load::<Vec<u32>>(&path).is_err(), "byte {flip}");
        }
        let mut newer = whole;
        newer[MAGIC.len()] = VERSION + 1;
        fs::write(&path, &newer).unwrap();
        let found = VERSION + 1;
        assert!(matches!(load::<Vec<u32>>(&path), Err(KeptError::Newer { found: f, .. }) if f == found));
        newer[MAGIC.len()] = VERSION - 1;
        fs::write(&path, &newer).unwrap();
        assert_eq!(load::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]), "the version before");
        newer[MAGIC.len()] = VERSION - 2;
        fs::write(&path, &newer).unwrap();
        let error = load::<Vec<u32>>(&path).unwrap_err();
        assert!(matches!(error, KeptError::Older { .. }) && error.to_string().contains("move the file away"));
    }
}
