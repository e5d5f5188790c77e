//! What a manager keeps secret on its own disk: the keys that its files are encrypted with.
//!
//! The ring is a file of its own. While the cluster's managers are not locked it lies open, and protects from nobody
//! who can read the disk; once they are, it is sealed by the unlock key. Whoever locks gets a new key into the ring,
//! because the ones before have lain open; what was encrypted by those is encrypted anew when it is next written, or
//! when the manager next starts.
//!
//! Sealed bytes are: version (1), key id (4: the first bytes of SHA-256 over the key), nonce (12, random), ciphertext and
//! tag (AES-256-GCM, NIST SP 800-38D). What they are the contents of is authenticated beside.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::UnlockKey;

const FILE: &str = "manager.keys";
const MAGIC: &[u8; 7] = b"meshd/y";
const VERSION: u8 = 1;
/// Behind magic and version: the keys follow as they are, behind their digest; or sealed.
const OPEN: u8 = 0;
const SEALED: u8 = 1;
const KEY: usize = 32;
const KEY_ID: usize = 4;
const NONCE: usize = 12;
const DIGEST: usize = 32;
/// What the ring itself is the contents of.
const RING: &[u8] = b"keys";

/// Why keys cannot be used, or what they are to open.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// A file could not be read or written; the one before is still there.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `write`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but holds no keys: damaged or cut short.
    #[error("{} is damaged: {reason}; restore it, or move the manager's state away and let it join again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A later version of meshd wrote the file.
    #[error("{} has format {found}, this meshd reads {VERSION}; use the newer meshd that wrote it", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
    },
    /// The unlock key does not open the ring.
    #[error(
        "the unlock key is not the one that this manager was locked with; if it was changed while this manager was down, use the one before"
    )]
    WrongKey,
    /// Sealed bytes are too short, forged, damaged, or the contents of something else.
    #[error("the seal is broken")]
    Broken,
    /// Sealed by a key that is not in the ring.
    #[error("it is sealed by a key that this manager does not have")]
    UnknownKey,
}

type Key = [u8; KEY];

/// The ring. Changes are on disk before they count.
pub struct Keyring {
    path: PathBuf,
    current: ArcSwap<Ring>,
}

struct Ring {
    /// The last one seals.
    keys: Vec<Key>,
    lock: Option<UnlockKey>,
}

/// A ring as it was found.
#[derive(Debug)]
pub enum FoundKeyring {
    /// It lay open.
    Open(Arc<Keyring>),
    /// It has to be unlocked.
    Locked(LockedKeyring),
}

/// A ring that is sealed by an unlock key.
pub struct LockedKeyring {
    path: PathBuf,
    sealed: Vec<u8>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for LockedKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedKeyring").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A new ring in the state folder `dir`, lying open. It replaces whatever lies there.
    pub fn create(dir: &Path) -> Result<Arc<Self>, KeyringError> {
        let ring = Ring { keys: vec![rand::random()], lock: None };
        let path = dir.join(FILE);
        write(&path, &ring)?;
        Ok(Arc::new(Self { path, current: ArcSwap::from_pointee(ring) }))
    }

    /// The ring in `dir`; none if there is none.
    pub fn find(dir: &Path) -> Result<Option<FoundKeyring>, KeyringError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeyringError::Io { action: "read", path, source }),
        };
        let damaged = |reason| KeyringError::Damaged { path: path.clone(), reason };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as keys do"))?;
        let (&[version, mode], body) = rest.split_first_chunk().ok_or_else(|| damaged("it is cut short"))?;
        if version > VERSION {
            return Err(KeyringError::Newer { path, found: version });
        }
        match mode {
            SEALED => Ok(Some(FoundKeyring::Locked(LockedKeyring { sealed: body.to_vec(), path }))),
            OPEN => {
                let (digest, keys) =
                    body.split_at_checked(DIGEST).ok_or_else(|| damaged("it is cut short"))?;
                if Sha256::digest(keys).as_slice() != digest {
                    return Err(damaged("its digest does not match"));
                }
                let keys = split(keys).ok_or_else(|| damaged("it holds no whole keys"))?;
                let current = ArcSwap::from_pointee(Ring { keys, lock: None });
                Ok(Some(FoundKeyring::Open(Arc::new(Self { path, current }))))
            }
            _ => Err(damaged("it is neither open nor sealed")),
        }
    }

    /// Removes the ring in `dir`, if there is one.
    pub fn remove(dir: &Path) -> Result<(), KeyringError> {
        let path = dir.join(FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(KeyringError::Io { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Whether its file is still there.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// What the ring is sealed by.
    pub fn lock(&self) -> Option<UnlockKey> {
        self.current.load().lock.clone()
    }

    /// Seals the ring by `lock`, or lets it lie open.
    pub fn lock_by(&self, lock: Option<UnlockKey>) -> Result<(), KeyringError> {
        let before = self.current.load();
        if before.lock == lock {
            return Ok(());
        }
        let mut keys = before.keys.clone();
        if lock.is_some() {
            keys.push(rand::random());
        }
        self.keep(Ring { keys, lock })
    }

    /// Forgets all keys but the one that seals. Only for whoever has sealed anew what the others sealed.
    pub fn forget_earlier(&self) -> Result<(), KeyringError> {
        let before = self.current.load();
        match before.keys.as_slice() {
            [.., _, last] => self.keep(Ring { keys: vec![*last], lock: before.lock.clone() }),
            _ => Ok(()),
        }
    }

    fn keep(&self, ring: Ring) -> Result<(), KeyringError> {
        write(&self.path, &ring)?;
        self.current.store(Arc::new(ring));
        Ok(())
    }

    /// Seals `plain`, the contents of `what`.
    pub fn seal(&self, what: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let ring = self.current.load();
        let key = ring.keys.last().ok_or(KeyringError::UnknownKey)?;
        seal(key, what, plain)
    }

    /// Opens what [`Keyring::seal`] sealed, by whichever key of the ring.
    pub fn open(&self, what: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let ring = self.current.load();
        let key = ring.keys.iter().find(|key| has_id(sealed, key)).ok_or(KeyringError::UnknownKey)?;
        open(key, what, sealed)
    }

    /// Whether `sealed` is sealed by the key that seals now.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        self.current.load().keys.last().is_some_and(|key| has_id(sealed, key))
    }
}

impl LockedKeyring {
    /// Opens it; it stays sealed on disk.
    pub fn unlock(&self, key: &UnlockKey) -> Result<Arc<Keyring>, KeyringError> {
        if !has_id(&self.sealed, key.as_bytes()) {
            return Err(KeyringError::WrongKey);
        }
        let damaged = |reason| KeyringError::Damaged { path: self.path.clone(), reason };
        let keys = open(key.as_bytes(), RING, &self.sealed).map_err(|_| damaged("its seal is broken"))?;
        let keys = split(&keys).ok_or_else(|| damaged("it holds no whole keys"))?;
        let current = ArcSwap::from_pointee(Ring { keys, lock: Some(key.clone()) });
        Ok(Arc::new(Keyring { path: self.path.clone(), current }))
    }
}

fn split(bytes: &[u8]) -> Option<Vec<Key>> {
    let (keys, []) = bytes.as_chunks::<KEY>() else { return None };
    (!keys.is_empty()).then(|| keys.to_vec())
}

fn write(path: &Path, ring: &Ring) -> Result<(), KeyringError> {
    let keys = ring.keys.concat();
    let (mode, body) = match &ring.lock {
        None => (OPEN, [Sha256::digest(&keys).as_slice(), &keys].concat()),
        Some(lock) => (SEALED, seal(lock.as_bytes(), RING, &keys)?),
    };
    let bytes = [MAGIC.as_slice(), &[VERSION, mode], &body].concat();
    replace(path, &bytes).map_err(|source| KeyringError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file by one that only its owner can read. After a crash at any moment it holds the old or the new bytes.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn id(key: &Key) -> [u8; KEY_ID] {
    let mut id = [0; KEY_ID];
    id.copy_from_slice(&Sha256::digest(key)[..KEY_ID]);
    id
}

fn has_id(sealed: &[u8], key: &Key) -> bool {
    sealed.get(1..1 + KEY_ID) == Some(id(key).as_slice())
}

fn seal(key: &Key, what: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
    let nonce: [u8; NONCE] = rand::random();
    let mut out = [[VERSION].as_slice(), &id(key), &nonce].concat();
    let sealed = Aes256Gcm::new(key.into())
        .encrypt(Nonce::from_slice(&nonce), Payload { msg: plain, aad: what })
        .map_err(|_| KeyringError::Broken)?;
    out.extend_from_slice(&sealed);
    Ok(out)
}

fn open(key: &Key, what: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyringError> {
    let (&version, rest) = sealed.split_first().ok_or(KeyringError::Broken)?;
    let (nonce, body) =
        rest.get(KEY_ID..).and_then(|rest| rest.split_at_checked(NONCE)).ok_or(KeyringError::Broken)?;
    if version != VERSION {
        return Err(KeyringError::Broken);
    }
    Aes256Gcm::new(key.into())
        .decrypt(Nonce::from_slice(nonce), Payload { msg: body, aad: what })
        .map_err(|_| KeyringError::Broken)
}

#[cfg(test)]
mod tests;
