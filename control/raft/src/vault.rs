//! Encryption of what the file holds of the cluster's state: log entries and the snapshot.

use std::{fmt, io, sync::Arc};

/// Encrypts and authenticates. `what` names the place in the file: bytes of one place do not open in another.
pub trait Cipher: Send + Sync + 'static {
    /// Seals `plain`, the contents of `what`.
    fn seal(&self, what: &[u8], plain: &[u8]) -> io::Result<Vec<u8>>;
    /// Opens what [`Cipher::seal`] sealed, also by an earlier key.
    fn open(&self, what: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>>;
    /// Whether it is sealed by the key that seals now.
    fn is_current(&self, sealed: &[u8]) -> bool;
}

/// A cipher, or none: then the file holds everything as it is.
#[derive(Clone, Default)]
pub(crate) struct Vault(pub Option<Arc<dyn Cipher>>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Vault(sealed)" } else { "Vault(open)" })
    }
}

/// The place of a log entry.
pub(crate) fn entry(index: u64) -> [u8; 12] {
    let mut what = *b"log 00000000";
    what[4..].copy_from_slice(&index.to_be_bytes());
    what
}

/// The place of the snapshot.
pub(crate) const SNAPSHOT: &[u8] = b"snapshot";

impl Vault {
    pub(crate) fn seal(&self, what: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        self.0.as_ref().map_or_else(|| Ok(plain.to_vec()), |cipher| cipher.seal(what, plain))
    }

    pub(crate) fn open(&self, what: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        self.0.as_ref().map_or_else(|| Ok(sealed.to_vec()), |cipher| cipher.open(what, sealed))
    }

    pub(crate) fn is_current(&self, sealed: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|cipher| cipher.is_current(sealed))
    }
}
